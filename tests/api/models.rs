//! `/v1/models`.

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
