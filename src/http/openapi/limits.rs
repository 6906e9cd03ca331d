//! Every limit of the API, from the constants that are checked.

use serde_json::{Map, Value, json};

use crate::{
    dataset::MAX_ROW_BYTES,
    domain::{
        DryRunSpec, ExtraField, JobRequest, Losses, MAX_REFERENCES, Problems, Retention, SpoSettings, UploadRecord,
        Webhook,
    },
    http::{
        access::MAX_KEY_BYTES, event_stream, extract, file_request, files::MAX_FILES, form, form_body,
        metrics::MAX_STEPS, name, objective_numbers, observe::MAX_REQUEST_ID_BYTES, paging::MAX_PAGE, previews, queue,
        replay, serve, stream_tokens,
    },
    store::KeptReply,
};

/// A limit: its name, the number, its unit, and what it is a limit of.
type Row = (&'static str, u64, &'static str, &'static str);

/// `x-limits`.
pub(super) fn all() -> Value {
    let rows = [of_requests().as_slice(), &of_files(), &of_jobs(), &of_answers()].concat();
    let row =
        |(name, value, unit, what): Row| (name.to_owned(), json!({"value": value, "unit": unit, "description": what}));
    rows.into_iter().map(row).collect::<Map<_, _>>().into()
}

fn of_requests() -> [Row; 8] {
    [
        ("json_body", extract::MAX_JSON_BYTES as u64, "bytes", "a JSON body"),
        ("json_body_time", extract::MAX_JSON_TIME.as_secs(), "seconds", "the time a JSON body takes to arrive"),
        (
            "request_head_time",
            serve::MAX_HEAD_TIME.as_secs(),
            "seconds",
            "the time a request's head takes, and an idle connection",
        ),
        ("connections", serve::MAX_CONNECTIONS as u64, "connections", "open at once"),
        ("key", MAX_KEY_BYTES as u64, "bytes", "a key in `Authorization`"),
        ("idempotency_key", replay::MAX_KEY_CHARS as u64, "characters", "an `Idempotency-Key`"),
        ("idempotency_kept", KeptReply::KEPT_FOR_S as u64, "seconds", "the time an answer is kept for the same key"),
        ("request_id", MAX_REQUEST_ID_BYTES as u64, "characters", "a client's own `x-request-id`"),
    ]
}

fn of_files() -> [Row; 13] {
    let kept = file_request::KEPT_FOR_S;
    [
        ("file_name", form::MAX_NAME_CHARS as u64, "characters", "a file's name; the rest is cut off"),
        ("form_text", form::MAX_TEXT_BYTES as u64, "bytes", "a part of a form that is no file"),
        ("form_pause", form_body::MAX_IDLE.as_secs(), "seconds", "a pause in a form"),
        ("form_pace", form_body::MIN_BYTES_PER_SECOND, "bytes a second", "the mean pace of a form, at the least"),
        ("row", MAX_ROW_BYTES as u64, "bytes", "a line of a file, with one pair"),
        ("row_rewards", ExtraField::MAX_REWARDS as u64, "numbers", "rewards of one completion"),
        ("file_kept_min", *kept.start(), "seconds", "`expires_after` at the least"),
        ("file_kept_max", *kept.end(), "seconds", "`expires_after` at the most"),
        ("upload_part", UploadRecord::MAX_PART_BYTES, "bytes", "a part of an upload"),
        ("upload_parts", UploadRecord::MAX_PARTS, "parts", "parts of an upload"),
        ("upload_time", UploadRecord::MAX_SECONDS as u64, "seconds", "an upload, from its beginning to its completion"),
        ("uploads", UploadRecord::MAX_PENDING, "uploads", "of one person under way"),
        ("preview_pair", previews::MAX_PAIR_BYTES as u64, "bytes", "a pair that is shown in a model's tokens"),
    ]
}

fn of_jobs() -> [Row; 12] {
    [
        ("suffix", JobRequest::MAX_SUFFIX_CHARS as u64, "characters", "a job's `suffix`"),
        ("metadata", JobRequest::MAX_METADATA as u64, "entries", "a job's `metadata`"),
        ("metadata_key", JobRequest::MAX_METADATA_KEY_CHARS as u64, "characters", "a key of `metadata`"),
        ("metadata_value", JobRequest::MAX_METADATA_VALUE_CHARS as u64, "characters", "a value of `metadata`"),
        ("retention_count", Retention::MAX_COUNT.into(), "checkpoints", "that a job's `retention` keeps"),
        ("retention_days", Retention::MAX_DAYS.into(), "days", "a job's `keep_days`"),
        ("webhooks", Webhook::MAX_PER_OWNER, "webhooks", "of one person"),
        ("references", MAX_REFERENCES as u64, "models", "references of a job or a list"),
        ("reference_list_name", name::MAX_CHARS as u64, "characters", "a list's name"),
        ("losses", Losses::MAX as u64, "losses", "losses that are added up"),
        ("earlier_rounds", SpoSettings::MAX_EARLIER as u64, "models", "earlier rounds of `spo`"),
        ("objective_pairs", objective_numbers::MAX_PAIRS as u64, "pairs", "pairs of `POST /v1/objectives/evaluate`"),
    ]
}

fn of_answers() -> [Row; 10] {
    [
        ("page", MAX_PAGE as u64, "items", "a page of a list"),
        ("page_of_files", MAX_FILES as u64, "files", "a page of files"),
        ("page_of_metrics", MAX_STEPS as u64, "steps", "a page of metrics"),
        ("queue_shown", queue::N_SHOWN as u64, "jobs", "waiting jobs that `GET /v1/queue` shows"),
        ("problems", Problems::MAX_KEPT as u64, "problems", "problems that are listed of a body or a file"),
        ("preview_time", previews::PATIENCE.as_secs(), "seconds", "the wait for a preview"),
        ("dry_run_time", DryRunSpec::PATIENCE.as_secs(), "seconds", "the wait for a dry run"),
        (
            "stream_silence",
            event_stream::HEARTBEAT_EVERY.as_secs(),
            "seconds",
            "the silence of a stream; then it sends a comment",
        ),
        ("stream_tokens", stream_tokens::MAX_OF_KEY as u64, "tokens", "of one key at once"),
        ("stream_token_life", stream_tokens::LIFE_SECONDS as u64, "seconds", "the time in which a token opens streams"),
    ]
}
