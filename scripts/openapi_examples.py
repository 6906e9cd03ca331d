#!/usr/bin/env python3
"""Writes openapi/examples.json: for every operation what was sent and what came, from a run of a real server that this starts.

    cargo build && scripts/openapi_examples.py [PROGRAM]

Lists are cut to their first two items, what opens something is masked, and paths of this machine are replaced. Then: cargo run -- openapi > openapi/openapi.json
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROGRAM = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/debug/mrpo").resolve()
MODEL = ROOT / "tests/fixtures/models/llama/model.gguf"
examples = {}
# What stands for this machine's own in the examples.
masks = {str(MODEL): "/models/tiny.gguf"}


def cut(value):
    """Short enough to be read: of a list the first two items, of metrics the first eight."""
    if isinstance(value, list):
        return [cut(item) for item in value[:2]]
    if isinstance(value, dict):
        names = list(value)
        if len(names) > 12 and all(isinstance(v, float | int) for v in value.values()):
            names = names[:8]
        return {name: masked(value[name]) if name in ("key", "token", "signing_secret") else cut(value[name]) for name in names}
    if isinstance(value, str):
        for real, shown in masks.items():
            value = value.replace(real, shown)
        return value
    return value


def masked(secret):
    return f"{secret[:12]}…" if isinstance(secret, str) else secret


class Server:
    def __init__(self, directory):
        self.data = pathlib.Path(directory) / "data"
        self.key = subprocess.run(
            [PROGRAM, "keys", "create", "--data-dir", self.data, "--user", "ana", "--role", "admin"],
            check=True, capture_output=True, text=True,
        ).stdout.strip()
        self.process = subprocess.Popen(
            [PROGRAM, "serve", "--data-dir", self.data, "--listen", "127.0.0.1:0", "--allow-webhook", "127.0.0.1"],
            stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        self.url = self.process.stdout.readline().removeprefix("listening on ").strip()

    def send(self, method, path, body=None, content_type="application/json"):
        request = urllib.request.Request(self.url + path, body, {"content-type": content_type}, method=method)
        request.add_header("authorization", f"Bearer {self.key}")
        try:
            with urllib.request.urlopen(request, timeout=180) as answer:
                content = answer.read()
        except urllib.error.HTTPError as e:
            sys.exit(f"{method} {path}: {e.read().decode()}")
        return content.decode()

    def keep(self, name, method, path, body=None):
        """Asks, and keeps both as the operation's example."""
        sent = None if body is None else json.dumps(body).encode()
        text = self.send(method, path, sent)
        answer = json.loads(text) if text.startswith("{") else text
        examples[name] = {} if body is None else {"request": cut(body)}
        examples[name]["response"] = cut(answer)
        return answer

    def until(self, path, *passing):
        for _ in range(1200):
            thing = json.loads(self.send("GET", path))
            if thing["status"] not in passing:
                return thing
            time.sleep(0.1)
        sys.exit(f"{path} stays {thing['status']}")

    def form(self, name, path, parts):
        form = "".join(
            f'--edge\r\nContent-Disposition: form-data; name="{field}"{more}\r\n\r\n{value}\r\n'
            for field, more, value in parts
        )
        answer = json.loads(self.send("POST", path, f"{form}--edge--\r\n".encode(), "multipart/form-data; boundary=edge"))
        examples[name] = {"response": cut(answer)}
        return answer


def pairs(n, start=0):
    lines = [{"prompt": f"What is {i} + {i}?", "chosen": f"{2 * i}.", "rejected": "I do not know."} for i in range(start, start + n)]
    return "".join(json.dumps(line) + "\n" for line in lines)


