#!/usr/bin/env python3
"""How fast the queue answers when much waits in it: creations a second, then list, get and overview at so many waiting jobs.

    python3 benches/queue.py target/release/mrpo [N_JOBS]

Five users send jobs on one tiny model. The only slot is held by a job whose process is stopped (SIGSTOP) while we measure, so that
nothing of the processor goes to training.
"""

import http.client
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
N_THREADS = 8


class Client:
    """One connection with one key."""

    def __init__(self, address, key=None):
        self.connection = http.client.HTTPConnection(address, timeout=60)
        self.headers = {"Content-Type": "application/json"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"

    def ask(self, method, path, body=None, headers=None):
        data = json.dumps(body) if isinstance(body, dict) else body
        self.connection.request(method, path, data, {**self.headers, **(headers or {})})
        answer = self.connection.getresponse()
        text = answer.read()
        assert answer.status == 200, (method, path, answer.status, text[:500])
        return json.loads(text)


def until(what, check):
    for _ in range(1200):
        if found := check():
            return found
        time.sleep(0.1)
    raise SystemExit(f"it never comes that {what}")


def upload(client):
    rows = "".join(json.dumps({"prompt": f"q{i}", "chosen": "yes", "rejected": "no"}) + "\n" for i in range(8))
    parts = [('name="purpose"', "fine-tune"), ('name="file"; filename="pairs.jsonl"', rows)]
    form = "".join(f"--XX\r\nContent-Disposition: form-data; {name}\r\n\r\n{text}\r\n" for name, text in parts) + "--XX--\r\n"
    file = client.ask("POST", "/v1/files", form, {"Content-Type": "multipart/form-data; boundary=XX"})["id"]
    until("the file is checked", lambda: client.ask("GET", f"/v1/files/{file}")["status"] == "processed")
    return file


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
    root.ask("POST", "/v1/models", {"id": "tiny", "source": f"path:{ROOT}/tests/fixtures/models/llama"})
    until("the model is ready", lambda: root.ask("GET", "/v1/models/tiny")["status"] == "ready")
    file = upload(root)
    for path in ("/v1/models/tiny", f"/v1/files/{file}"):
        root.ask("POST", f"{path}/sharing", {"shared": True})
    body = {"model": "tiny", "training_file": file, "method": {"type": "dpo"}}
    first = root.ask("POST", "/v1/fine_tuning/jobs", {**body, "priority": "high"})["id"]
    run = until("the first job runs", lambda: root.ask("GET", f"/v1/fine_tuning/jobs/{first}")["run_id"])
    lock = data_dir / "runs" / run / "run.lock"
    pid = int(until("its process is there", lambda: lock.exists() and lock.read_text().strip()))
    os.kill(pid, signal.SIGSTOP)

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
    os.kill(pid, signal.SIGKILL)


def main():
    program, n_jobs = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 10_000
    with tempfile.TemporaryDirectory() as temp:
        command = [program, "serve", "--listen", "127.0.0.1:0", "--data-dir", temp, "--requests-per-second", "100000"]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            address = server.stdout.readline().strip().removeprefix("listening on http://")
            measure(address, Path(temp), n_jobs)
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
