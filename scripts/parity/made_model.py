#!/usr/bin/env python3
"""Lets transformers, and PEFT where it is an adapter, load what mrpo made, and compares log-probabilities with mrpo's own.

usage: made_model.py RUN_DIR MODEL_DIR [ADAPTER_DIR]

RUN_DIR is a run whose reference 1 is the made model: MODEL_DIR, or ADAPTER_DIR on MODEL_DIR.
"""

import sys

from peft import PeftModel

from scoring import load, logp, token_ids
from specs import scores_of, training_pairs
from summary import record


def main():
    run_dir, model_dir, *adapter = sys.argv[1:]
    tokenizer, model = load(model_dir)
    if adapter:
        model = PeftModel.from_pretrained(model, adapter[0]).eval()
    base, scores = scores_of(run_dir, 0), scores_of(run_dir, 1)
    differences, moved = [], []
    for line, pair in enumerate(training_pairs(run_dir), 1):
        for side in ("chosen", "rejected"):
            theirs = logp(model, *token_ids(tokenizer, pair["prompt"], pair[side]))
            differences.append(abs(theirs - scores[line][side]))
            moved.append(abs(scores[line][side] - base[line][side]))
    assert max(moved) > 0.1, "the made model differs from its base, or this shows nothing"
    check = "PEFT loads our adapter" if adapter else "transformers loads our full checkpoint"
    record(check, f"{len(differences)} log-probs (moved by up to {max(moved):.1f}), nats", max(differences), 0.02)


if __name__ == "__main__":
    main()