def files(s):
    parts = lambda name, content: [("purpose", "", "fine-tune"), ("file", f'; filename="{name}"', content)]
    ids = []
    for name, content in [("validation.jsonl", pairs(4, 90)), ("pairs.jsonl", pairs(16))]:
        ids.append(s.form("upload_file", "/v1/files", parts(name, content))["id"])
        s.until(f"/v1/files/{ids[-1]}", "uploaded")
    validation, training = ids
    s.keep("get_file", "GET", f"/v1/files/{training}")
    s.keep("list_files", "GET", "/v1/files?limit=2")
    s.keep("get_overlap", "GET", f"/v1/files/{training}/overlap?with={validation}")
    s.keep("share_file", "POST", f"/v1/files/{training}/sharing", {"shared": True})
    content = pairs(8, 50)
    upload = s.keep("create_upload", "POST", "/v1/uploads", {
        "filename": "more.jsonl", "purpose": "fine-tune", "bytes": len(content), "mime_type": "text/jsonl"})["id"]
    part = s.form("add_upload_part", f"/v1/uploads/{upload}/parts", [("data", '; filename="part"', content)])["id"]
    more = s.keep("complete_upload", "POST", f"/v1/uploads/{upload}/complete", {"part_ids": [part]})["file"]["id"]
    other = json.loads(s.send("POST", "/v1/uploads", json.dumps({"filename": "x.jsonl", "purpose": "fine-tune", "bytes": 9}).encode()))
    s.keep("cancel_upload", "POST", f"/v1/uploads/{other['id']}/cancel")
    s.until(f"/v1/files/{more}", "uploaded")
    s.keep("delete_file", "DELETE", f"/v1/files/{more}")
    return training, validation


def models(s):
    s.keep("create_model", "POST", "/v1/models", {"id": "tiny", "source": f"path:{MODEL}"})
    s.until("/v1/models/tiny", "pending")
    s.keep("get_model", "GET", "/v1/models/tiny")
    s.keep("preview_pair", "POST", "/v1/models/tiny/preview",
           {"pair": {"prompt": "Hello?", "chosen": "Hello!", "rejected": "Go away."}})
    s.keep("share_model", "POST", "/v1/models/tiny/sharing", {"shared": True})


def jobs(s, training, validation):
    settings = {"beta": 0.1, "batch_size": 4, "max_length": 128, "lora": {"rank": 4}}
    body = {"model": "tiny", "training_file": training, "validation_file": validation, "suffix": "sums", "seed": 7,
            "metadata": {"team": "blue"}}
    dpo = json.loads(s.send("POST", "/v1/fine_tuning/jobs", json.dumps(
        body | {"method": {"type": "dpo", "dpo": {"hyperparameters": settings}}}).encode()))["id"]
    tuned = s.until(f"/v1/fine_tuning/jobs/{dpo}", "validating_files", "queued", "running")["fine_tuned_model"]
    references = s.keep("create_reference_list", "POST", "/v1/reference_lists",
                        {"name": "start and dpo", "references": [{"model": "tiny"}, {"model": tuned}]})["id"]
    s.keep("get_reference_list", "GET", f"/v1/reference_lists/{references}")
    s.keep("list_reference_lists", "GET", "/v1/reference_lists")
    s.keep("share_reference_list", "POST", f"/v1/reference_lists/{references}/sharing", {"shared": True})
    mrpo = body | {"method": {"type": "mrpo", "mrpo": {"references": references, "hyperparameters": settings}}}
    path = "/v1/fine_tuning/jobs"
    job = s.keep("create_job", "POST", path, mrpo)["id"]
    waiting = json.loads(s.send("POST", path, json.dumps(mrpo).encode()))["id"]
    s.keep("pause_job", "POST", f"{path}/{waiting}/pause")
    s.until(f"{path}/{waiting}", "running")
    s.keep("set_priority", "POST", f"{path}/{waiting}/priority", {"priority": "high"})
    s.keep("resume_job", "POST", f"{path}/{waiting}/resume")
    s.keep("get_queue", "GET", "/v1/queue")
    s.keep("cancel_job", "POST", f"{path}/{waiting}/cancel")
    s.until(f"{path}/{job}", "validating_files", "queued", "running")
    s.keep("get_job", "GET", f"{path}/{job}")
    s.keep("list_jobs", "GET", f"{path}?limit=1&metadata[team]=blue")
    s.keep("list_job_events", "GET", f"{path}/{job}/events?limit=2")
    s.keep("list_job_metrics", "GET", f"{path}/{job}/metrics")
    s.keep("share_job", "POST", f"{path}/{job}/sharing", {"shared": False})
    checkpoint = s.keep("list_job_checkpoints", "GET", f"{path}/{job}/checkpoints")["data"][0]["id"]
    s.keep("list_checkpoint_files", "GET", f"{path}/{job}/checkpoints/{checkpoint}/files")
    stream = s.send("GET", f"{path}/{job}/events?stream=true")
    examples["stream_events"] = {"response": "\n\n".join(stream.split("\n\n")[:3]) + "\n\n"}
    s.keep("list_reference_scores", "GET", "/v1/reference_scores")
    s.keep("delete_reference_scores", "DELETE", f"/v1/reference_scores?model={tuned}")
    s.keep("delete_reference_list", "DELETE", f"/v1/reference_lists/{references}")
    export = s.keep("create_export", "POST", f"/v1/models/{tuned}/exports", {"format": "gguf", "dtype": "q8_0"})["id"]
    s.until(f"/v1/exports/{export}", "pending")
    s.keep("get_export", "GET", f"/v1/exports/{export}")
    s.keep("list_exports", "GET", f"/v1/models/{tuned}/exports")
    s.keep("delete_export", "DELETE", f"/v1/exports/{export}")
    s.keep("list_models", "GET", "/v1/models?limit=2")
    unused = json.loads(s.send("GET", "/v1/models"))["data"][0]["id"]
    s.keep("delete_model", "DELETE", f"/v1/models/{unused}")
    checkpoint = json.loads(s.send("GET", f"{path}/{dpo}/checkpoints"))["data"][-1]["id"]
    s.keep("delete_job_checkpoint", "DELETE", f"{path}/{dpo}/checkpoints/{checkpoint}")
    s.keep("delete_run_data", "DELETE", f"{path}/{dpo}/run")


