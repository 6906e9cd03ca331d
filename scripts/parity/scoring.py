"""Summed completion log-probabilities by transformers, with prompts rendered the way mrpo renders them."""

import json

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer


def read_pairs(path):
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def load(directory):
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager")
    return AutoTokenizer.from_pretrained(directory), model.eval()


def render_prompt(tokenizer, prompt):
    """The chat template with the generation prompt; a text is one user turn."""
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def completion_text(completion):
    return completion if isinstance(completion, str) else completion[-1]["content"]


def token_ids(tokenizer, prompt, completion):
    """Prompt and completion are tokenized apart, so that the completion's first token does not depend on the prompt.

    Without a chat template the prompt is BOS and the text as it is.
    """

    def ids(text):
        return tokenizer(text, add_special_tokens=False)["input_ids"]

    is_plain = tokenizer.chat_template is None
    head = [tokenizer.bos_token_id, *ids(prompt)] if is_plain else ids(render_prompt(tokenizer, prompt))
    return head, [*ids(completion_text(completion)), tokenizer.eos_token_id]


@torch.no_grad()
def logp(model, head, tail):
    """Sum of log p(token | everything before it) over the completion's tokens."""
    logits = model(torch.tensor([head + tail])).logits[0, len(head) - 1 : -1].double()
    picked = torch.log_softmax(logits, -1).gather(1, torch.tensor(tail)[:, None])
    return picked.sum().item()
