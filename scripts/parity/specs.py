#!/usr/bin/env python3
"""Writes the spec.json files that run_all.sh gives to `mrpo run`.

usage: specs.py register DIR MODEL_ID SOURCE STORE_DIR
       specs.py train DIR REGISTERED_DIR PAIRS.jsonl KEY=VALUE ...
KEY=VALUE overrides a setting of `hyperparameters`; reference=TUNED_RUN_DIR adds what that run made as a reference.
"""

import json
import sys
from pathlib import Path

JOB = "ftjob-" + "0" * 32
# As in src/domain/hyperparameters.rs, but for the schedule: a constant rate and no warm-up, as simple as TRL can be told.
HYPERPARAMETERS = {
    "beta": 0.1,
    "mix": "harmonic",
    "clip": "adaptive",
    "epsilon": 0.1,
    "weighting": "arwc",
    "loss": "sigmoid",
    "label_smoothing": 0.0,
    "learning_rate": 1e-4,
    "lr_schedule": "constant",
    "warmup_ratio": 0.0,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "n_epochs": 1,
    "batch_size": 8,
    "micro_batch_tokens": 512,
    "max_length": 1024,
    "truncation": "error",
    "lora": {"rank": 8, "alpha": 16.0, "dropout": 0.0, "target_modules": ["q_proj", "v_proj"]},
    "eval_every_n_steps": None,
    "checkpoint_every_n_steps": 1,
}


def events(run_dir):
    return [json.loads(line) for line in open(Path(run_dir) / "events.jsonl", encoding="utf-8")]


def model_of(run_dir):
    """What a run registered or made."""
    for event in reversed(events(run_dir)):
        if event["type"] == "registered" or (event["type"] == "succeeded" and event.get("model")):
            return event["model"]
    sys.exit(f"{run_dir}: no model among its events; see stderr.log there")


def training_pairs(run_dir):
    """The pairs of a run's training file, in order."""
    spec = json.loads((Path(run_dir) / "spec.json").read_text())
    return [json.loads(line) for line in open(spec["training_file"], encoding="utf-8")]


def scores_of(run_dir, index):
    """What a run scored its pairs with under reference `index`: line (from 1) to {chosen, rejected}."""
    run_dir = Path(run_dir)
    digest = json.loads((run_dir / "spec.json").read_text())["references"][index]["digest"]
    lines = [json.loads(line) for line in open(run_dir / "scores.out.jsonl", encoding="utf-8")]
    scores = {}
    # A line per completion: the chosen one's comes first.
    for line in lines:
        if line["reference"] == digest:
            scores.setdefault(line["line"], []).append(line["logp"])
    return {line: dict(zip(("chosen", "rejected"), logps)) for line, logps in scores.items()}


def reference(name, model):
    return {"model": name, "digest": model["digest"], "location": model["location"], "weight": None}


def write(run_dir, spec):
    run_dir = Path(run_dir)
    (run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run_dir / "spec.json").write_text(json.dumps(spec, indent=2))


def train_spec(registered, pairs, overrides, tuned=()):
    """A run on `pairs` with the model that `registered` holds as policy and base; `tuned` are runs whose models are references, too."""
    references = [reference("base", model_of(registered))]
    for place, made in enumerate(tuned, 1):
        references.append(reference("tuned" if len(tuned) == 1 else f"tuned-{place}", model_of(made)))
    return {
        "kind": "train",
        "job": JOB,
        "seed": 1,
        "references": references,
        "method": {"type": "mrpo"},
        "training_file": str(Path(pairs).resolve()),
        "validation_file": None,
        "hyperparameters": HYPERPARAMETERS | overrides,
    }


def register_spec(model, source, store_dir):
    return {"kind": "register", "model": model, "source": source, "store_dir": store_dir}


def main():
    command, run_dir, *rest = sys.argv[1:]
    if command == "register":
        write(run_dir, register_spec(*rest))
        return
    registered, pairs, *settings = rest
    settings = [setting.split("=", 1) for setting in settings]
    tuned = [value for key, value in settings if key == "reference"]
    overrides = {key: json.loads(value) for key, value in settings if key != "reference"}
    write(run_dir, train_spec(registered, pairs, overrides, tuned))


if __name__ == "__main__":
    main()
