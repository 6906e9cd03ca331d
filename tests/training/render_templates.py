"""Renders chat templates as transformers does and writes what comes out, for `text::template::parity` to compare with.

    python render_templates.py FOLDER OUT.json      # FOLDER holds *.jinja; and *.gguf, whose templates are taken
    MRPO_TEMPLATES=OUT.json cargo test --lib template::parity -- --nocapture
"""

import datetime
import json
import pathlib
import sys

from transformers.utils.chat_template_utils import _compile_jinja_template

SYSTEM = {"role": "system", "content": "Be kind, \"brief\" & <b>bold</b>."}
ASK = {"role": "user", "content": " What is 2+2?\nThink. "}
ANSWER = {"role": "assistant", "content": "It is 4.\n"}
THOUGHT = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nIt is 4."}
MORE = {"role": "user", "content": "And 3 + 3? 日本 🙂"}
CASES = {
    "conversation": ([SYSTEM, ASK, ANSWER, MORE], True),
    "one question": ([ASK], True),
    "an exchange": ([ASK, ANSWER], False),
    "a thought": ([SYSTEM, ASK, THOUGHT, MORE, THOUGHT], False),
    "two questions": ([ASK, MORE], True),
    "a late system prompt": ([ASK, ANSWER, SYSTEM, MORE], True),
    "another role": ([ASK, {"role": "critic", "content": "no"}], True),
    "nothing": ([], True),
}


def templates(folder):
    for path in sorted(pathlib.Path(folder).iterdir()):
        if path.suffix == ".jinja":
            yield path.name, path.read_text(encoding="utf-8")
        elif path.suffix == ".gguf":
            from gguf import GGUFReader

            for key, field in GGUFReader(path).fields.items():
                if key.startswith("tokenizer.chat_template") and isinstance(field.contents(), str):
                    yield f"{path.name}:{key}", field.contents()


def render(template, messages, add_generation_prompt):
    compiled = _compile_jinja_template(template)
    # The clock of ours stands still.
    day = datetime.datetime(2024, 7, 26)
    compiled.globals["strftime_now"] = lambda form: day.strftime(form)
    return compiled.render(
        messages=messages,
        tools=None,
        documents=None,
        add_generation_prompt=add_generation_prompt,
        bos_token="<s>",
        eos_token="</s>",
    )


rows = []
for name, template in templates(sys.argv[1]):
    for case, (messages, add_generation_prompt) in CASES.items():
        row = {"name": name, "case": case, "messages": messages, "add_generation_prompt": add_generation_prompt}
        row["template"] = template
        try:
            row["text"] = render(template, messages, add_generation_prompt)
        except Exception as error:
            row["error"] = f"{type(error).__name__}: {error}"
        rows.append(row)
pathlib.Path(sys.argv[2]).write_text(json.dumps(rows, ensure_ascii=False), encoding="utf-8")
print(len(rows), "renderings,", sum("error" in row for row in rows), "of them refused")
