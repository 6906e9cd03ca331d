//! Objectives on numbers: worked examples, every method and loss once, and what is answered where something is wrong.

use mrpo::{
    domain::{ObjectiveSpec, Sides},
    objective::{PairInput, Scored, evaluate},
};
use serde_json::{Value, json};

use crate::support::{Answer, Server};

fn post(server: &Server, body: &Value) -> Answer {
    server.post("/v1/objectives/evaluate", body)
}

/// The pair of the worked examples, against these references.
fn pair(chosen: &[f64], rejected: &[f64]) -> Value {
    json!({"policy": {"chosen": -40, "rejected": -45}, "references": {"chosen": chosen, "rejected": rejected}})
}

fn two() -> Value {
    pair(&[-42.0, -44.0], &[-50.0, -41.0])
}

#[track_caller]
fn close(got: &Value, expected: f64) {
    let got = got.as_f64().expect("a number");
    assert!((got - expected).abs() < 6e-7, "{got}, not {expected}");
}

/// Pointer and code of every problem of a refused body.
#[track_caller]
fn problems(server: &Server, body: &Value) -> Vec<String> {
    let answer = post(server, body);
    let code = answer.json()["error"]["code"].as_str().expect("a code").to_owned();
    let body = answer.error(400, &code);
    let text = |problem: &Value, field: &str| problem[field].as_str().expect("text").to_owned();
    let errors = body["errors"].as_array().expect("errors").iter();
    errors.map(|p| format!("{} {}", text(p, "pointer"), text(p, "code"))).collect()
}

#[test]
fn two_references_step_by_step() {
    let server = Server::start();
    let answer = post(&server, &json!({"pairs": [two()]})).ok();
    assert_eq!(answer["object"], "objective.evaluation");
    close(&answer["loss"], 0.781_808);
    let pair = &answer["pairs"][0];
    for (field, expected) in [
        ("/loss", 0.781_808),
        ("/grad_chosen", -0.054_242),
        ("/grad_rejected", 0.054_242),
        ("/reward_chosen", 0.300_886),
        ("/reward_rejected", 0.470_983),
        ("/weights/0", 8.0 / 11.0),
        ("/weights/1", 3.0 / 11.0),
        ("/epsilon_chosen", 0.048_588),
        ("/epsilon_rejected", 0.051_412),
        ("/references/chosen/1", -44.0),
        ("/references/rejected/0", -50.0),
        ("/references/rejected/1", -47.429_379),
        ("/virtual_reference/chosen", -43.008_859),
        ("/virtual_reference/rejected", -49.709_826),
    ] {
        close(pair.pointer(field).expect(field), expected);
    }
    assert_eq!(pair["clipped"], json!({"chosen": [false, false], "rejected": [false, true]}));
    assert_eq!(pair.get("grad_optimism"), None);
    let metrics = &answer["metrics"];
    close(&metrics["rewards/margins"], -0.170_097);
    close(&metrics["refs/reference-1/weight_mean"], 3.0 / 11.0);
    close(&metrics["refs/reference-1/clip_fraction"], 0.5);
    assert_eq!(metrics["loss"], answer["loss"]);
}

#[test]
fn worked_examples() {
    let server = Server::start();
    let three = pair(&[-42.0, -44.0, -41.0], &[-50.0, -41.0, -42.5]);
    let low = pair(&[-42.0, -60.0], &[-50.0, -52.0]);
    let mut long = pair(&[-300.0, -340.0], &[-320.0, -300.0]);
    long["policy"] = json!({"chosen": -290, "rejected": -310});
    for (method, objective, pair, loss, grad) in [
        ("mrpo", json!({"weight_convention": "authors_code"}), &two(), 0.700_942, 0.050_388),
        ("mrpo", json!({"clip": "none"}), &two(), 0.780_277, 0.054_172),
        ("mrpo", json!({"weighting": "uniform"}), &two(), 0.741_606, 0.052_365),
        ("mrpo", json!({"mix": "geometric"}), &two(), 0.784_659, 0.054_372),
        ("multi_dpo", json!({}), &two(), 0.789_812, 0.054_345),
        ("dpo", json!({}), &pair(&[-42.0], &[-50.0]), 0.854_355, 0.057_444),
        ("mrpo", json!({}), &three, 0.781_594, 0.054_232),
        ("mrpo", json!({"clip": "none"}), &three, 0.779_301, 0.054_127),
        ("mrpo", json!({"weighting": "uniform"}), &three, 0.743_011, 0.052_432),
        ("mrpo", json!({"mix": "geometric"}), &three, 0.782_707, 0.054_283),
        ("multi_dpo", json!({}), &three, 0.787_239, 0.054_259),
        ("mrpo", json!({}), &low, 0.849_276, 0.057_228),
        ("mrpo", json!({"weight_convention": "authors_code"}), &low, 0.849_276, 0.057_228),
        ("mrpo", json!({}), &long, 0.185_059, 0.016_894),
        ("mrpo", json!({"mix": "geometric"}), &long, 0.119_330, 0.011_248),
    ] {
        let answer = post(&server, &json!({"method": method, "objective": objective, "pairs": [pair]})).ok();
        close(&answer["loss"], loss);
        close(&answer["pairs"][0]["grad_chosen"], -grad);
        close(&answer["pairs"][0]["grad_rejected"], grad);
    }
}

