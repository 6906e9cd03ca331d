#!/usr/bin/env python3
"""Compares the scores of a run's base, and those of transformers now, with log-probabilities that transformers once gave.

usage: golden.py RUN_DIR LOGPS.jsonl HF_DIR

The run's training file is the data file's beginning, as many lines as LOGPS.jsonl has: its row r is line r+1. That transformers
agrees on HF_DIR, too, shows that the directory holds the same weights and tokens.
"""

import json
import sys
from pathlib import Path

from scoring import load, logp, token_ids
from specs import scores_of, training_pairs
from summary import record

SIDES = ("chosen", "rejected")


def over_tolerance(difference, expected):
    """How much of what is allowed is used: 0.02 nats and 1e-4 of the sum."""
    return difference / (0.02 + 1e-4 * abs(expected))


def main():
    run_dir, golden_file, hf_dir = sys.argv[1:4]
    golden = [json.loads(line) for line in open(golden_file, encoding="utf-8")]
    pairs, scores = training_pairs(run_dir), scores_of(run_dir, 0)
    assert [row["row"] for row in golden] == list(range(len(pairs))), "the training file has the rows of LOGPS.jsonl, in order"
    tokenizer, model = load(hf_dir)
    found = {"mrpo": [], "transformers": []}
    for row in golden:
        pair = pairs[row["row"]]
        for side in SIDES:
            expected = row[side]
            head, tail = token_ids(tokenizer, pair["prompt"], pair[side])
            counts = (expected["prompt_tokens"], expected["completion_tokens"])
            assert (len(head), len(tail)) == counts, (row["row"], side, len(head), len(tail), counts)
            ours = {"mrpo": scores[row["row"] + 1][side], "transformers": logp(model, head, tail)}
            for who, value in ours.items():
                difference = abs(value - expected["logp"])
                found[who].append((difference, over_tolerance(difference, expected["logp"])))
    for who, differences in found.items():
        check = f"golden {Path(golden_file).stem.removeprefix('logps_')}"
        nats, share = (max(column) for column in zip(*differences))
        record(check, f"{who}: {len(differences)} log-probs, nats", nats, None)
        record(check, f"{who}: share of 0.02 + 1e-4 |logp|", share, 1.0)


if __name__ == "__main__":
    main()
