"""One run of mrpo by its own command line, its figures read from its events."""

import json
import shutil

from process import Failed, measure
import paths
from specs import events, register_spec, train_spec, write


class Unsupported(Exception):
    """The binary does not know a setting."""


def run(mrpo, run_dir, spec):
    """A new run in `run_dir`, to its end: nothing of an earlier one is kept, scores least of all."""
    shutil.rmtree(run_dir, ignore_errors=True)
    write(run_dir, spec)
    problem = None
    try:
        usage = measure([mrpo, "run", run_dir], run_dir / "stderr.log")
    except Failed as failed:
        problem = failed
    last = events(run_dir)[-1] if (run_dir / "events.jsonl").exists() else {"type": "nothing"}
    if problem is None and last["type"] == "succeeded":
        return usage
    failure = last.get("failure", {})
    dtype = spec.get("hyperparameters", {}).get("dtype")
    if dtype and failure.get("code") == "invalid_spec" and dtype in failure["message"]:
        raise Unsupported(f"{mrpo} does not know dtype {dtype}")
    raise Failed(f"{run_dir} ended as {last['type']}: {failure.get('message') or problem}")


def register(mrpo, run_dir):
    run(mrpo, run_dir, register_spec("smollm2", f"path:{paths.GGUF}", str(run_dir.parent / "models")))
    return run_dir


def span_s(log, phase):
    times = [event["at_ms"] for event in log if event["type"] == "progress" and event["phase"] == phase]
    return (max(times) - min(times)) / 1000 if times else 0.0


def figures(run_dir):
    """What the run says of itself. Seconds of a phase are from its first progress to its last, all between steps included."""
    log = events(run_dir)
    steps = [event["values"] for event in log if event["type"] == "metrics"]
    peaks = [event["data"]["peak_memory_bytes"] for event in log if "peak_memory_bytes" in (event.get("data") or {})]
    return {
        "reference_s": span_s(log, "scoring_references"),
        "train_s": span_s(log, "training"),
        "steps_s": sum(step["step_duration_ms"] for step in steps) / 1000,
        "own_peak_bytes": peaks[-1] if peaks else None,
        "own_tokens": steps[-1]["num_tokens"],
        "losses": [step["loss"] for step in steps],
        "grad_norms": [step["grad_norm"] for step in steps],
    }


def train(mrpo, run_dir, registered, pairs, overrides, tuned=()):
    spec = train_spec(registered, pairs, {"checkpoint_every_n_steps": 1_000_000} | overrides, tuned)
    usage = run(mrpo, run_dir, spec)
    return usage | figures(run_dir)


def overrides(case, side):
    """The case in mrpo's words."""
    lora = {} if case.is_lora else {"lora": None}
    return lora | {
        "learning_rate": case.learning_rate,
        "batch_size": case.batch_size,
        "max_length": case.max_length,
        "dtype": side.dtype,
    }


def tuned_references(mrpo, runs, registered, pairs, n):
    """`n` models made from the base by short runs whose seeds and rates differ: other weights, so other scores."""
    made = []
    for place in range(1, n + 1):
        run_dir = runs / f"tuned-{place}"
        spec = train_spec(registered, pairs, {"learning_rate": 1e-3 * place, "max_length": 512})
        run(mrpo, run_dir, spec | {"seed": 1 + place})
        made.append(run_dir)
    return made


def scored_models(run_dir):
    """Under how many models the run itself scored how many completions."""
    with open(run_dir / "scores.out.jsonl", encoding="utf-8") as file:
        scored = [json.loads(line)["reference"] for line in file]
    return len(set(scored)), len(scored)