#[test]
fn losses_of_a_list_are_those_that_train() {
    let server = Server::start();
    let policies = [(-40.0, -45.0), (-30.0, -22.0), (-51.5, -50.0)];
    let references =
        [[(-42.0, -50.0), (-44.0, -41.0)], [(-31.0, -25.0), (-28.0, -26.0)], [(-50.0, -49.0), (-47.0, -52.0)]];
    let losses = json!(["ipo", "sigmoid_norm", "aot", "nca_pair", "discopop", "minor"]);
    let objective = json!({"loss": losses, "loss_weights": [0.5, 2, 1, 1, 0.25, 3], "beta": 0.3, "label_smoothing": 0.1,
        "sft_weight": 0.7});
    let bodies: Vec<Value> = policies
        .iter()
        .zip(&references)
        .map(|((chosen, rejected), [first, second])| {
            json!({"policy": {"chosen": chosen, "rejected": rejected}, "tokens": {"chosen": 12, "rejected": 15},
                "references": {"chosen": [first.0, second.0], "rejected": [first.1, second.1]}})
        })
        .collect();
    let answer = post(&server, &json!({"objective": objective, "pairs": bodies})).ok();
    let scored = |(chosen, rejected): (f64, f64)| Scored {
        logps: Sides { chosen, rejected },
        n_tokens: Sides { chosen: 12.0, rejected: 15.0 },
    };
    let references = references.map(|r| r.map(scored));
    let inputs: Vec<PairInput<'_>> = policies
        .iter()
        .zip(&references)
        .map(|(policy, references)| PairInput {
            policy: scored(*policy),
            references,
            other_rewards: Sides::default(),
            likelihood: Sides::default(),
            optimism: None,
        })
        .collect();
    let spec: ObjectiveSpec = serde_json::from_value(objective).expect("a spec");
    let expected = evaluate(&spec, &inputs, &[]).expect("finite");
    for (pair, expected) in answer["pairs"].as_array().expect("pairs").iter().zip(&expected) {
        let numbers = [&pair["loss"], &pair["grad_chosen"], &pair["grad_rejected"]];
        assert_eq!(numbers.map(Value::as_f64), [expected.loss, expected.grad.chosen, expected.grad.rejected].map(Some));
    }
    let mean = expected.iter().map(|o| o.loss).sum::<f64>() / 3.0;
    assert_eq!(answer["loss"], mean);
}

