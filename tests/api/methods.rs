//! The methods of a job: what each takes, and what is answered where something is missing or wrong.

use serde_json::{Value, json};

use crate::support::{Server, pairs};

/// A server with a model, a file with every extra field, and one with none.
struct World {
    server: Server,
    full: Value,
    plain: Value,
}

impl World {
    fn new() -> Self {
        let server = Server::start();
        server.add_model("smol");
        server.add_model("other");
        let full: Vec<String> = pairs(4)
            .lines()
            .enumerate()
            .map(|(i, line)| {
                let mut row: Value = serde_json::from_str(line).expect("a row");
                row["margin_rewards_chosen"] = json!([1, 2]);
                row["margin_rewards_rejected"] = json!([0, 2]);
                row["aux_rewards_chosen"] = json!(0.5);
                row["aux_rewards_rejected"] = json!(0.25);
                row["dimension"] = json!(["tone", "truth"][i % 2]);
                row["reference_response"] = json!("well");
                row["chosen_spans"] = json!([[0, 1]]);
                row.to_string()
            })
            .collect();
        let full = server.checked_file(&full.join("\n"))["id"].clone();
        let plain = server.checked_file(&pairs(3))["id"].clone();
        Self { server, full, plain }
    }

    fn ask(&self, file: &Value, method: &Value, validation: Option<&Value>) -> crate::support::Answer {
        let mut body = json!({"model": "smol", "training_file": file, "method": method});
        if let Some(validation) = validation {
            body["validation_file"] = validation.clone();
        }
        self.server.post("/v1/fine_tuning/jobs", &body)
    }

    /// Pointer and code of every problem, and the first one's message.
    fn problems(&self, file: &Value, method: &Value) -> (Vec<String>, String) {
        let answer = self.ask(file, method, None).json();
        let errors = answer["errors"].as_array().unwrap_or_else(|| panic!("accepted: {answer}")).clone();
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        let found = errors.iter().map(|e| format!("{} {}", text(&e["pointer"]), text(&e["code"]))).collect();
        (found, text(&errors[0]["message"]))
    }
}

#[test]
fn every_method_shows_its_settings_as_they_are_used() {
    let world = World::new();
    let references = json!([{"model": "other"}]);
    for (method, expected) in [
        (json!({"type": "multi_dpo", "multi_dpo": {"references": references}}), json!({})),
        (
            json!({"type": "modpo", "modpo": {"margin_weights": [0.25, 0.25], "references": references}}),
            json!({"preference_weight": 0.5, "margin_weights": [0.25, 0.25]}),
        ),
        (
            json!({"type": "spo", "spo": {"dimension": "truth", "earlier": ["other"]}}),
            json!({"dimension": "truth", "earlier": ["other"], "lambdas": [1.0]}),
        ),
        (
            json!({"type": "hpo"}),
            json!({"gamma": 0.1, "temperature": 1.0, "advantage_clip": 3.0, "reward_weights": []}),
        ),
        (json!({"type": "selm", "selm": {"alpha": 0.01}}), json!({"alpha": 0.01})),
        (json!({"type": "token_level"}), json!({"outside_weight": 0.0})),
    ] {
        let job = world.ask(&world.full, &method, None).ok();
        let kind = method["type"].as_str().expect("type");
        let section = &job["method"][kind];
        assert_eq!(job["method"]["type"], kind);
        for (name, value) in expected.as_object().expect("an object") {
            assert_eq!(&section[name], value, "{kind}");
        }
        assert_eq!(section["hyperparameters"], job["hyperparameters"], "{kind}");
        assert_eq!(section["references"][0]["model"], "smol", "{kind}");
        let with_other = method[kind].get("references").is_some();
        assert_eq!(section["references"].as_array().map(Vec::len), Some(1 + usize::from(with_other)), "{kind}");
        let id = job["id"].as_str().expect("id");
        assert_eq!(world.server.get(&format!("/v1/fine_tuning/jobs/{id}")).ok(), job, "{kind}");
    }
}

#[test]
fn losses_and_weightings_are_settings_of_every_method() {
    let world = World::new();
    let settings = json!({"loss": ["sigmoid", "bco_pair"], "loss_weights": [0.8, 0.2], "weighting": "vaw", "mix": "geometric",
                          "clip": "none", "length_normalized": true, "sft_weight": 0.1});
    let method = json!({"type": "mrpo", "mrpo": {"references": [{"model": "other"}], "hyperparameters": settings}});
    let job = world.ask(&world.full, &method, Some(&world.full)).ok();
    for (name, value) in settings.as_object().expect("an object") {
        assert_eq!(&job["hyperparameters"][name], value);
    }
}

