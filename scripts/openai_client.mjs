// Drives a running mrpo server with OpenAI's own Node client, unchanged, and fails where the two disagree.
//
//     npm install openai && node scripts/openai_client.mjs http://127.0.0.1:8111/v1 MODEL
//
// MODEL is one that the server has. What openai_client.py looks at in detail is passed through once here. The files are deleted.

import assert from "node:assert/strict";
import OpenAI, { toFile } from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "none" });
const { jobs } = client.fineTuning;

const pairs = (n) =>
    Array.from({ length: n }, (_, i) => JSON.stringify({
        input: { messages: [{ role: "user", content: `q ${i}` }] },
        preferred_output: [{ role: "assistant", content: `yes ${i}` }],
        non_preferred_output: [{ role: "assistant", content: "no" }],
    }) + "\n").join("");

async function all(page) {
    const found = [];
    for await (const item of page) found.push(item);
    return found;
}

async function until(what, probe) {
    const end = Date.now() + 600_000;
    while (Date.now() < end) {
        const found = await probe();
        if (found) return found;
        await new Promise((resolve) => setTimeout(resolve, 200));
    }
    assert.fail(`${what} took too long`);
}

async function refused(kind, code, call) {
    const error = await call().then(() => assert.fail(`no ${kind.name}`), (e) => e);
    assert.ok(error instanceof kind, `${error}`);
    assert.equal(error.code, code);
    assert.ok(error.requestID && error.message);
    console.log(`  ${kind.name.padEnd(16)} ${code}: ${error.message}`);
}

console.log(`openai for Node against ${baseURL}`);
const content = pairs(8);
const file = await client.files.create({ file: await toFile(Buffer.from(content), "pairs.jsonl"), purpose: "fine-tune" });
assert.equal((await client.files.waitForProcessing(file.id, { pollInterval: 100 })).status, "processed");
assert.equal(await (await client.files.content(file.id)).text(), content);
await refused(OpenAI.NotFoundError, "file_not_found", () => client.files.retrieve("file-" + "0".repeat(32)));

const upload = await client.uploads.create({ bytes: content.length, filename: "x.jsonl", mime_type: "text/jsonl", purpose: "fine-tune" });
const halves = [content.slice(0, 50), content.slice(50)];
const parts = await Promise.all(
    halves.map(async (half) => client.uploads.parts.create(upload.id, { data: await toFile(Buffer.from(half), "part") })));
const done = await client.uploads.complete(upload.id, { part_ids: parts.map((part) => part.id) });
assert.equal(done.status, "completed");
await client.files.waitForProcessing(done.file.id, { pollInterval: 100 });

const method = (epochs) => ({ type: "dpo", dpo: { hyperparameters: { beta: 0.1, n_epochs: epochs, batch_size: 1 } } });
const idempotencyKey = crypto.randomUUID();
const order = { model, training_file: file.id, validation_file: done.file.id, method: method(1), suffix: "node", metadata: { by: "node" } };
const job = await jobs.create(order, { headers: { "Idempotency-Key": idempotencyKey } });
assert.equal((await jobs.create(order, { headers: { "Idempotency-Key": idempotencyKey } })).id, job.id);
await refused(OpenAI.UnprocessableEntityError, "idempotency_key_reused",
    () => jobs.create({ ...order, seed: 5 }, { headers: { "Idempotency-Key": idempotencyKey } }));
assert.ok((await all(await jobs.list({ limit: 1 }))).some((found) => found.id === job.id));
await until("the job", async () => ["succeeded", "failed"].includes((await jobs.retrieve(job.id)).status));
const ended = await jobs.retrieve(job.id);
assert.equal(ended.status, "succeeded", JSON.stringify(ended.error));
assert.ok((await all(await jobs.listEvents(job.id, { limit: 1 }))).length > 3);
assert.ok((await all(await jobs.checkpoints.list(job.id, { limit: 1 }))).length > 0);
for (const id of ended.result_files) {
    assert.ok((await (await client.files.content(id)).text()).length > 100);
    await client.files.delete(id);
}
await refused(OpenAI.ConflictError, "illegal_transition", () => jobs.cancel(job.id));

const other = await jobs.create({ ...order, method: method(20) });
await jobs.pause(other.id);
await until("pausing", async () => (await jobs.retrieve(other.id)).status === "paused");
await jobs.resume(other.id);
await jobs.cancel(other.id);
await until("cancelling", async () => (await jobs.retrieve(other.id)).status === "cancelled");
for (const id of [file.id, done.file.id]) assert.ok((await client.files.delete(id)).deleted);
console.log("all as expected");
