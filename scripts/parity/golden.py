#!/usr/bin/env python3
"""Compares transformers on a converted model with stored log-probabilities: shows that the conversion is right.

usage: golden.py HF_DIR LOGPS.jsonl PAIRS.jsonl
"""

import json
import sys

from scoring import load, logp, read_pairs, token_ids


def main():
    directory, golden, dataset = sys.argv[1:4]
    tokenizer, model = load(directory)
    pairs = read_pairs(dataset)
    largest, n_sides = 0.0, 0
    for line in open(golden, encoding="utf-8"):
        row = json.loads(line)
        for side in ("chosen", "rejected"):
            expected = row[side]
            head, tail = token_ids(tokenizer, pairs[row["row"]]["prompt"], pairs[row["row"]][side])
            counts = (expected["prompt_tokens"], expected["completion_tokens"])
            assert (len(head), len(tail)) == counts, (row["row"], side, len(head), len(tail), counts)
            largest = max(largest, abs(logp(model, head, tail) - expected["logp"]))
            n_sides += 1
    print(f"{golden}: {n_sides} completions, token counts equal, largest difference {largest:.6f} nats")


if __name__ == "__main__":
    main()
