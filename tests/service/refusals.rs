//! What the service says to what it cannot use.

use serde_json::{Value, json};

use crate::{
    server::{Server, text},
    tiny,
};

#[test]
fn a_model_that_cannot_be_read_says_why() {
    let server = Server::start();
    let bloom = server.path("bloom");
    std::fs::create_dir(&bloom).expect("made");
    std::fs::write(bloom.join("config.json"), r#"{"architectures":["BloomForCausalLM"]}"#).expect("written");
    let half = tiny::gguf(&server.path(""), &[]).weights;
    let length = std::fs::metadata(&half).expect("there").len();
    std::fs::OpenOptions::new().write(true).open(&half).and_then(|f| f.set_len(length / 2)).expect("cut");
    let [silent, small, raising] = ["silent", "small", "raising"].map(|name| server.path(name));
    tiny::write_model(&raising, 1);
    let template = "{{ raise_exception('no turns here') }}";
    std::fs::write(raising.join("chat_template.jinja"), template).expect("written");
    tiny::write_model(&silent, 1);
    std::fs::remove_file(silent.join("tokenizer.json")).expect("removed");
    tiny::write_model(&small, 1);
    tiny::write_weights(&small, 100, 1);
    for (path, code, word) in [
        (bloom, "unsupported_model", "BloomForCausalLM"),
        (half, "invalid_model", "not a whole GGUF file"),
        (server.path("nowhere"), "source_unavailable", "does not exist"),
        (silent, "unsupported_model", "no tokenizer.json"),
        (small, "invalid_model", "the embedding has 100 rows"),
        (raising, "invalid_model", "no turns here"),
    ] {
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name").to_owned();
        let model = server.register(&name, &path);
        assert_eq!((&model["status"], &model["error"]["code"]), (&json!("error"), &json!(code)), "{model}");
        assert!(text(&model["error"]["message"]).contains(word), "{model}");
    }
}

#[test]
fn a_broken_line_is_named_by_its_number() {
    let server = Server::start();
    let mut lines: Vec<String> = tiny::pairs(40, 0, 20).lines().map(str::to_owned).collect();
    lines[36] = r#"{"prompt": "p", "chosen": "#.into();
    let file = server.upload(&lines.join("\n"));
    assert_eq!(file["status"], "error");
    assert!(text(&file["status_details"]).contains("line 37"), "{file}");
}

#[test]
fn a_job_that_cannot_be_says_everything_that_is_wrong() {
    let server = Server::start();
    let [training, _] = server.with_model_and_files(4, 20);
    let body = |references: Value, hyperparameters: Value| {
        json!({"model": "tiny", "training_file": training,
            "method": {"type": "mrpo", "mrpo": {"references": references, "hyperparameters": hyperparameters}}})
    };
    let refused = server.post("/v1/fine_tuning/jobs", &body(json!([{"model": "tiny"}, {"model": "ghost"}]), json!({})));
    assert_eq!((refused.status, text(&refused.json()["error"]["code"])), (400, "model_not_found"));
    let weights = json!([{"model": "tiny", "weight": 0.5}, {"model": "ghost", "weight": 0.4}]);
    let refused = server.post("/v1/fine_tuning/jobs", &body(weights, json!({"weighting": "fixed", "beta": -1})));
    assert_eq!(refused.status, 400);
    assert!(refused.json()["n_problems"].as_u64() >= Some(2), "{}", refused.json());
}
