#!/usr/bin/env python3
"""How mrpo's cost grows: with the number of pairs, and with the tokens of a pair at a constant number of tokens in all.

usage: scaling.py MRPO [--pairs 32,128,512,1024] [--tokens 128,256,...,4096] [--total-tokens 16384] [--dtype float32] [--work DIR]

Prints seconds per 1,000 tokens (mrpo's own count: a shared prompt once) and their ratio to the first line's: 1.00 is linear. A longer
pair costs more by its attention alone. Every line is one new run, its references scored by itself.
"""

import argparse
import json
import random
import sys
from pathlib import Path

import mrpo_side
import paths
from process import Failed
from table import print_columns

HEAD = ("pairs", "tokens/pair", "tokens", "refs s", "train s", "refs s/ktok", "ratio", "train s/ktok", "ratio", "peak MB")
# Words that are one token each, with the space before them, in most vocabularies of byte pairs.
WORDS = "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one".split()


def numbers(text):
    return [int(part) for part in text.split(",") if part]


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("mrpo", type=Path)
    parser.add_argument("--pairs", type=numbers, default=[32, 128, 512, 1024], help="empty: leave this table out")
    parser.add_argument("--tokens", type=numbers, default=[128, 256, 512, 1024, 2048, 4096], help="per pair; empty: left out")
    parser.add_argument("--total-tokens", type=int, default=16384, help="of each line of the second table")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--work", type=Path, default=paths.TOP / "target" / "peer")
    parser.add_argument("--results", type=Path, help="JSON lines, appended to (WORK/scaling.jsonl)")
    chosen = parser.parse_args()
    chosen.mrpo, chosen.work = chosen.mrpo.resolve(), chosen.work.resolve()
    chosen.results = chosen.results or chosen.work / "scaling.jsonl"
    return chosen


def first_pairs(n):
    with open(paths.POLITE, encoding="utf-8") as file:
        pairs = [json.loads(line) for _, line in zip(range(n), file)]
    if len(pairs) < n:
        sys.exit(f"{paths.POLITE} has {len(pairs)} pairs only")
    return pairs


def made_pairs(n_pairs, n_tokens):
    """Half of the tokens prompt, a quarter each completion; the chat template adds some 30. The same text at every call."""
    words = random.Random(n_tokens)

    def text(n):
        return " ".join(words.choice(WORDS) for _ in range(n))

    half, quarter = (n_tokens - 32) // 2, (n_tokens - 32) // 4
    return [{"prompt": text(half), "chosen": text(quarter), "rejected": text(quarter)} for _ in range(n_pairs)]


class Scaling:
    def __init__(self, chosen):
        self.chosen = chosen
        self.runs = chosen.work / "scaling"
        self.runs.mkdir(parents=True, exist_ok=True)
        self.registered = mrpo_side.register(chosen.mrpo, self.runs / "smollm2")

    def measure(self, table, pairs):
        file = self.runs / "pairs.jsonl"
        file.write_text("".join(json.dumps(pair) + "\n" for pair in pairs), encoding="utf-8")
        overrides = {"max_length": 8192, "batch_size": min(8, len(pairs)), "dtype": self.chosen.dtype}
        figures = mrpo_side.train(self.chosen.mrpo, self.runs / "run", self.registered, file, overrides)
        row = {"table": table, "dtype": self.chosen.dtype, "n_pairs": len(pairs)} | figures
        print(f"{table}: {len(pairs)} pairs, {row['own_tokens']:.0f} tokens, {row['wall_s']:.1f} s", file=sys.stderr, flush=True)
        with open(self.chosen.results, "a", encoding="utf-8") as results:
            results.write(json.dumps(row) + "\n")
        return row


def print_growth(rows):
    def per_token(row, phase):
        return 1000 * row[phase] / row["own_tokens"]

    lines = [HEAD]
    for row in rows:
        cells = [f"{row['n_pairs']}", f"{row['own_tokens'] / row['n_pairs']:.0f}", f"{row['own_tokens']:.0f}"]
        cells += [f"{row['reference_s']:.2f}", f"{row['train_s']:.2f}"]
        for phase in ("reference_s", "train_s"):
            cost = per_token(row, phase)
            cells += [f"{cost:.3f}", f"{cost / per_token(rows[0], phase):.2f}"]
        lines.append((*cells, f"{row['peak_bytes'] / 1e6:.0f}"))
    print_columns(lines)
    print()


def main():
    chosen = arguments()
    scaling = Scaling(chosen)
    if chosen.pairs:
        rows = [scaling.measure("pairs", first_pairs(n)) for n in chosen.pairs]
        print(f"Short pairs, more of them ({chosen.dtype})")
        print_growth(rows)
    if chosen.tokens:
        rows = [scaling.measure("tokens", made_pairs(max(1, chosen.total_tokens // n), n)) for n in chosen.tokens]
        print(f"Longer pairs, the same tokens in all ({chosen.dtype})")
        print_growth(rows)


if __name__ == "__main__":
    try:
        main()
    except (Failed, mrpo_side.Unsupported) as problem:
        sys.exit(str(problem))
