//! What OpenAI's API has and this server has not, and what to do instead: an SDK's method that finds nothing says why.

/// What stands at an address where there is nothing: the beginning of the address, and the way out.
const ELSEWHERE: [(&str, &str); 10] = [
    (
        "/v1/fine_tuning/checkpoints/",
        "there are no projects here, so that checkpoints have no permissions: share a model with the team by \
         POST /v1/models/{model}/sharing",
    ),
    (
        "/v1/fine_tuning/alpha/graders",
        "graders belong to reinforcement fine-tuning; this server learns from preference pairs: POST /v1/fine_tuning/jobs with the \
         method 'dpo' or 'mrpo'",
    ),
    ("/v1/chat/completions", GENERATES),
    ("/v1/completions", GENERATES),
    ("/v1/responses", GENERATES),
    ("/v1/embeddings", GENERATES),
    ("/v1/batches", GENERATES),
    (
        "/v1/evals",
        "a job measures its validation file before, during and after training: GET /v1/fine_tuning/jobs/{job_id}/metrics",
    ),
    ("/v1/webhooks", "webhooks are made at POST /v1/webhook_endpoints, as in OpenAI's API"),
    ("/v1/fine-tunes", "this is the API that came before fine-tuning jobs: POST /v1/fine_tuning/jobs"),
];
const GENERATES: &str = "this server trains models and does not generate: export one (POST /v1/models/{model}/exports) and serve it \
                         with vLLM or llama.cpp";

/// The way out, where an address is one of OpenAI's.
pub(super) fn way_out(path: &str) -> Option<&'static str> {
    ELSEWHERE.iter().find(|(start, _)| path.starts_with(start)).map(|(_, way_out)| *way_out)
}
