#!/usr/bin/env python3
"""Fills a fresh server with one of each thing, and writes their ids as schemathesis' dictionaries: a file of lines for each kind.

    seed.py URL DIRECTORY MODEL [KEY]

Without them nearly every generated request would ask for something that is not there and be answered with the same 404.
"""

import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

url, directory, model_file, key = (sys.argv[1:] + [""])[:4]
directory = pathlib.Path(directory)


def send(method, path, body=None, content_type="application/json"):
    request = urllib.request.Request(url + path, body, {"content-type": content_type}, method=method)
    if key:
        request.add_header("authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def post(path, body):
    return send("POST", path, json.dumps(body).encode())


def upload(purpose, lines):
    content = "".join(json.dumps(line) + "\n" for line in lines)
    form = "".join(
        f'--edge\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{value}\r\n'
        for name, more, value in [("purpose", "", purpose), ("file", '; filename="pairs.jsonl"', content)]
    )
    file = send("POST", "/v1/files", f"{form}--edge--\r\n".encode(), "multipart/form-data; boundary=edge")
    return until(f"/v1/files/{file['id']}", "uploaded")


def until(path, *passing):
    for _ in range(1200):
        thing = send("GET", path)
        if thing["status"] not in passing:
            return thing
        time.sleep(0.1)
    sys.exit(f"{path} stays {thing['status']}")


def pairs(n):
    return [{"prompt": f"q {i}?", "chosen": f"yes {i}", "rejected": "no"} for i in range(n)]


def keep(name, *values):
    (directory / f"{name}.txt").write_text("".join(f"{json.dumps(value)}\n" for value in values))


post("/v1/models", {"id": "tiny", "source": f"path:{model_file}"})
model = until("/v1/models/tiny", "pending")
assert model["status"] == "ready", model
files = [upload("fine-tune", pairs(n)) for n in (8, 3)]
assert all(file["status"] == "processed" for file in files), files

settings = {"batch_size": 4, "max_length": 64, "lora": {"rank": 2}}
body = {"model": "tiny", "training_file": files[0]["id"], "validation_file": files[1]["id"],
        "method": {"type": "dpo", "dpo": {"hyperparameters": settings}}}
done = post("/v1/fine_tuning/jobs", body)
done = until(f"/v1/fine_tuning/jobs/{done['id']}", "validating_files", "queued", "running")
assert done["status"] == "succeeded", done
waiting = post("/v1/fine_tuning/jobs", body | {"priority": "low"})
waiting = post(f"/v1/fine_tuning/jobs/{waiting['id']}/pause", {})
reference_list = post("/v1/reference_lists", {"name": "both", "references": [{"model": done["fine_tuned_model"]}]})
export = post("/v1/models/tiny/exports", {"format": "huggingface"})
export = until(f"/v1/exports/{export['id']}", "pending")
assert export["status"] == "ready", export
a_part = post("/v1/uploads", {"filename": "pairs.jsonl", "purpose": "fine-tune", "bytes": 64})
# Nobody listens there: what it is told is given up or waits.
kinds = ["fine_tuning.job.succeeded", "fine_tuning.job.failed"]
webhook = post("/v1/webhook_endpoints", {"name": "mine", "url": "http://127.0.0.1:1/mrpo", "event_types": kinds})
try:
    post(f"/v1/webhook_endpoints/{webhook['id']}/test", {"event_type": kinds[0]})
except urllib.error.HTTPError as e:
    assert e.code == 422, e.read()
delivery = send("GET", f"/v1/webhook_endpoints/{webhook['id']}/deliveries")["data"][0]
checkpoint = send("GET", f"/v1/fine_tuning/jobs/{done['id']}/checkpoints")["data"][0]

keep("models", "tiny", done["fine_tuned_model"])
keep("files", *(file["id"] for file in files), *done["result_files"])
keep("jobs", done["id"], waiting["id"])
keep("reference_lists", reference_list["id"])
keep("exports", export["id"])
keep("uploads", a_part["id"])
keep("checkpoints", checkpoint["id"])
keep("webhooks", webhook["id"])
keep("deliveries", delivery["id"])
keep("names", *(file["name"] for file in export["files"]))
keep("events", *(event["id"] for event in send("GET", f"/v1/fine_tuning/jobs/{done['id']}/events")["data"]))
