#!/usr/bin/env python3
"""Writes a case's pairs and counts their tokens. Runs in the environment of the parity checks.

usage: pairs.py HF_DIR SOURCE.jsonl N_PAIRS TARGET.jsonl [LONG_TOKENS]

Without LONG_TOKENS: the first N_PAIRS lines. With it: neighbours joined until prompt and longer completion have about so many tokens.
All turns of their prompts follow each other and their completions are joined, so prompt and completions keep the share they had.
Prints {"n_pairs", "n_tokens", "longest"}: n_tokens counts prompt and completion of both sides without padding, what a trainer
computes that shares nothing between the sides.
"""

import json
import sys

import paths  # noqa: F401
from scoring import completion_text, read_pairs, token_ids
from transformers import AutoTokenizer

SIDES = ("chosen", "rejected")


def lengths(tokenizer, pair):
    return [sum(map(len, token_ids(tokenizer, pair["prompt"], pair[side]))) for side in SIDES]


def turns(prompt):
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def joined(group):
    """The turns in order; two of the user's that meet become one, as mrpo wants the roles in turn."""
    prompt = []
    for turn in (turn for part in group for turn in turns(part["prompt"])):
        if prompt and prompt[-1]["role"] == turn["role"]:
            prompt[-1] = turn | {"content": f"{prompt[-1]['content']}\n\n{turn['content']}"}
        else:
            prompt.append(turn)
    return {"prompt": prompt} | {side: "\n\n".join(completion_text(part[side]) for part in group) for side in SIDES}


def long_pairs(tokenizer, source, n_pairs, n_tokens):
    made, group = [], []
    for pair in source:
        if len(made) == n_pairs:
            break
        longer = joined([*group, pair])
        if max(lengths(tokenizer, longer)) <= n_tokens:
            group.append(pair)
        elif group and max(lengths(tokenizer, joined(group))) > 0.97 * n_tokens:
            made.append(joined(group))
            group = []
    return made


def main():
    hf_dir, source, n_pairs, target, *long = sys.argv[1:]
    tokenizer = AutoTokenizer.from_pretrained(hf_dir)
    pairs, n_pairs = read_pairs(source), int(n_pairs)
    pairs = long_pairs(tokenizer, pairs, n_pairs, int(long[0])) if long else pairs[:n_pairs]
    assert len(pairs) == n_pairs, f"{source} gives {len(pairs)} pairs only"
    with open(target, "w", encoding="utf-8") as file:
        file.writelines(json.dumps(pair) + "\n" for pair in pairs)
    counts = [lengths(tokenizer, pair) for pair in pairs]
    print(json.dumps({"n_pairs": n_pairs, "n_tokens": sum(map(sum, counts)), "longest": max(map(max, counts))}))


if __name__ == "__main__":
    main()