#[test]
fn what_a_method_lacks_is_answered_with_the_way_out() {
    let world = World::new();
    let no_field = |method: Value, words: &str| {
        let (found, message) = world.problems(&world.plain, &method);
        assert_eq!(found, ["/training_file missing_row_field"], "{method}");
        assert!(message.contains(words), "{message}");
    };
    no_field(json!({"type": "modpo", "modpo": {"margin_weights": [0.5]}}), "the fields `margin_rewards_chosen`");
    no_field(json!({"type": "spo", "spo": {"dimension": "tone"}}), "the field `dimension`");
    no_field(json!({"type": "hpo"}), "the fields `aux_rewards_chosen`");
    no_field(json!({"type": "selm"}), "the field `reference_response`");
    no_field(json!({"type": "token_level"}), "or `edited_response`");

    let wrong = |method: Value, expected: &[&str], words: &str| {
        let (found, message) = world.problems(&world.full, &method);
        assert_eq!(found, expected, "{method}");
        assert!(message.contains(words), "{message}");
    };
    wrong(
        json!({"type": "modpo", "modpo": {"margin_weights": [0.5]}}),
        &["/training_file inconsistent_length"],
        "1 weights for 2 margin_rewards",
    );
    wrong(
        json!({"type": "spo", "spo": {"dimension": "beauty"}}),
        &["/training_file unknown_dimension"],
        "there are 'tone', 'truth'",
    );
    wrong(
        json!({"type": "spo", "spo": {"dimension": "tone", "earlier": ["nobody"], "lambdas": [1, 1]}}),
        &["/method/spo/lambdas inconsistent_length", "/method/spo/earlier/0 model_not_found"],
        "2 lambdas for 1 earlier models",
    );
    wrong(json!({"type": "modpo"}), &["/method/modpo missing_field"], "method.modpo.margin_weights");
    wrong(json!({"type": "hpo", "hpo": {"temperature": 0}}), &["/method/hpo/temperature out_of_range"], "between");
    wrong(json!({"type": "selm", "dpo": {}}), &["/method/dpo conflicting_fields"], "under method.selm");
}

#[test]
fn combinations_that_make_no_sense_are_refused() {
    let world = World::new();
    let of = |settings: Value| {
        let method = json!({"type": "mrpo", "mrpo": {"references": [{"model": "other"}], "hyperparameters": settings}});
        world.problems(&world.plain, &method).0
    };
    let at = |field: &str, code: &str| vec![format!("/method/mrpo/hyperparameters/{field} {code}")];
    for weighting in ["vdw", "vaw", "thompson"] {
        assert_eq!(of(json!({"weighting": weighting})), ["/validation_file missing_field"], "{weighting}");
    }
    assert_eq!(of(json!({"weighting": "fixed"})), ["/method/mrpo/references missing_weights"]);
    assert_eq!(of(json!({"loss": "exo_pair"})), at("label_smoothing", "out_of_range"));
    assert_eq!(of(json!({"loss": []})), at("loss", "out_of_range"));
    assert_eq!(of(json!({"loss_weights": [1, 2]})), at("loss_weights", "inconsistent_length"));
    assert_eq!(of(json!({"discopop_tau": 2})), at("discopop_tau", "out_of_range"));
    let alone = json!({"type": "dpo", "dpo": {"hyperparameters": {"weight_convention": "authors_code"}}});
    let (found, message) = world.problems(&world.plain, &alone);
    assert_eq!(found, ["/method/dpo/hyperparameters/weight_convention conflicting_fields"]);
    assert!(message.contains("exactly two references"), "{message}");
}

#[test]
fn a_wrong_word_is_answered_with_the_right_ones() {
    let world = World::new();
    let method = json!({"type": "dpo", "dpo": {"hyperparameters": {"loss": "sigmod"}}});
    let body = world.ask(&world.plain, &method, None).error(400, "invalid_value");
    assert_eq!(body["errors"][0]["pointer"], "/method/dpo/hyperparameters/loss");
    let body = world.ask(&world.plain, &json!({"type": "ppo"}), None).error(400, "invalid_value");
    assert!(body["errors"][0]["message"].as_str().expect("text").contains("`token_level`"), "{body}");
}
