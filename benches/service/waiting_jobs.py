#!/usr/bin/env python3
"""How fast the queue answers when much waits in it: creations a second, then list, get and overview at so many waiting jobs.

    benches/service/waiting_jobs.py target/release/mrpo [N_JOBS]

Five users send jobs on one tiny model. The only slot is held by a job whose process is stopped (SIGSTOP) while we measure, so that
nothing of the processor goes to training. The client is a Python process on the same cores: part of each figure is its own.
"""

import json
import os
import random
import signal
import statistics
import sys
import threading
import time

from served import TINY_MODEL, Client, served, until

N_THREADS = 8


def report(name, seconds):
    seconds.sort()
    p99 = seconds[min(len(seconds) - 1, int(len(seconds) * 0.99))]
    print(f"{name}: p50 {statistics.median(seconds) * 1e3:.1f} ms, p99 {p99 * 1e3:.1f} ms ({len(seconds)} requests)", flush=True)


def timed(client, path, n):
    seconds = []
    for i in range(n):
        begin = time.perf_counter()
        client.ask("GET", path(i))
        seconds.append(time.perf_counter() - begin)
    return seconds


def measure(address, data_dir, n_jobs):
    anybody = Client(address)
    root = Client(address, anybody.ask("POST", "/v1/api_keys", {"user": "root", "role": "admin"})["key"])
    keys = [root.ask("POST", "/v1/api_keys", {"user": f"user{i}"})["key"] for i in range(5)]
    root.ask("POST", "/v1/models", {"id": "tiny", "source": f"path:{TINY_MODEL}"})
    until("the model is ready", lambda: root.ask("GET", "/v1/models/tiny")["status"] == "ready")
    rows = "".join(json.dumps({"prompt": f"q{i}", "chosen": "yes", "rejected": "no"}) + "\n" for i in range(1000))
    file = root.upload(rows.encode())[0]["id"]
    for path in ("/v1/models/tiny", f"/v1/files/{file}"):
        root.ask("POST", f"{path}/sharing", {"shared": True})
    body = {"model": "tiny", "training_file": file, "method": {"type": "dpo"}}
    long = {"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 50}}}
    first = root.ask("POST", "/v1/fine_tuning/jobs", {**body, "method": long, "priority": "high"})["id"]
    run = until("the first job runs", lambda: root.ask("GET", f"/v1/fine_tuning/jobs/{first}")["run_id"])
    lock = data_dir / "runs" / run / "run.lock"
    pid = int(until("its process is there", lambda: lock.exists() and lock.read_text().strip()))
    os.kill(pid, signal.SIGSTOP)
    assert root.ask("GET", f"/v1/fine_tuning/jobs/{first}")["status"] == "running"

    jobs, seconds, turn = [], [], threading.Lock()

    def create(number):
        client = Client(address, keys[number % len(keys)])
        while True:
            with turn:
                if len(jobs) >= n_jobs:
                    return
                jobs.append(None)
                place = len(jobs) - 1
            begin = time.perf_counter()
            jobs[place] = client.ask("POST", "/v1/fine_tuning/jobs", body)["id"]
            seconds.append(time.perf_counter() - begin)

    begin = time.perf_counter()
    threads = [threading.Thread(target=create, args=(i,)) for i in range(N_THREADS)]
    [thread.start() for thread in threads]
    [thread.join() for thread in threads]
    wall = time.perf_counter() - begin
    print(f"{n_jobs} jobs created in {wall:.1f} s: {n_jobs / wall:.0f} a second, {N_THREADS} clients", flush=True)
    report("create", seconds)
    print("waiting:", root.ask("GET", "/v1/queue")["n_waiting"])
    for i, job in enumerate(random.Random(1).sample(jobs, 3)):
        print("for instance:", json.dumps(root.ask("GET", f"/v1/fine_tuning/jobs/{job}")["queue"]))
    report("list of 100", timed(root, lambda i: "/v1/fine_tuning/jobs?limit=100", 300))
    report("list of 20", timed(root, lambda i: "/v1/fine_tuning/jobs", 300))
    report("get", timed(root, lambda i: f"/v1/fine_tuning/jobs/{jobs[i * 7919 % len(jobs)]}", 1000))
    report("overview", timed(root, lambda i: "/v1/queue", 100))
    os.killpg(pid, signal.SIGKILL)


def main():
    program, n_jobs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    with served(program, "--requests-per-second", "100000") as (_, address, data_dir, _):
        measure(address, data_dir, n_jobs)


if __name__ == "__main__":
    main()
