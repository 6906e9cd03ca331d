#!/usr/bin/env python3
"""Drives a running mrpo server with OpenAI's own Python client, unchanged, and fails where the two disagree.

    python3 -m venv .venv && .venv/bin/pip install openai
    cargo run --release -- serve &
    .venv/bin/python scripts/openai_client.py --source hf:HuggingFaceTB/SmolLM2-135M-Instruct

It uploads a few pairs, whole and in parts, waits for their check, creates jobs, pauses, resumes, lists and cancels one, sees another to
its end with its checkpoints and results, and makes each kind of error once. With
--webhook-port a newer client makes a webhook, and verifies what the server sends it (serve --allow-webhook 127.0.0.1). It leaves the models behind; the files are deleted.
scripts/openai_clients.sh runs it with two versions of the client, and the Node client beside it, against a server of its own.
"""

import argparse
import hashlib
import http.server
import io
import json
import pathlib
import queue
import tempfile
import threading
import time

import openai


def pairs(n, rejected="no"):
    """Preference data in OpenAI's format; short, so that the smallest models read it."""
    lines = (
        {
            "input": {"messages": [{"role": "user", "content": f"q {i}"}]},
            "preferred_output": [{"role": "assistant", "content": f"yes {i}"}],
            "non_preferred_output": [{"role": "assistant", "content": rejected}],
        }
        for i in range(n)
    )
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def raises(kind, code, param, call):
    """The error a call must raise, with its code and parameter as the client reads them."""
    try:
        call()
    except kind as e:
        assert (e.code, e.param) == (code, param), (e.code, e.param, e.message)
        assert e.request_id and e.message, e
        print(f"  {type(e).__name__:<16} {e.code}: {e.body['message']}")
        return e
    raise AssertionError(f"no {kind.__name__}")