#[test]
fn weights_that_a_set_gives() {
    let server = Server::start();
    let weights = |weighting: &str, rest: Value| {
        let mut body = json!({"objective": {"weighting": weighting}, "pairs": [two()]});
        body.as_object_mut().expect("object").extend(rest.as_object().expect("object").clone());
        post(&server, &body).ok()["pairs"][0]["weights"].clone()
    };
    let set = json!({"weighting_pairs": [{"chosen": [-2, -8], "rejected": [-4, -2]}, {"chosen": [-2, -1], "rejected": [-4, -1]}]});
    assert_eq!(weights("fixed", json!({"weights": [0.25, 0.75]})), json!([0.25, 0.75]));
    assert_eq!(weights("vdw", set.clone()), json!([0.4, 0.6]));
    assert_eq!(weights("vaw", set.clone()), json!([1.0, 0.0]));
    assert_eq!(weights("swcw", set.clone()), json!([0.4, 0.6]));
    assert_eq!(weights("swcw_one_hot", set), json!([0.0, 1.0]));
    assert_eq!(weights("swcw", json!({})), json!([0.5, 0.5]));
    assert_eq!(weights("swcw_one_hot", json!({})), json!([1.0, 0.0]));
    // Per token the first reference sees no difference: −2/2 is −4/4.
    let per_token = json!({"objective": {"weighting": "vdw", "length_normalized": true}, "pairs": [{
        "policy": {"chosen": -40, "rejected": -45}, "references": {"chosen": [-42, -44], "rejected": [-50, -41]},
        "tokens": {"chosen": 10, "rejected": 20}, "reference_tokens": {"chosen": [10, 11], "rejected": [20, 5]}}],
        "weighting_pairs": [{"chosen": [-2, -8], "rejected": [-4, -2],
            "tokens": {"chosen": [2, 2], "rejected": [4, 4]}}]});
    let answer = post(&server, &per_token).ok();
    assert_eq!(answer["pairs"][0]["weights"], json!([0.0, 1.0]));
    assert_eq!(answer["pairs"][0]["references"]["rejected"][0], -2.5);
    // One reference has all the weight without a word.
    let one = json!({"method": "dpo", "objective": {"weighting": "fixed"}, "pairs": [pair(&[-42.0], &[-50.0])]});
    assert_eq!(post(&server, &one).ok()["pairs"][0]["weights"], json!([1.0]));
}

/// −log σ(z).
fn sigmoid_loss(z: f64) -> f64 {
    (-z).exp().ln_1p()
}

#[test]
fn methods_with_extra_numbers() {
    let server = Server::start();
    let with = |fields: Value| {
        let mut pair = pair(&[-42.0], &[-50.0]);
        pair.as_object_mut().expect("object").extend(fields.as_object().expect("object").clone());
        pair
    };
    // z = (0.1·(2 − 5) − 0.25·(1 − 3))/0.75.
    let modpo = json!({"method": "modpo", "margin_weights": [0.25],
        "pairs": [with(json!({"margin_rewards_chosen": [1], "margin_rewards_rejected": [3]}))]});
    close(&post(&server, &modpo).ok()["loss"], sigmoid_loss(0.2 / 0.75));
    // The first round is DPO; the second keeps to λ·β·(what the first has gained).
    let first = json!({"method": "spo", "pairs": [with(json!({}))]});
    close(&post(&server, &first).ok()["loss"], 0.854_355);
    let second = json!({"method": "spo", "lambdas": [0.5],
        "pairs": [with(json!({"earlier": {"chosen": [-43], "rejected": [-49]}}))]});
    close(&post(&server, &second).ok()["loss"], sigmoid_loss(-0.3 - 0.5 * 0.1 * (1.0 - -1.0)));

    let hpo = |baseline: Value| {
        let mut pair = with(json!({"aux_rewards_chosen": [3, 1], "aux_rewards_rejected": [0, 0],
            "tokens": {"chosen": 8, "rejected": 9}}));
        pair["baseline"] = baseline;
        json!({"method": "hpo", "gamma": 0.2, "temperature": 2, "pairs": [pair]})
    };
    let likelihood = |baseline: f64| {
        let weight = |reward: f64| 0.2 * ((reward - baseline) / 2.0).exp();
        weight(2.0) * 40.0 / 8.0 + weight(0.0) * 45.0 / 9.0
    };
    close(&post(&server, &hpo(Value::Null)).ok()["loss"], 0.854_355_244 + likelihood(1.0));
    close(&post(&server, &hpo(json!(0))).ok()["loss"], 0.854_355_244 + likelihood(0.0));

    let selm = json!({"method": "selm", "objective": {"optimism": 0.5},
        "pairs": [with(json!({"optimism": {"policy": -30, "reference": -28}}))]});
    let answer = post(&server, &selm).ok();
    close(&answer["loss"], 0.854_355 + 0.5 * 0.1 * -2.0);
    close(&answer["pairs"][0]["grad_optimism"], 0.05);
}

