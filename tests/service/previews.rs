//! A pair as a model reads it.

use serde_json::{Value, json};

use crate::{
    server::{Server, text},
    tiny,
};

fn ids(tokens: &Value) -> Vec<u64> {
    tokens.as_array().expect("tokens").iter().map(|token| token["id"].as_u64().expect("an id")).collect()
}

fn texts(tokens: &Value) -> String {
    tokens.as_array().expect("tokens").iter().map(|token| text(&token["text"])).collect()
}

#[test]
fn a_pair_is_shown_in_a_models_tokens() {
    let server = Server::start();
    server.with_model_and_files(1, 10);
    let n_before = server.n_runs();
    assert_eq!(n_before, 1, "that of the registration");
    let pair = json!({"prompt": "hell", "chosen": "hello <|im_end|>", "rejected": "no", "chosen_spans": [[0, 5]], "rejected_spans": [[0, 2]]});
    let shown = server.post("/v1/models/tiny/preview", &json!({"pair": pair})).ok();
    assert_eq!(
        (&shown["object"], &shown["model"], &shown["has_chat_template"]),
        (&json!("model.preview"), &json!("tiny"), &json!(true))
    );
    assert_eq!(shown["rendered_prompt"], "<|im_start|>user\nhell<|im_end|>\n<|im_start|>assistant\n");
    assert_eq!(texts(&shown["prompt"]), text(&shown["rendered_prompt"]));
    assert_eq!(texts(&shown["chosen"]), "hello <|im_end|><|im_end|>");
    // What a person wrote is text, even where it looks like the token that ends the turn, which comes once.
    let chosen = ids(&shown["chosen"]);
    assert_eq!(chosen.iter().filter(|id| **id == 2).count(), 1);
    assert_eq!(chosen.last(), Some(&2));
    assert!(shown["prompt"].as_array().expect("tokens").iter().all(|token| token["is_scored"] == false));
    assert!(shown["chosen"].as_array().expect("tokens").iter().all(|token| token["is_scored"] == true));
    assert_eq!((&shown["chosen"][0]["piece"], &shown["chosen"][0]["is_in_span"]), (&json!("hello"), &json!(true)));
    assert_eq!(shown["chosen"][2]["is_in_span"], false);
    assert_eq!((&shown["n_tokens_removed"], &shown["too_long"]), (&json!(0), &Value::Null));

    let n_tokens = shown["n_tokens"].as_u64().expect("a count");
    let shorter = json!({"pair": pair, "max_length": n_tokens - 3});
    let cut = server.post("/v1/models/tiny/preview", &shorter).ok();
    assert_eq!(cut["n_tokens_removed"], 3);
    // The token that begins the sequence stays in its place.
    let (cut, whole) = (ids(&cut["prompt"]), ids(&shown["prompt"]));
    assert_eq!((cut[0], &cut[1..]), (whole[0], &whole[4..]));
    let refused =
        server.post("/v1/models/tiny/preview", &json!({"pair": pair, "max_length": 3, "truncation": "error"})).ok();
    assert!(text(&refused["too_long"]).contains("max_length 3"), "{refused}");
    // Nothing stays: neither the text nor the question.
    server.runs_become(n_before);
}

#[test]
fn a_pair_that_cannot_be_shown_is_refused_in_words() {
    let server = Server::start();
    server.with_model_and_files(1, 10);
    let preview = |body: &Value| server.post("/v1/models/tiny/preview", body);
    let pair = |pair: Value| preview(&json!({"pair": pair})).error(400, "invalid_pair")["error"].clone();
    assert!(text(&pair(json!({"prompt": "a", "chosen": "b"}))["message"]).contains("rejected"));
    assert_eq!(pair(json!({"prompt": "a", "chosen": "b", "rejected": "b"}))["param"], "pair");
    preview(&json!({"pair": {}})).error(400, "invalid_pair");
    preview(&json!({"pair": {"prompt": "a", "chosen": "b", "rejected": "c"}, "max_length": 1}))
        .error(400, "out_of_range");
    server
        .post("/v1/models/nobody/preview", &json!({"pair": {"prompt": "a", "chosen": "b", "rejected": "c"}}))
        .error(404, "model_not_found");

    // A template that raises at a question alone.
    let directory = server.path("raising");
    tiny::write_model(&directory, 1);
    let raising = "{% if messages|length == 1 %}{{ raise_exception('no single turns here') }}{% endif %}";
    std::fs::write(directory.join("chat_template.jinja"), raising).expect("written");
    let raising = server.register("raising", &directory);
    assert_eq!(raising["status"], "ready", "a template may take some conversations and refuse others: {raising}");
    let body = json!({"pair": {"prompt": "a", "chosen": "b", "rejected": "c"}});
    let error = server.post("/v1/models/raising/preview", &body).error(400, "invalid_pair");
    assert!(text(&error["error"]["message"]).contains("no single turns here"), "{error}");
}
