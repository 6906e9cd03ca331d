"""A server of its own for a measurement, and a client that keeps its connection."""

import contextlib
import http.client
import json
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TINY_MODEL = ROOT / "tests/fixtures/models/llama/model.gguf"


class Client:
    """One connection with one key."""

    def __init__(self, address, key=None):
        self.connection = http.client.HTTPConnection(address, timeout=600)
        self.headers = {"Content-Type": "application/json"}
        if key:
            self.headers["Authorization"] = f"Bearer {key}"

    def ask(self, method, path, body=None, headers=None):
        data = json.dumps(body) if isinstance(body, dict) else body
        try:
            answer = self.send(method, path, data, headers or {})
        except http.client.RemoteDisconnected:
            self.connection.close()
            answer = self.send(method, path, data, headers or {})
        text = answer.read()
        assert answer.status == 200, (method, path, answer.status, text[:500])
        return json.loads(text)

    def send(self, method, path, data, headers):
        self.connection.request(method, path, data, {**self.headers, **headers})
        return self.connection.getresponse()

    def upload(self, content):
        """Uploads what is bytes or gives bytes, and waits for its check. The file, and the seconds of both."""
        head = 'Content-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--XX\r\n'
        head = f'--XX\r\n{head}Content-Disposition: form-data; name="file"; filename="pairs.jsonl"\r\n\r\n'.encode()
        tail = b"\r\n--XX--\r\n"

        def form():
            yield head
            yield from [content] if isinstance(content, bytes) else content
            yield tail

        begun = time.perf_counter()
        file = self.ask("POST", "/v1/files", form(), {"Content-Type": "multipart/form-data; boundary=XX"})
        uploaded = time.perf_counter()
        path = f"/v1/files/{file['id']}"
        until("the file is checked", lambda: self.ask("GET", path)["status"] != "uploaded")
        return self.ask("GET", path), uploaded - begun, time.perf_counter() - uploaded


def until(what, check, seconds=600):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := check():
            return found
        time.sleep(0.05)
    raise SystemExit(f"it never comes that {what}")


@contextlib.contextmanager
def served(program, *flags):
    """Its process, address and data directory, and the seconds until it listened."""
    with tempfile.TemporaryDirectory() as temp:
        command = [program, "serve", "--listen", "127.0.0.1:0", "--data-dir", temp, *flags]
        begun = time.perf_counter()
        server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            address = server.stdout.readline().strip().removeprefix("listening on http://")
            yield server, address, Path(temp), time.perf_counter() - begun
        finally:
            server.kill()
            server.wait()


def memory_mib(pid, name="VmRSS"):
    """Memory of a process: VmRSS now, VmHWM at most so far."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith(f"{name}:"))


def forget_peak(pid):
    """VmHWM begins anew."""
    Path(f"/proc/{pid}/clear_refs").write_text("5")
