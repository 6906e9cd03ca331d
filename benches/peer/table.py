#!/usr/bin/env python3
"""The tables of a results file: of each round the ratios, then every side's medians.

usage: table.py RESULTS.jsonl
"""

import json
import sys
from statistics import median

COLUMNS = ("case", "side", "rounds", "pairs/s", "with refs", "tokens/s", "refs s", "train s", "wall s", "peak MB")


def rate(row):
    """Pairs per second of the training part."""
    return row["n_pairs"] / row["train_s"]


def rate_with_references(row):
    """Pairs per second of the reference phase and training together; references inside the steps are in both."""
    return row["n_pairs"] / (row["train_s"] + row["reference_s"])


def ratio_lines(rows):
    """For one round of one case: mrpo's speed over TRL's, without and with the pass for references, and its memory."""
    ours = [row for row in rows if row["side"].startswith("mrpo")]
    theirs = [row for row in rows if row["side"].startswith("trl")]
    for our in ours:
        for their in theirs:
            yield (
                f"{our['case']} round {our['round']}: {our['side']} / {their['side']}: "
                f"training {rate(our) / rate(their):.2f} x, with references "
                f"{rate_with_references(our) / rate_with_references(their):.2f} x, "
                f"whole process {their['wall_s'] / our['wall_s']:.2f} x, "
                f"peak memory {our['peak_bytes'] / their['peak_bytes']:.2f} x"
            )


def medians(case, side, rows):
    def middle(figure):
        return median(map(figure, rows))

    return (
        case,
        side,
        str(len(rows)),
        f"{middle(rate):.3f}",
        f"{middle(rate_with_references):.3f}",
        f"{middle(lambda row: row['n_tokens'] / row['train_s']):.0f}",
        f"{middle(lambda row: row['reference_s']):.2f}",
        f"{middle(lambda row: row['train_s']):.2f}",
        f"{middle(lambda row: row['wall_s']):.2f}",
        f"{middle(lambda row: row['peak_bytes']) / 1e6:.0f}",
    )


def print_columns(lines):
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = list(zip(line, widths, strict=True))
        print("  ".join([*(cell.ljust(width) for cell, width in cells[:2]), *(cell.rjust(width) for cell, width in cells[2:])]))


def grouped(rows, *keys):
    groups = {}
    for row in rows:
        groups.setdefault(tuple(row[key] for key in keys), []).append(row)
    return groups


def print_tables(rows):
    for group in grouped(rows, "case", "round").values():
        for line in ratio_lines(group):
            print(line)
    print()
    print_columns([COLUMNS, *(medians(case, side, group) for (case, side), group in grouped(rows, "case", "side").items())])
    print(
        "\nMedians of the rounds. pairs/s and tokens/s are of the training part, `with refs` of it and the references' pass; tokens\n"
        "count prompt and completion of both sides, so the same work for everybody. Peak: the largest resident set of the process."
    )


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        print_tables([json.loads(line) for line in file])


if __name__ == "__main__":
    main()