#[test]
fn everything_wrong_with_settings_is_named() {
    let server = Server::start();
    let ask = |fields: Value| {
        let mut body = json!({"pairs": [two()]});
        body.as_object_mut().expect("object").extend(fields.as_object().expect("object").clone());
        problems(&server, &body)
    };
    let objective = |objective: Value| ask(json!({"objective": objective}));
    assert_eq!(
        objective(json!({"beta": 0, "epsilon": 1, "loss": "exo_pair"})),
        ["/objective/beta out_of_range", "/objective/epsilon out_of_range", "/objective/label_smoothing out_of_range"]
    );
    assert_eq!(objective(json!({"betta": 1})), ["/objective/betta unknown_field"]);
    assert_eq!(objective(json!({"mix": "median"})), ["/objective/mix invalid_value"]);
    assert_eq!(objective(json!({"weighting": "thompson"})), ["/objective/weighting unsupported_value"]);
    assert_eq!(objective(json!({"weighting": "fixed"})), ["/weights missing_field"]);
    assert_eq!(objective(json!({"weighting": "vdw"})), ["/weighting_pairs missing_field"]);
    assert_eq!(objective(json!({"weighting": "evidence"})), ["/weighting_pairs missing_field"]);
    let fixed = |weights: Value| ask(json!({"objective": {"weighting": "fixed"}, "weights": weights}));
    assert_eq!(fixed(json!([1])), ["/weights inconsistent_length"]);
    assert_eq!(fixed(json!([0.5, 0.6])), ["/weights weights_do_not_sum_to_one"]);
    let set = json!([{"chosen": [-1, -2], "rejected": [-3]}, {"chosen": [-1e13, -2], "rejected": [-3, -4]}]);
    assert_eq!(
        ask(json!({"objective": {"weighting": "vaw"}, "weighting_pairs": set})),
        ["/weighting_pairs/0/rejected inconsistent_length", "/weighting_pairs/1/chosen/0 out_of_range"]
    );
    assert_eq!(
        ask(json!({"weighting_pairs": [], "weights": [1, 0]})),
        ["/weights conflicting_fields", "/weighting_pairs conflicting_fields"]
    );
    let three = json!({"objective": {"weight_convention": "authors_code"},
        "pairs": [pair(&[-1.0, -2.0, -3.0], &[-1.0, -2.0, -3.0])]});
    assert_eq!(problems(&server, &three), ["/objective/weight_convention conflicting_fields"]);
    let others = json!({"margin_weights": [1], "lambdas": [1], "gamma": 1, "temperature": 1, "advantage_clip": 1,
        "reward_weights": [1], "objective": {"preference_weight": 1, "optimism": 1}});
    let unread = ask(others);
    assert_eq!(unread.len(), 8, "{unread:?}");
    assert!(unread.iter().all(|p| p.ends_with(" conflicting_fields")), "{unread:?}");
    assert_eq!(ask(json!({"method": "token_level"})), ["/method unsupported_value"]);
    assert_eq!(ask(json!({"method": "ppo"})), ["/method invalid_value"]);
    assert_eq!(ask(json!({"colour": 1})), ["/colour unknown_field"]);
    assert_eq!(ask(json!({"method": "dpo"})), ["/pairs/0/references conflicting_fields"]);
    let selm = ask(json!({"method": "selm", "objective": {"optimism": 2}}));
    assert_eq!(selm, ["/objective/optimism out_of_range", "/pairs/0/optimism missing_field"]);
    let spo = ask(json!({"method": "spo", "lambdas": [1]}));
    assert_eq!(spo, ["/lambdas inconsistent_length"]);
    let hpo = ask(json!({"method": "hpo", "advantage_clip": -1}));
    assert_eq!(
        hpo,
        [
            "/advantage_clip out_of_range",
            "/pairs/0/tokens missing_field",
            "/pairs/0/aux_rewards_chosen missing_field",
            "/pairs/0/aux_rewards_rejected missing_field"
        ]
    );
    assert_eq!(ask(json!({"method": "modpo", "margin_weights": [2]}))[0], "/objective/preference_weight out_of_range");
    assert_eq!(ask(json!({"method": "modpo"}))[0], "/margin_weights missing_field");
}

