#!/usr/bin/env python3
"""One real job per method, over REST, and the loss it begins with against the method's equation.

usage: methods.py MRPO SOURCE [WORK_DIR]

SOURCE is a model as `mrpo models add` takes it. The pairs are the first of the demo's, with extra fields made here. Starts a
server on a free port, runs the jobs one after the other, and reads what every reference said from the runs' directories: from
these numbers the loss before the first step is computed here again. Ends with a table, and with 1 where a number is not the
equation's. Needs nothing but Python and mrpo.
"""

import json
import math
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

DATA = Path(__file__).resolve().parents[2] / "src" / "demo"
N_TRAIN, N_HELD_OUT = 32, 16
BETA = 0.1


def with_extra_fields(line, i):
    row = json.loads(line)
    words = {side: len(row[side].split()) for side in ("chosen", "rejected")}
    for side in words:
        # Short is good, and a full stop at the end is.
        row[f"margin_rewards_{side}"] = [1 - words[side] / 20, float(row[side].endswith("."))]
        row[f"aux_rewards_{side}"] = 1.0 if "tep" in row[side] else words[side] / 50
        row[f"{side}_spans"] = [[0, 9]]
    row["dimension"] = "form" if i % 4 else "content"
    row["reference_response"] = row["rejected"].split(".")[0] + "."
    return row


class Server:
    def __init__(self, mrpo, data_dir):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.data_dir = f"http://127.0.0.1:{port}", data_dir
        command = [mrpo, "serve", "--listen", f"127.0.0.1:{port}", "--data-dir", data_dir]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.until("the server", lambda: self.is_up())

    def is_up(self):
        try:
            return urllib.request.urlopen(self.url + "/healthz").status == 200
        except OSError:
            return False

    def until(self, what, probe, limit_s=1800):
        end = time.monotonic() + limit_s
        while time.monotonic() < end:
            if found := probe():
                return found
            time.sleep(0.2)
        sys.exit(f"{what} took longer than {limit_s} s")

    def get(self, path):
        with urllib.request.urlopen(self.url + path) as answer:
            return json.load(answer)

    def post(self, path, body, content_type="application/json"):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"content-type": content_type})
        try:
            with urllib.request.urlopen(request) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as e:
            sys.exit(f"{path}: {e.read().decode()}")

    def upload(self, rows):
        boundary = uuid.uuid4().hex
        content = "".join(json.dumps(row) + "\n" for row in rows)
        part = f'--{boundary}\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n%s\r\n'
        body = part % ("purpose", "", "fine-tune") + part % ("file", '; filename="pairs.jsonl"', content) + f"--{boundary}--\r\n"
        file = self.post("/v1/files", body.encode(), f"multipart/form-data; boundary={boundary}")["id"]
        checked = self.until("the check", lambda: next((f for f in [self.get(f"/v1/files/{file}")] if f["status"] != "uploaded"), None))
        assert checked["status"] == "processed", checked
        return file

    def job(self, body):
        job = self.post("/v1/fine_tuning/jobs", body)["id"]
        ended = ("succeeded", "failed", "cancelled")
        return self.until("the job", lambda: next((j for j in [self.get(f"/v1/fine_tuning/jobs/{job}")] if j["status"] in ended), None))

    def scores(self, job, models, rows):
        """Per row of the held-out file, per model, the log-probabilities of its completions and how many tokens count."""
        digest = {self.get(f"/v1/models/{m}")["digest"]: m for m in models}
        lines = (self.data_dir / "runs" / job["run_id"] / "scores.out.jsonl").read_text().splitlines()
        found = {m: [] for m in models}
        for score in map(json.loads, lines):
            found[digest[score["reference"]]].append((score["logp"], score["n_tokens"]))
        # The training file's come first.
        n = len(found[models[0]]) // (rows["n"])
        cut = [[scores[i : i + n] for i in range(0, len(scores), n)][-rows["n_held_out"] :] for scores in found.values()]
        return list(zip(*cut))


def nll(z):
    return max(-z, 0) + math.log1p(math.exp(-abs(z)))


def margin(scores):
    return scores[0][0] - scores[1][0]


def main():
    mrpo, source = sys.argv[1:3]
    work = Path(sys.argv[3] if len(sys.argv) > 3 else "methods").resolve()
    shutil.rmtree(work, ignore_errors=True)
    lines = (DATA / "train.jsonl").read_text().splitlines()
    train = [with_extra_fields(line, i) for i, line in enumerate(lines[:N_TRAIN])]
    held_out = [with_extra_fields(line, i) for i, line in enumerate((DATA / "validation.jsonl").read_text().splitlines()[:N_HELD_OUT])]
    server = Server(mrpo, work)
    try:
        ok = run(server, source, train, held_out)
    finally:
        server.process.terminate()
        server.process.wait()
    sys.exit(0 if ok else 1)


