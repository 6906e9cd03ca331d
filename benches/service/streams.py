#!/usr/bin/env python3
"""Opens many streams of one job's events and tells what they cost: the server's memory, and how late events come.

    benches/service/streams.py http://127.0.0.1:8111 ftjob-... --readers 1000 --seconds 30 \
        --pid SERVER_PID --events DATA_DIR/runs/RUN/events.jsonl

The job should be running. `lag` is from the moment the run wrote an event to the moment a reader has it, on this machine's clock, the time
until the worker looks into the run's file included; `spread` is from the first reader to have an event to each of the others. One Python
process reads all streams, on the same cores: part of both is its own.
"""

import argparse
import asyncio
import json
import time
from urllib.parse import urlsplit


def rss_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmRSS:"))


def quantile(values, q):
    values = sorted(values)
    return values[min(len(values) - 1, int(q * len(values)))] if values else float("nan")


async def read(url, path, key, got, opened):
    reader, writer = await asyncio.open_connection(url.hostname, url.port, limit=1 << 20)
    head = f"GET {path} HTTP/1.0\r\nHost: {url.netloc}\r\nAccept: text/event-stream\r\n"
    writer.write((head + (f"Authorization: Bearer {key}\r\n" if key else "") + "\r\n").encode())
    status = await reader.readline()
    assert b" 200 " in status, status
    opened.append(1)
    is_metrics = False
    try:
        while line := await reader.readline():
            if line.startswith(b"event: "):
                is_metrics = line == b"event: metrics\n"
            elif is_metrics and line.startswith(b"id: "):
                got.append((line[4:-1], time.time()))
            elif is_metrics and line.startswith(b"data: "):
                steps.setdefault(got[-1][0], line[6:])
    finally:
        writer.close()


steps = {}


async def main(args):
    url = urlsplit(args.url)
    path = f"/v1/fine_tuning/jobs/{args.job}/events"
    idle = rss_mib(args.pid) if args.pid else float("nan")
    opened, all_got, tasks = [], [], []
    began = time.time()
    for n in range(args.readers):
        got = []
        all_got.append(got)
        tasks.append(asyncio.create_task(read(url, path, args.key, got, opened)))
        if n % 50 == 49:
            await asyncio.sleep(0.05)
    while len(opened) < args.readers and not any(task.done() for task in tasks):
        await asyncio.sleep(0.05)
    print(f"{len(opened)} streams open after {time.time() - began:.1f} s")
    await asyncio.sleep(2)  # what stood before
    since, peak = time.time(), 0.0
    while time.time() < since + args.seconds:
        peak = max(peak, rss_mib(args.pid)) if args.pid else peak
        await asyncio.sleep(0.5)
    for task in tasks:
        task.cancel()
    errors = [r for r in await asyncio.gather(*tasks, return_exceptions=True) if isinstance(r, AssertionError | OSError)]

    written = {}
    if args.events:
        with open(args.events) as lines:
            for line in lines:
                event = json.loads(line)
                if event["type"] == "metrics":
                    written[event["step"]] = event["at_ms"] / 1000
    first, counts, spread, lag = {}, {}, [], []
    for got in all_got:
        for event, at in got:
            first[event] = min(at, first.get(event, at))
            counts[event] = counts.get(event, 0) + 1
    for got in all_got:
        for event, at in got:
            if first[event] < since:
                continue
            spread.append(at - first[event])
            data = json.loads(steps[event])["data"]
            if data["step"] in written and "loss" in data:
                lag.append(at - written[data["step"]])
    live = [event for event in first if first[event] >= since]
    whole = sum(counts[event] == args.readers for event in live)
    for error in {str(error) for error in errors}:
        print("broken:", error)
    print(f"{len(live)} events live, {whole} of them had by all readers; {len(errors)} broken streams")
    for name, values in [("spread", spread), ("lag", lag)]:
        print(f"{name:7} p50 {1e3 * quantile(values, 0.5):8.1f} ms   p99 {1e3 * quantile(values, 0.99):8.1f} ms   n {len(values)}")
    if args.pid:
        print(f"memory  {idle:.1f} MiB idle, at most {peak:.1f} MiB: {(peak - idle) * 1024 / args.readers:.1f} KiB a stream")


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("url")
parser.add_argument("job")
parser.add_argument("--readers", type=int, default=1000)
parser.add_argument("--seconds", type=float, default=30)
parser.add_argument("--pid", type=int, help="the server's process, to measure its memory")
parser.add_argument("--events", help="the run's events.jsonl, to measure the lag")
parser.add_argument("--key")
asyncio.run(main(parser.parse_args()))
