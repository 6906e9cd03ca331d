#!/usr/bin/env python3
"""Writes a job's metrics as a run of Weights & Biases, without its service: `wandb sync` sends the folder when there is a network.

    pip install wandb
    scripts/wandb_run.py http://127.0.0.1:8111 ftjob-... [--directory DIR] [--project NAME]      # the key is MRPO_API_KEY's
    wandb sync DIR/wandb/offline-run-*

It may be run again: the run has the job's id, so that W&B goes on with it instead of making another.
"""

import argparse
import json
import os
import urllib.parse
import urllib.request

import wandb


def get(url, path):
    request = urllib.request.Request(f"{url.rstrip('/')}{path}")
    if key := os.environ.get("MRPO_API_KEY"):
        request.add_header("authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def metrics(url, job, kind):
    """Every step's metrics, by step."""
    after, found = None, {}
    while True:
        query = {"kind": kind} | ({"after": after} if after is not None else {})
        page = get(url, f"/v1/fine_tuning/jobs/{job}/metrics?{urllib.parse.urlencode(query)}")
        for point in page["data"]:
            found[point["step"]] = point["metrics"]
            after = point["step"]
        if not page["has_more"]:
            return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("job")
    parser.add_argument("--directory", default=".")
    parser.add_argument("--project", default="mrpo")
    args = parser.parse_args()
    job = get(args.url, f"/v1/fine_tuning/jobs/{args.job}")
    config = {name: job[name] for name in ("model", "method", "references", "seed", "training_file", "validation_file")}
    by_step = {}
    for kind, prefix in (("training", "train/"), ("evaluation", "eval/")):
        for step, values in metrics(args.url, args.job, kind).items():
            by_step.setdefault(step, {}).update({f"{prefix}{name}": value for name, value in values.items()})
    run = wandb.init(mode="offline", project=args.project, id=job["id"], name=job["suffix"] or job["id"], dir=args.directory,
                     config=config, tags=[job["method"]["type"]], settings=wandb.Settings(console="off"))
    for step in sorted(by_step):
        run.log(by_step[step], step=step)
    run.summary["status"] = job["status"]
    directory = run.dir
    run.finish()
    print(f"{len(by_step)} steps in {os.path.dirname(directory)}")


main()