def until(what, probe, limit_s=600):
    """Polls until `probe` gives something."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if found := probe():
            return found
        time.sleep(0.2)
    raise AssertionError(f"{what} took longer than {limit_s} s")


def upload(client, content):
    file = client.files.create(file=("pairs.jsonl", io.BytesIO(content)), purpose="fine-tune")
    return client.files.wait_for_processing(file.id, poll_interval=0.1)


def in_parts(client):
    print("uploads")
    content = pairs(8)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "pairs.jsonl"
        path.write_bytes(content)
        chunked = client.uploads.upload_file_chunked
        done = chunked(file=path, mime_type="text/jsonl", purpose="fine-tune", part_size=100,
                       md5=hashlib.md5(content).hexdigest())
        assert (done.status, done.file.bytes) == ("completed", len(content)), done
        assert client.files.wait_for_processing(done.file.id, poll_interval=0.1).status == "processed"
        assert client.files.content(done.file.id).read() == content
        assert client.files.delete(done.file.id).deleted
        raises(openai.BadRequestError, "wrong_digest", "md5",
               lambda: chunked(file=path, mime_type="text/jsonl", purpose="fine-tune", md5="0" * 32))
    upload = client.uploads.create(bytes=10, filename="x", mime_type="text/jsonl", purpose="fine-tune")
    part = client.uploads.parts.create(upload.id, data=b"x" * 9)
    raises(openai.BadRequestError, "wrong_size", "part_ids", lambda: client.uploads.complete(upload.id, part_ids=[part.id]))
    assert client.uploads.cancel(upload.id).status == "cancelled"
    raises(openai.ConflictError, "upload_ended", None, lambda: client.uploads.complete(upload.id, part_ids=[part.id]))


def files(client):
    print("files")
    content = pairs(8)
    good = upload(client, content)
    assert (good.status, good.bytes, good.purpose) == ("processed", len(content), "fine-tune"), good
    assert client.files.content(good.id).read() == content
    bad = upload(client, content + b"{broken\n")
    assert bad.status == "error" and "line 9" in bad.status_details, bad
    assert bad.report["problems"]["n_total"] == 1, bad
    assert {good.id, bad.id} <= {file.id for file in client.files.list(limit=1)}, "iterating pages ends and has all"
    assert client.files.retrieve(good.id).id == good.id
    raises(openai.NotFoundError, "file_not_found", None, lambda: client.files.retrieve("file-" + "0" * 32))
    raises(openai.BadRequestError, "invalid_value", "purpose",
           lambda: client.files.create(file=io.BytesIO(content), purpose="assistants"))
    return good, bad


def register(client, model, source):
    print("models")
    if model not in {found.id for found in client.models.list()}:
        assert source, f"the server has no model '{model}': name its --source"
        client.post("/models", body={"id": model, "source": source}, cast_to=object)
    assert client.models.retrieve(model).object == "model"
    raises(openai.NotFoundError, "model_not_found", None, lambda: client.models.retrieve("ft:qwen/Qwen2.5-0.5B:team::x"))


def jobs(client, model, good, bad):
    print("jobs")
    create = client.fine_tuning.jobs.create
    method = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "n_epochs": 20, "batch_size": 1}}}
    raises(openai.BadRequestError, "file_in_error", "training_file",
           lambda: create(model=model, training_file=bad.id, method=method))
    raises(openai.BadRequestError, "model_not_found", "model",
           lambda: create(model="nobody", training_file=good.id, method=method))
    job = create(model=model, training_file=good.id, validation_file=good.id, method=method, suffix="sdk", seed=7,
                 extra_body={"metadata": {"made_by": "openai_client.py"}})
    assert job.object == "fine_tuning.job" and job.seed == 7 and job.error is None, job
    assert job.method.dpo.hyperparameters.beta == 0.1 and job.hyperparameters.n_epochs == 20, job
    assert job.id in {found.id for found in client.fine_tuning.jobs.list(limit=1)}
    listed = client.fine_tuning.jobs.list(extra_query={"metadata": {"made_by": "openai_client.py"}})
    assert job.id in {found.id for found in listed}

    retrieve = lambda: client.fine_tuning.jobs.retrieve(job.id)
    # Client 1.60 has no methods for these two.
    act = lambda what: client.post(f"/fine_tuning/jobs/{job.id}/{what}", cast_to=type(job))
    act("pause")
    until("pausing", lambda: retrieve().status == "paused")
    resumed = act("resume")
    assert resumed.status in ("queued", "validating_files"), resumed
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=1))
    assert len(events) >= 3 and len({event.id for event in events}) == len(events), events
    assert list(client.fine_tuning.jobs.checkpoints.list(job.id)) is not None
    client.fine_tuning.jobs.cancel(job.id)
    until("cancelling", lambda: retrieve().status == "cancelled")
    started = time.monotonic()
    conflict = raises(openai.ConflictError, "illegal_transition", None, lambda: client.fine_tuning.jobs.cancel(job.id))
    assert conflict.response.headers["x-should-retry"] == "false" and time.monotonic() - started < 0.4, "it was sent again"

    mrpo = {"type": "mrpo", "mrpo": {"references": [{"model": model}], "hyperparameters": {"weighting": "uniform"}}}
    job = create(model=model, training_file=good.id, method=mrpo)
    assert job.method.type == "mrpo" and job.references[0]["model"] == model, job
    client.fine_tuning.jobs.cancel(job.id)
    until("cancelling", lambda: client.fine_tuning.jobs.retrieve(job.id).status == "cancelled")


def whole_job(client, model, good):
    print("a whole job")
    job = client.fine_tuning.jobs.create(
        model=model, training_file=good.id, validation_file=good.id, suffix="whole",
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "n_epochs": 2, "batch_size": 4}}})
    final = lambda: client.fine_tuning.jobs.retrieve(job.id)
    until("the job", lambda: final().status in ("succeeded", "failed"))
    job = final()
    assert job.status == "succeeded" and job.trained_tokens > 0 and job.finished_at >= job.created_at, job
    assert job.fine_tuned_model.startswith(f"ft:{model}:whole:"), job
    assert client.models.retrieve(job.fine_tuned_model).id == job.fine_tuned_model
    events = list(client.fine_tuning.jobs.list_events(job.id, limit=2))
    assert [event.created_at for event in events] == sorted((event.created_at for event in events), reverse=True), events
    checkpoints = list(client.fine_tuning.jobs.checkpoints.list(job.id, limit=1))
    assert checkpoints and checkpoints[0].step_number == 4 and checkpoints[0].metrics.train_loss > 0, checkpoints
    assert client.models.retrieve(checkpoints[0].fine_tuned_model_checkpoint).object == "model"
    results = {client.files.retrieve(id).filename: id for id in job.result_files}
    assert sorted(results) == ["step_metrics.csv", "step_metrics.jsonl"], results
    rows = client.files.content(results["step_metrics.csv"]).text.splitlines()
    assert rows[0].startswith("step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,"), rows[0]
    assert rows[-1].startswith("4,"), rows
    assert set(results.values()) == {file.id for file in client.files.list(purpose="fine-tune-results")} & set(results.values())
    for id in results.values():
        assert client.files.delete(id).deleted
    e = raises(openai.NotFoundError, "route_not_found", None,
               lambda: client.get(f"/fine_tuning/checkpoints/{job.fine_tuned_model}/permissions", cast_to=object))
    assert "/sharing" in e.message, e.message


class Hook(http.server.BaseHTTPRequestHandler):
    """Takes what the server sends to the webhook."""

    received = queue.Queue()

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.received.put((body, self.headers))

    def log_message(self, *_):
        pass


def webhooks(client, model, good, port):
    if not hasattr(getattr(client, "webhooks", None), "rotate_secret"):
        print("SKIPPED: webhooks, which this client does not know")
        return
    print("webhooks")
    types = ["fine_tuning.job.succeeded", "fine_tuning.job.failed", "fine_tuning.job.cancelled"]
    assert client.webhooks.event_types.list().data == types
    raises(openai.PermissionDeniedError, "webhook_host_not_allowed", "url",
           lambda: client.webhooks.create(name="x", url="http://169.254.169.254/", event_types=types))
    with http.server.ThreadingHTTPServer(("127.0.0.1", port), Hook) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/hook"
        webhook = client.webhooks.create(name="sdk", url=url, event_types=types)
        assert webhook.id in {found.id for found in client.webhooks.list(limit=1)}
        assert client.webhooks.retrieve(webhook.id).signing_secret_hint == webhook.signing_secret_hint
        tested = client.webhooks.test(webhook.id, event_type=types[0])
        assert (tested.success, tested.status_code, tested.event_type) == (True, 200, types[0]), tested
        told = lambda secret: client.webhooks.unwrap(*Hook.received.get(timeout=30), secret=secret)
        assert told(webhook.signing_secret).type == types[0]

        job = client.fine_tuning.jobs.create(model=model, training_file=good.id, method={"type": "dpo"})
        client.fine_tuning.jobs.cancel(job.id)
        event = told(webhook.signing_secret)
        assert (event.object, event.type, event.data.id) == ("event", types[2], job.id), event
        assert type(event).__name__ == "FineTuningJobCancelledWebhookEvent", type(event)

        # Both secrets sign for a day; what is signed by neither is refused.
        rotated = client.webhooks.rotate_secret(webhook.id, keep_old_secret_active_for_24_hours=True)
        for secret in (webhook.signing_secret, rotated.signing_secret):
            client.webhooks.test(webhook.id, event_type=types[1])
            assert told(secret).type == types[1]
        client.webhooks.test(webhook.id, event_type=types[1])
        try:
            told("whsec_" + "A" * 43 + "=")
            raise AssertionError("a signature of another secret was accepted")
        except openai.InvalidWebhookSignatureError:
            pass
        assert client.webhooks.update(webhook.id, name="renamed").name == "renamed"
        assert client.webhooks.delete(webhook.id).deleted
        server.shutdown()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="http://127.0.0.1:8111/v1")
    parser.add_argument("--model", default="smollm2-135m", help="the model to tune")
    parser.add_argument("--source", help="where to fetch it from if the server does not have it")
    parser.add_argument("--webhook-port", type=int, help="where to receive webhooks: 0 is a free port; not at all by default")
    args = parser.parse_args()
    client = openai.OpenAI(base_url=args.base_url, api_key="none")
    print(f"openai {openai.__version__} against {args.base_url}")
    good, bad = files(client)
    register(client, args.model, args.source)
    in_parts(client)
    jobs(client, args.model, good, bad)
    whole_job(client, args.model, good)
    if args.webhook_port is not None:
        webhooks(client, args.model, good, args.webhook_port)
    for file in (good, bad):
        assert client.files.delete(file.id).deleted
    print("all as expected")


if __name__ == "__main__":
    main()
