"""The table of figures: each check adds a line to summary.jsonl in the working directory; run as a program, it prints them.

usage: summary.py SUMMARY.jsonl     (exit status 1 if a figure is over its limit)
"""

import json
import sys

FILE = "summary.jsonl"


def record(check, compared, figure, limit):
    """`figure` is a largest difference; with `limit` None it is told, not judged."""
    line = {"check": check, "compared": compared, "figure": figure, "limit": limit}
    with open(FILE, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def verdict(line):
    if line["limit"] is None:
        return "-"
    # Written so that a NaN fails.
    return "ok" if line["figure"] <= line["limit"] else "FAILS"


def main():
    lines = [json.loads(line) for line in open(sys.argv[1], encoding="utf-8")]
    widths = [max(len(line[key]) for line in lines) for key in ("check", "compared")]
    print(f"{'check':<{widths[0]}}  {'compared':<{widths[1]}}  {'largest':>8}  {'allowed':>8}")
    for line in lines:
        limit = "-" if line["limit"] is None else f"{line['limit']:.1e}"
        print(f"{line['check']:<{widths[0]}}  {line['compared']:<{widths[1]}}  {line['figure']:>8.1e}  {limit:>8}  {verdict(line)}")
    sys.exit(any(verdict(line) == "FAILS" for line in lines))


if __name__ == "__main__":
    main()
