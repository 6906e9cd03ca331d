//! `/v1/models`.

use mrpo::domain::AllowedHosts;
use serde_json::json;

use crate::support::{Server, ids};

#[test]
fn a_model_is_registered_listed_shown_and_deleted() {
    let server = Server::start();
    let body = json!({"id": "smol", "source": "hf:HuggingFaceTB/SmolLM2-135M-Instruct"});
    let model = server.post("/v1/models", &body).ok();
    assert_eq!(
        (&model["object"], &model["status"], &model["owned_by"]),
        (&json!("model"), &json!("pending"), &json!("user"))
    );
    assert_eq!((&model["source"], &model["architecture"]), (&body["source"], &json!(null)));
    server.post("/v1/models", &body).error(409, "already_exists");

    server.make_ready("smol");
    let model = server.get("/v1/models/smol").ok();
    assert_eq!((&model["status"], &model["architecture"]), (&json!("ready"), &json!("LlamaForCausalLM")));
    assert_eq!((&model["has_chat_template"], &model["n_parameters"]), (&json!(true), &json!(134_515_008)));
    assert_eq!(ids(&server.get("/v1/models").ok()), ["smol"]);

    assert_eq!(server.delete("/v1/models/smol").ok(), json!({"id": "smol", "object": "model", "deleted": true}));
    server.get("/v1/models/smol").error(404, "model_not_found");
    server.delete("/v1/models/smol").error(404, "model_not_found");
}

#[test]
fn a_registration_that_failed_says_why() {
    let server = Server::start();
    server.add_model("mamba");
    server.make_broken("mamba");
    let model = server.get("/v1/models/mamba").ok();
    assert_eq!((&model["status"], &model["error"]["code"]), (&json!("error"), &json!("unsupported_model")));
}

#[test]
fn a_registration_that_is_not_right_is_refused() {
    let server = Server::start();
    let post = |id: &str, source: &str| server.post("/v1/models", &json!({"id": id, "source": source}));
    let body = post("smol", "s3:bucket/x").error(400, "invalid_value");
    assert_eq!(body["error"]["param"], "source");
    assert!(body["detail"].as_str().expect("text").contains("hf:ORG/NAME"));
    post("a/b", "hf:a/b").error(400, "invalid_value");
    post("smol", "pypi:p==1#../../etc/passwd").error(400, "invalid_value");
    post("smol", "path:models/smol").error(400, "relative_path");
    post("ft:smol:x:1", "hf:a/b").error(400, "reserved_name");
    assert_eq!(ids(&server.get("/v1/models").ok()).len(), 0);
    let strict = Server::with(|settings| settings.allow_path_models = false);
    strict.post("/v1/models", &json!({"id": "smol", "source": "path:/etc"})).error(403, "path_models_disabled");
}

#[test]
fn a_foreign_name_is_not_found_with_its_slash_in_either_writing() {
    let server = Server::start();
    for name in ["ft:qwen%2FQwen2.5-0.5B:team:sfx:abc", "ft:qwen/Qwen2.5-0.5B:team:sfx:abc", "..%2F..%2Fetc"] {
        server.get(&format!("/v1/models/{name}")).error(404, "model_not_found");
        server.delete(&format!("/v1/models/{name}")).error(404, "model_not_found");
    }
}

#[test]
fn a_model_in_use_stays() {
    let server = Server::start();
    let job = server.add_job();
    server.delete("/v1/models/smol").error(409, "in_use");
    server.post_empty(&format!("/v1/fine_tuning/jobs/{job}/cancel")).ok();
    server.delete("/v1/models/smol").ok();
}

#[test]
fn models_can_be_paged_through() {
    let server = Server::start();
    for id in ["a", "b", "c"] {
        server.add_model(id);
    }
    let first = server.get("/v1/models?limit=2").ok();
    assert_eq!((ids(&first), &first["has_more"]), (vec!["c".to_owned(), "b".to_owned()], &json!(true)));
    assert_eq!(ids(&server.get("/v1/models?limit=2&after=b").ok()), ["a"]);
    assert_eq!(ids(&server.get("/v1/models?after=a").ok()).len(), 0);
    server.get("/v1/models?after=nobody").error(400, "unknown_cursor");
}

#[test]
fn a_remote_model_is_called_only_where_the_operator_allows_it() {
    let remote = |url: &str| json!({"id": "judge", "source": format!("remote:{url}#judge")});
    let closed = Server::start();
    let body = closed.post("/v1/models", &remote("http://127.0.0.1:8000/v1")).error(403, "remote_models_disabled");
    assert!(body["detail"].as_str().expect("text").contains("--allow-remote 127.0.0.1:8000"), "{body}");
    closed.post("/v1/models", &remote("http://user:pw@host/v1")).error(400, "invalid_value");

    let server = Server::with(|settings| settings.remotes = AllowedHosts::new(["127.0.0.1:8000".into()]));
    server.post("/v1/models", &remote("http://127.0.0.1:8001/v1")).error(403, "remote_models_disabled");
    server.post("/v1/models", &remote("http://169.254.169.254/v1")).error(403, "remote_models_disabled");
    let model = server.post("/v1/models", &remote("http://127.0.0.1:8000/v1/")).ok();
    assert_eq!(
        (&model["status"], &model["source"]),
        (&json!("pending"), &json!("remote:http://127.0.0.1:8000/v1#judge"))
    );
    let file = server.checked_file(&crate::support::pairs(2));
    let job = json!({"model": "judge", "training_file": file["id"], "method": {"type": "dpo"}});
    server.post("/v1/fine_tuning/jobs", &job).error(400, "reference_only");
}

#[test]
fn the_tokenizer_of_a_remote_model_is_a_model_that_is_ready() {
    let server = Server::with(|settings| settings.remotes = AllowedHosts::new(["a".into()]));
    let post = |source: &str, tokenizer: &str| {
        server.post("/v1/models", &json!({"id": "judge", "source": source, "tokenizer": tokenizer}))
    };
    let remote = "remote:https://a/v1#org/judge";
    assert_eq!(post(remote, "smol").error(400, "model_not_found")["error"]["param"], "tokenizer");
    server.add_model("smol");
    post(remote, "smol").error(400, "model_not_ready");
    server.make_ready("smol");
    post("hf:org/judge", "smol").error(400, "conflicting_fields");
    let model = post(remote, "smol").ok();
    assert_eq!(model["source"], "remote:https://a/v1#org/judge&tokenizer=smol");
    let body = server.post("/v1/models", &json!({"id": "other", "source": remote, "tokenizer": "judge"}));
    body.error(400, "reference_only");
}