class Receiver(BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_):
        pass


def webhooks(s):
    receiver = HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    kind, path = "fine_tuning.job.succeeded", "/v1/webhook_endpoints"
    own = f"http://127.0.0.1:{receiver.server_port}"
    masks[own] = "https://hooks.example.org"
    s.keep("list_webhook_event_types", "GET", "/v1/webhook_event_types")
    hook = s.keep("create_webhook", "POST", path, {"name": "mine", "url": f"{own}/mrpo", "event_types": [kind]})["id"]
    event = s.keep("test_webhook", "POST", f"{path}/{hook}/test", {"event_type": kind})["event_id"]
    s.keep("list_webhook_deliveries", "GET", f"{path}/{hook}/deliveries")
    s.keep("retry_webhook_delivery", "POST", f"{path}/{hook}/deliveries/{event}/retry")
    s.keep("rotate_webhook_secret", "POST", f"{path}/{hook}/rotate_secret", {"keep_old_secret_active_for_24_hours": True})
    s.keep("get_webhook", "GET", f"{path}/{hook}")
    s.keep("list_webhooks", "GET", path)
    s.keep("change_webhook", "POST", f"{path}/{hook}", {"name": "still mine"})
    s.keep("delete_webhook", "DELETE", f"{path}/{hook}")


def the_rest(s):
    for name, path in [("get_index", "/"), ("get_health", "/healthz"), ("get_readiness", "/readyz"), ("me", "/v1/me")]:
        s.keep(name, "GET", path)
    metrics = s.send("GET", "/metrics").splitlines()
    examples["get_metrics"] = {"response": "\n".join(metrics[:6]) + "\n"}
    s.keep("create_stream_token", "POST", "/v1/stream_tokens")
    s.keep("evaluate_objective", "POST", "/v1/objectives/evaluate", {
        "method": "mrpo", "objective": {"beta": 0.1, "epsilon": 0.1},
        "pairs": [{"policy": {"chosen": -12.0, "rejected": -15.0},
                   "references": {"chosen": [-13.0, -11.5], "rejected": [-14.0, -16.0]}}]})
    made = s.keep("create_key", "POST", "/v1/api_keys", {"user": "ben", "role": "member"})
    s.keep("list_keys", "GET", "/v1/api_keys")
    s.keep("revoke_key", "DELETE", f"/v1/api_keys/{made['id']}")
    s.keep("list_audit", "GET", "/v1/audit?limit=2")


def main():
    with tempfile.TemporaryDirectory() as directory:
        server = Server(directory)
        try:
            training, validation = files(server)
            models(server)
            jobs(server, training, validation)
            webhooks(server)
            the_rest(server)
        finally:
            server.process.terminate()
            server.process.wait()
    path = ROOT / "openapi/examples.json"
    path.write_text(json.dumps(dict(sorted(examples.items())), indent=1, ensure_ascii=False) + "\n")
    print(f"{len(examples)} examples in {os.path.relpath(path)}")


main()