def run(server, source, train, held_out):
    server.post("/v1/models", {"id": "smol", "source": source})
    server.until("the model", lambda: server.get("/v1/models/smol")["status"] == "ready")
    files = {"training_file": server.upload(train), "validation_file": server.upload(held_out)}
    plain = {"clip": "none", "weighting": "uniform", "lora": {"rank": 8}, "learning_rate": 2e-4}
    form = [row for row in held_out if row["dimension"] == "form"]
    tuned = None
    ok = True

    def mean(values):
        return sum(values) / len(values)

    def modpo(scores, rows):
        reward = lambda row, side: sum(w * r for w, r in zip((0.3, 0.2), row[f"margin_rewards_{side}"]))
        return mean([nll(-(reward(row, "chosen") - reward(row, "rejected")) / 0.5) for row in rows])

    def hpo(scores, rows):
        total = []
        for ((chosen, rejected),), row in zip(scores, rows):
            advantage = (row["aux_rewards_chosen"] - row["aux_rewards_rejected"]) / 2
            weights = math.exp(advantage), math.exp(-advantage)
            total.append(math.log(2) - 0.1 * sum(w * logp / n for w, (logp, n) in zip(weights, (chosen, rejected))))
        return mean(total)

    def two(combine):
        return lambda scores, rows: mean([combine(margin(base), margin(other)) for base, other in scores])

    ln_2 = lambda scores, rows: math.log(2)
    references = lambda: [{"model": tuned}]
    methods = [
        ("dpo", lambda: {}, ln_2),
        ("mrpo", lambda: {"references": references()}, None),
        ("multi_dpo", lambda: {"references": references()}, two(lambda b, o: (math.log(2) + nll(BETA * (b - o))) / 2)),
        ("modpo", lambda: {"margin_weights": [0.3, 0.2]}, modpo),
        # The second round: the policy starts from the first one's end.
        ("spo", lambda: {"dimension": "form", "earlier": ["smol"], "lambdas": [0.5]}, two(lambda b, o: nll(-0.5 * BETA * (b - o)))),
        ("hpo", lambda: {}, hpo),
        ("selm", lambda: {"alpha": 0.01}, ln_2),
        ("token_level", lambda: {"references": references()}, two(lambda b, o: nll(BETA * (b - o) / 2))),
    ]
    print("| method | loss at the start | by its equation | loss at the end | prefers chosen | s |\n|---|---|---|---|---|---|")
    for kind, section, equation in methods:
        mix = {"mix": "geometric"} if kind == "token_level" else {}
        settings = {**plain, **mix}
        model = tuned if kind == "spo" else "smol"
        began = time.monotonic()
        job = server.job({"model": model, **files, "seed": 1, "method": {"type": kind, kind: {**section(), "hyperparameters": settings}}})
        if job["status"] != "succeeded":
            print(f"{kind}: {job['error']}")
            return False
        tuned = tuned or job["fine_tuned_model"]
        before, after = (job["evaluation"][phase]["metrics"] for phase in ("before", "after"))
        rows = form if kind == "spo" else held_out
        n_train = sum(row["dimension"] == "form" for row in train) if kind == "spo" else len(train)
        models = [r["model"] for r in job["references"]] + (["smol"] if kind == "spo" else [])
        scores = server.scores(job, models, {"n": n_train + len(rows), "n_held_out": len(rows)})
        if kind == "mrpo":
            # The harmonic mean of the two, each with weight 1/2.
            virtual = lambda base, other: -math.log(0.5 * math.exp(base - other) + 0.5) + base
            side = lambda pair, i: virtual(pair[0][i][0], pair[1][i][0])
            expected = mean([nll(BETA * (margin(p[0]) - (side(p, 0) - side(p, 1)))) for p in scores])
        else:
            expected = equation(scores, rows)
        good = abs(before["loss"] - expected) < 2e-5 * max(1, abs(expected))
        ok &= good
        accuracies = f"{before['logps/accuracies']:.3f} -> {after['logps/accuracies']:.3f}"
        mark = "" if good else " DIFFERS"
        seconds = time.monotonic() - began
        print(f"| {kind} | {before['loss']:.6f} | {expected:.6f}{mark} | {after['loss']:.6f} | {accuracies} | {seconds:.0f} |", flush=True)
    return ok


if __name__ == "__main__":
    main()
