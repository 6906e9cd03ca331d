#!/usr/bin/env python3
"""Runs TRL and mrpo in turn on the same pairs, round by round, and prints how their speed and memory compare.

usage: peer.py MRPO [--cases dpo,k3] [--sides trl-f32,mrpo-f32] [--rounds 3] (see --help and README.md)
"""

import argparse
import json
import math
import signal
import subprocess
import sys
from pathlib import Path

import mrpo_side
import paths
import table
from cases import CASES, SIDES
from process import Failed, measure

LONG_TOKENS = 2048
# How far the first loss of DPO may be from ln 2: rounding of float32, and of bfloat16.
LN2_LIMIT = {"float32": 1e-4, "bfloat16": 5e-2}


def names(known):
    def parse(text):
        chosen = text.split(",")
        if unknown := [name for name in chosen if name not in known]:
            raise argparse.ArgumentTypeError(f"unknown: {', '.join(unknown)}; known: {', '.join(known)}")
        return chosen

    return parse


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("mrpo", type=Path, help="the binary, a release build")
    parser.add_argument("--cases", type=names(CASES), default=list(CASES), help=f"of {','.join(CASES)} (all)")
    parser.add_argument("--sides", type=names(SIDES), default=list(SIDES), help=f"of {','.join(SIDES)} (all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--pairs", type=int, help="fewer pairs than the case has: to try the script out, not to measure")
    parser.add_argument("--venv", type=Path, default=paths.TOP / ".venv", help="made by scripts/parity/setup.sh if absent")
    parser.add_argument("--hf", type=Path, help="the model as a Hugging Face directory, made if absent (WORK/hf)")
    parser.add_argument("--work", type=Path, default=paths.TOP / "target" / "peer")
    parser.add_argument("--results", type=Path, help="JSON lines, appended to (WORK/results.jsonl)")
    chosen = parser.parse_args()
    chosen.mrpo, chosen.work, chosen.venv = (path.resolve() for path in (chosen.mrpo, chosen.work, chosen.venv))
    chosen.hf = (chosen.hf or chosen.work / "hf").resolve()
    chosen.results = chosen.results or chosen.work / "results.jsonl"
    return chosen


class Bench:
    """The prepared environment, model and pairs of one session."""

    def __init__(self, chosen):
        self.mrpo, self.work, self.hf = chosen.mrpo, chosen.work, chosen.hf
        self.runs = chosen.work / "runs"
        self.runs.mkdir(parents=True, exist_ok=True)
        self.python = chosen.venv / "bin" / "python"
        if not self.python.exists():
            subprocess.run([paths.PARITY / "setup.sh", chosen.venv], check=True)
        if not (self.hf / "model.safetensors").exists():
            subprocess.run([self.python, paths.PARITY / "gguf_to_hf.py", paths.GGUF, self.hf], check=True)
        self.registered = mrpo_side.register(self.mrpo, self.runs / "smollm2")

    def prepare(self, case, n_pairs):
        """Writes the case's pairs; gives their file and what is told of every row about them."""
        target = self.work / f"{case.name}.jsonl"
        long = [str(LONG_TOKENS)] if case.is_long else []
        command = [self.python, paths.HERE / "pairs.py", self.hf, paths.HARMLESS, str(n_pairs), target, *long]
        counts = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
        if counts["longest"] > case.max_length:
            sys.exit(f"{case.name}: a pair has {counts['longest']} tokens and {case.max_length} are allowed: sides would cut differently")
        return target, {"n_pairs": counts["n_pairs"], "n_tokens": counts["n_tokens"]}

    def trl(self, case, side, pairs):
        result = self.runs / f"{case.name}-{side.name}.json"
        result.unlink(missing_ok=True)
        command = [self.python, paths.HERE / "trl_side.py", self.hf, pairs, case.name, side.name, result]
        usage = measure(command, result.with_suffix(".log"))
        return usage | json.loads(result.read_text())

    def ours(self, case, side, pairs, tuned):
        run_dir = self.runs / f"{case.name}-{side.name}"
        row = mrpo_side.train(self.mrpo, run_dir, self.registered, pairs, mrpo_side.overrides(case, side), tuned)
        scored = mrpo_side.scored_models(run_dir)
        n_completions = 2 * sum(1 for _ in open(pairs, encoding="utf-8"))
        models = 1 + case.extra_references
        if scored != (models, models * n_completions):
            sys.exit(f"{run_dir}: {scored} models and completions scored, not {(models, models * n_completions)}")
        return row


def check_first_loss(case, side, losses):
    """DPO begins at ln 2. With several references mrpo does not: its virtual reference is not the policy's start."""
    if not all(map(math.isfinite, losses)):
        sys.exit(f"{case.name}, {side.name}: a loss is not a number: {losses}")
    if side.is_mrpo and case.extra_references:
        return
    off = abs(losses[0] - math.log(2))
    if off > LN2_LIMIT[side.dtype]:
        sys.exit(f"{case.name}, {side.name}: the first loss is {losses[0]}, not ln 2: what follows would compare different work")


def in_turn(sides, number):
    """Every second round backwards, so that no side always runs on a machine that another has warmed."""
    return sides if number % 2 else sides[::-1]


def run_case(bench, case, chosen, keep):
    pairs, counts = bench.prepare(case, min(chosen.pairs or case.n_pairs, case.n_pairs))
    sides, skipped = [SIDES[name] for name in chosen.sides], set()
    is_ours = any(side.is_mrpo for side in sides)
    tuned = mrpo_side.tuned_references(bench.mrpo, bench.runs, bench.registered, pairs, case.extra_references) if is_ours else []
    for number in range(1, chosen.rounds + 1):
        rows = []
        for side in in_turn(sides, number):
            if side.name in skipped:
                continue
            print(f"{case.name} round {number}: {side.name} ...", file=sys.stderr, flush=True)
            try:
                figures = bench.ours(case, side, pairs, tuned) if side.is_mrpo else bench.trl(case, side, pairs)
            except mrpo_side.Unsupported as problem:
                print(f"{case.name}: {side.name} left out: {problem}", flush=True)
                skipped.add(side.name)
                continue
            check_first_loss(case, side, figures["losses"])
            rows.append({"case": case.name, "side": side.name, "round": number} | counts | figures)
            keep(rows[-1])
        for line in table.ratio_lines(rows):
            print(line, flush=True)
        yield from rows


def main():
    chosen = arguments()
    bench = Bench(chosen)
    rows = []
    with open(chosen.results, "a", encoding="utf-8") as results:

        def keep(row):
            results.write(json.dumps(row) + "\n")
            results.flush()

        for name in chosen.cases:
            rows += run_case(bench, CASES[name], chosen, keep)
    print()
    table.print_tables(rows)


if __name__ == "__main__":
    # So that a terminated session ends its child, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    try:
        main()
    except Failed as problem:
        sys.exit(str(problem))
