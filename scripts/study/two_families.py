#!/usr/bin/env python3
"""MRPO against references of two families, over REST; then the same job again, which scores nothing.

usage: two_families.py MRPO BASE_SOURCE OTHER_SOURCE PAIRS.jsonl [WORK_DIR]

The sources are models as `mrpo models add` takes them (hf:, path:, pypi:): the base, which is trained, and a second reference with
a tokenizer of its own. The last 64 pairs are held out. Ends with the time, what each reference says of the held-out pairs before
and after, and how many scores were known and computed. Needs nothing but Python and mrpo.
"""

import json
import shutil
import sys
import time
from pathlib import Path

from methods import Server

N_HELD_OUT = 64


def main():
    mrpo, *sources, pairs = sys.argv[1:5]
    work = Path(sys.argv[5] if len(sys.argv) > 5 else "two-families").resolve()
    shutil.rmtree(work, ignore_errors=True)
    rows = [json.loads(line) for line in Path(pairs).read_text().splitlines()]
    server = Server(mrpo, work)
    try:
        for name, source in zip(("base", "other"), sources):
            server.post("/v1/models", {"id": name, "source": source})
        for name in ("base", "other"):
            server.until(name, lambda: server.get(f"/v1/models/{name}")["status"] == "ready")
            model = server.get(f"/v1/models/{name}")
            print(name, {k: model[k] for k in ("architecture", "n_parameters", "vocab_size", "has_chat_template")})
        files = {"training_file": server.upload(rows[:-N_HELD_OUT]), "validation_file": server.upload(rows[-N_HELD_OUT:])}
        for attempt in ("first", "second"):
            show(server, attempt, files)
    finally:
        server.process.terminate()
        server.process.wait()


def show(server, attempt, files):
    mrpo = {"references": [{"model": "base"}, {"model": "other"}], "hyperparameters": {"n_epochs": 1, "lora": {"target_modules": "all-linear"}}}
    began = time.monotonic()
    job = server.job({"model": "base", "seed": 1, **files, "method": {"type": "mrpo", "mrpo": mrpo}})
    print(f"\n{attempt} job: {job['status']} after {time.monotonic() - began:.0f} s", job.get("error") or "")
    events = server.get(f"/v1/fine_tuning/jobs/{job['id']}/events?limit=100")["data"]
    for event in reversed(events):
        if event["type"] == "message":
            print("  ", event["message"])
    for when in ("before", "after"):
        metrics = job["evaluation"][when]["metrics"]
        print(when, {k: round(v, 4) for k, v in sorted(metrics.items()) if k.startswith(("refs/", "loss", "rewards/", "logps/"))})


if __name__ == "__main__":
    main()
