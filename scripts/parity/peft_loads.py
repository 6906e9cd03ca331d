#!/usr/bin/env python3
"""Lets PEFT load an mrpo adapter on the transformers model and compares its log-probabilities with those mrpo computed.

usage: peft_loads.py HF_DIR ADAPTER_DIR SCORES.jsonl DIGEST PAIRS.jsonl

SCORES.jsonl is the scores.out.jsonl of a run that used the tuned model as a reference: lines with "reference" (DIGEST picks the
tuned model's), "row" (line of PAIRS.jsonl, from 0), "chosen" and "rejected".
"""

import json
import sys

from peft import PeftModel

from scoring import load, logp, read_pairs, token_ids


def main():
    hf_dir, adapter, scores, digest, pairs_file = sys.argv[1:6]
    tokenizer, model = load(hf_dir)
    model = PeftModel.from_pretrained(model, adapter).eval()
    pairs = read_pairs(pairs_file)
    rows = [row for row in map(json.loads, open(scores, encoding="utf-8")) if row["reference"] == digest]
    assert rows, f"{scores} has no scores of {digest}"
    largest = 0.0
    for row in rows:
        pair = pairs[row["row"]]
        for side in ("chosen", "rejected"):
            theirs = logp(model, *token_ids(tokenizer, pair["prompt"], pair[side]))
            largest = max(largest, abs(theirs - row[side]))
    print(f"PEFT on {adapter}: {2 * len(rows)} completions, largest difference {largest:.6f} nats")


if __name__ == "__main__":
    main()
