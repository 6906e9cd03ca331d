#!/usr/bin/env python3
"""Drives a running mrpo server with OpenAI's own Python client, unchanged, and fails where the two disagree.

    python3 -m venv .venv && .venv/bin/pip install openai
    cargo run --release -- serve &
    .venv/bin/python scripts/openai_client.py --source hf:HuggingFaceTB/SmolLM2-135M-Instruct

It uploads a few pairs, waits for their check, creates a job, pauses, resumes, lists and cancels it, and makes each kind of
error once. It leaves the model behind; the job is cancelled and the files are deleted. The server may run without a worker.
"""

import argparse
import io
import json
import time

import openai


def pairs(n, rejected="No."):
    """Preference data in OpenAI's format."""
    lines = (
        {
            "input": {"messages": [{"role": "user", "content": f"Question {i}?"}]},
            "preferred_output": [{"role": "assistant", "content": f"Yes, {i}."}],
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
        print(f"  {type(e).__name__:<16} {e.code}: {e.message}")
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
    method = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.1, "n_epochs": 20, "batch_size": "auto"}}}
    raises(openai.BadRequestError, "file_in_error", "training_file",
           lambda: create(model=model, training_file=bad.id, method=method))
    raises(openai.BadRequestError, "model_not_found", "model",
           lambda: create(model="nobody", training_file=good.id, method=method))
    job = create(model=model, training_file=good.id, validation_file=good.id, method=method, suffix="sdk", seed=7,
                 metadata={"made_by": "openai_client.py"})
    assert job.object == "fine_tuning.job" and job.seed == 7 and job.error is None, job
    assert job.method.dpo.hyperparameters.beta == 0.1 and job.hyperparameters.n_epochs == 20, job
    assert job.id in {found.id for found in client.fine_tuning.jobs.list(limit=1)}
    listed = client.fine_tuning.jobs.list(extra_query={"metadata": {"made_by": "openai_client.py"}})
    assert job.id in {found.id for found in listed}

    retrieve = lambda: client.fine_tuning.jobs.retrieve(job.id)
    client.fine_tuning.jobs.pause(job.id)
    until("pausing", lambda: retrieve().status == "paused")
    resumed = client.fine_tuning.jobs.resume(job.id)
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--base-url", default="http://127.0.0.1:8111/v1")
    parser.add_argument("--model", default="smollm2-135m", help="the model to tune")
    parser.add_argument("--source", help="where to fetch it from if the server does not have it")
    args = parser.parse_args()
    client = openai.OpenAI(base_url=args.base_url, api_key="none")
    print(f"openai {openai.__version__} against {args.base_url}")
    good, bad = files(client)
    register(client, args.model, args.source)
    jobs(client, args.model, good, bad)
    for file in (good, bad):
        assert client.files.delete(file.id).deleted
    print("all as expected")


if __name__ == "__main__":
    main()
