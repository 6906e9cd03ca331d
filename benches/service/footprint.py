#!/usr/bin/env python3
"""What the server takes of the machine: start-up time, memory when idle, and at most while a large file is uploaded and checked.

    benches/service/footprint.py target/release/mrpo [GIGABYTES]

The file is preference data of lines of some 1,000 bytes, all of them different.
"""

import json
import sys
import time

from served import Client, forget_peak, memory_mib, served

CHUNK_LINES = 1000


def lines(n_bytes):
    """So many bytes of preference data, in pieces of a megabyte."""
    filler = "the quick brown fox jumps over the lazy dog " * 10
    n_sent, n = 0, 0
    while n_sent < n_bytes:
        rows = []
        for n in range(n, n + CHUNK_LINES):
            rows.append(json.dumps({"prompt": f"question {n}", "chosen": f"{filler}{n}", "rejected": f"no, {n}, {filler}"}))
        n += 1
        chunk = ("\n".join(rows) + "\n").encode()
        n_sent += len(chunk)
        yield chunk


def main():
    program, n_bytes = sys.argv[1], int(float(sys.argv[2] if len(sys.argv) > 2 else 1) * 1e9)
    starts = []
    for _ in range(5):
        with served(program) as (server, address, _, seconds):
            Client(address).ask("GET", "/healthz")
            starts.append(seconds)
    print(f"listening after {1e3 * sorted(starts)[2]:.0f} ms (median of 5)")
    with served(program) as (server, address, _, _):
        client = Client(address)
        client.ask("GET", "/readyz")
        time.sleep(3)
        idle = memory_mib(server.pid)
        print(f"idle: {idle:.1f} MiB")
        forget_peak(server.pid)
        file, upload, check = client.upload(lines(n_bytes))
        assert file["status"] == "processed", file
        peak = memory_mib(server.pid, "VmHWM")
        print(f"{file['bytes'] / 1e6:.0f} MB, {file['report']['n_pairs']} pairs: uploaded in {upload:.1f} s, checked in {check:.1f} s more")
        print(f"at most {peak:.1f} MiB in both: {peak - idle:.1f} above idle; {memory_mib(server.pid):.1f} afterwards")


if __name__ == "__main__":
    main()