#[test]
fn everything_wrong_with_pairs_is_named() {
    let server = Server::start();
    let of = |pairs: Value| problems(&server, &json!({"pairs": pairs}));
    assert_eq!(of(json!([])), ["/pairs out_of_range"]);
    let many =
        vec![json!({"policy": {"chosen": 0, "rejected": 0}, "references": {"chosen": [0], "rejected": [0]}}); 10_001];
    assert_eq!(of(json!(many)), ["/pairs out_of_range"]);
    assert_eq!(of(json!([pair(&[], &[])])), ["/pairs/0/references/chosen out_of_range"]);
    let row = vec![-1.0; 65];
    assert_eq!(of(json!([pair(&row, &row)])), ["/pairs/0/references/chosen out_of_range"]);
    assert_eq!(
        of(json!([two(), pair(&[-1.0], &[-1.0, -2.0, -3.0])])),
        ["/pairs/1/references/chosen inconsistent_length", "/pairs/1/references/rejected inconsistent_length"]
    );
    let mut wrong = two();
    wrong["policy"]["rejected"] = json!(1e300);
    wrong["references"]["chosen"][1] = json!(-1e13);
    wrong["tokens"] = json!({"chosen": 0, "rejected": 3});
    wrong["reference_tokens"] = json!({"chosen": [1], "rejected": [1, -1]});
    for (field, value) in [
        ("margin_rewards_chosen", json!([1])),
        ("aux_rewards_rejected", json!([1])),
        ("baseline", json!(1)),
        ("earlier", json!({"chosen": [-1], "rejected": [-1]})),
        ("optimism", json!({"policy": -1, "reference": -1})),
    ] {
        wrong[field] = value;
    }
    assert_eq!(
        of(json!([wrong])),
        [
            "/pairs/0/policy/rejected out_of_range",
            "/pairs/0/references/chosen/1 out_of_range",
            "/pairs/0/tokens/chosen out_of_range",
            "/pairs/0/reference_tokens/chosen inconsistent_length",
            "/pairs/0/reference_tokens/rejected/1 out_of_range",
            "/pairs/0/margin_rewards_chosen conflicting_fields",
            "/pairs/0/aux_rewards_rejected conflicting_fields",
            "/pairs/0/baseline conflicting_fields",
            "/pairs/0/earlier conflicting_fields",
            "/pairs/0/optimism conflicting_fields",
        ]
    );
    for objective in [
        json!({"loss": "ipo"}),
        json!({"loss": "sigmoid_norm"}),
        json!({"sft_weight": 1}),
        json!({"length_normalized": true}),
    ] {
        let body = json!({"objective": objective, "pairs": [two()]});
        assert_eq!(problems(&server, &body), ["/pairs/0/tokens missing_field"], "{objective}");
    }
    let rewards = |chosen: Value| {
        let mut pair = two();
        pair["margin_rewards_chosen"] = chosen;
        pair["margin_rewards_rejected"] = json!([1, 2]);
        problems(&server, &json!({"method": "modpo", "margin_weights": [0.25, 0.25], "pairs": [pair]}))
    };
    assert_eq!(rewards(json!([1])), ["/pairs/0/margin_rewards_chosen inconsistent_length"]);
    assert_eq!(rewards(json!([])), ["/pairs/0/margin_rewards_chosen out_of_range"]);
    let mut later = two();
    later["earlier"] = json!({"chosen": [-1], "rejected": [-1]});
    let spo = json!({"method": "spo", "pairs": [later, two()]});
    assert_eq!(problems(&server, &spo), ["/pairs/1/earlier missing_field"]);
    assert_eq!(of(json!([{"policy": {"chosen": 0}}])), ["/pairs/0/policy missing_field"]);
}

#[test]
fn numbers_that_are_none_are_refused() {
    let server = Server::start();
    let send = |body: &str| {
        let json = [("content-type", "application/json")];
        server.send(ureq::http::Method::POST, "/v1/objectives/evaluate", &json, Some(body.as_bytes().to_vec()))
    };
    let body = json!({"pairs": [two()]}).to_string();
    send(&body.replace("-45", "-1e999")).error(400, "invalid_json");
    send(&body.replace("-45", "NaN")).error(400, "invalid_json");
    // Finite numbers whose loss is not.
    let tiny = json!({"objective": {"loss": "sppo_hard", "beta": 1e-300}, "pairs": [two()]});
    assert_eq!(problems(&server, &tiny), ["/pairs/0 out_of_range"]);
}
