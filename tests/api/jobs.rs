//! `/v1/fine_tuning/jobs`, their events and metrics.

use serde_json::{Value, json};

use crate::support::{Server, ids, pairs};

fn codes(body: &Value) -> Vec<(String, String)> {
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let errors = body["errors"].as_array().expect("errors").iter();
    errors.map(|e| (text(&e["pointer"]), text(&e["code"]))).collect()
}

#[test]
fn a_job_shows_every_setting_as_it_is_used() {
    let server = Server::start();
    server.add_model("smol");
    server.add_model("other");
    let file = server.checked_file(&pairs(4));
    let references = json!([{"model": "other"}]);
    let list = server.post("/v1/reference_lists", &json!({"name": "x", "references": references})).ok();
    for given in [references, list["id"].clone()] {
        let job = server
            .post(
                "/v1/fine_tuning/jobs",
                &json!({
                    "model": "smol", "training_file": file["id"], "validation_file": file["id"], "suffix": "v1",
                    "metadata": {"team": "red"},
                    "method": {"type": "mrpo", "mrpo": {"references": given, "hyperparameters": {"beta": 0.2, "n_epochs": "auto"}}},
                }),
            )
            .ok();
        assert_eq!((&job["object"], &job["status"]), (&json!("fine_tuning.job"), &json!("validating_files")));
        assert_eq!(job["hyperparameters"]["beta"], 0.2);
        assert_eq!(
            (&job["hyperparameters"]["n_epochs"], &job["hyperparameters"]["lora"]["rank"]),
            (&json!(1), &json!(8))
        );
        assert_eq!(job["method"]["mrpo"]["hyperparameters"], job["hyperparameters"]);
        assert_eq!(job["references"], json!([{"model": "smol"}, {"model": "other"}]));
        assert_eq!(job["method"]["mrpo"]["references"], job["references"]);
        assert_eq!(job["evaluation"], json!({"before": null, "after": null}));
        assert_eq!((&job["metadata"]["team"], &job["suffix"]), (&json!("red"), &json!("v1")));
        let seed = job["seed"].as_u64().expect("seed");
        assert!(i32::try_from(seed).is_ok());
        for null in ["finished_at", "fine_tuned_model", "error", "estimated_finish", "progress", "trained_tokens"] {
            assert_eq!(job.get(null), Some(&Value::Null), "{null}");
        }
        assert_eq!(server.get(&format!("/v1/fine_tuning/jobs/{}", job["id"].as_str().expect("id"))).ok(), job);
    }
}

#[test]
fn a_dry_run_is_checked_as_a_job_is_and_does_not_wait_for_models() {
    let server = Server::start();
    server.add_model("smol");
    let file = server.checked_file(&pairs(4));
    let body = |model: &str, beta: f64| {
        json!({"model": model, "training_file": file["id"], "dry_run": true,
            "method": {"type": "dpo", "dpo": {"hyperparameters": {"beta": beta}}}})
    };
    let refused = server.post("/v1/fine_tuning/jobs", &body("ghost", -1.0)).error(400, "out_of_range");
    let found = codes(&refused);
    assert_eq!(found.iter().map(|(_, code)| code.as_str()).collect::<Vec<_>>(), ["out_of_range", "model_not_found"]);
    let waiting = server.post("/v1/fine_tuning/jobs", &body("smol", 0.1)).error(409, "not_ready");
    assert!(waiting["detail"].as_str().is_some_and(|text| text.contains("GET /v1/models/smol")), "{waiting}");
    assert_eq!(server.get("/v1/fine_tuning/jobs").ok()["data"], json!([]));
}

#[test]
fn a_job_whose_models_and_files_are_ready_is_queued() {
    let server = Server::start();
    server.add_model("smol");
    server.make_ready("smol");
    let job = server.add_job();
    assert_eq!(server.get(&format!("/v1/fine_tuning/jobs/{job}")).ok()["status"], "queued");
}

#[test]
fn every_problem_of_a_job_is_named_at_once() {
    let server = Server::start();
    server.add_model("smol");
    server.add_model("mamba");
    server.make_broken("mamba");
    let broken = server.checked_file("{\"prompt\":\"q\",\"chosen\":\"a\",\"rejected\":\"\"}\n{nonsense\n");
    let body = server.post(
        "/v1/fine_tuning/jobs",
        &json!({
            "model": "nobody", "training_file": broken["id"], "validation_file": format!("file-{}", "0".repeat(32)), "seed": -1,
            "method": {"type": "mrpo", "mrpo": {
                "references": [{"model": "mamba", "weight": 0.5}, {"model": "gone", "weight": 0.6}],
                "hyperparameters": {"beta": -1}}},
        }),
    );
    let body = body.error(400, "out_of_range");
    let found = codes(&body);
    let expected = [
        ("/seed", "out_of_range"),
        ("/method/mrpo/references", "weights_do_not_sum_to_one"),
        ("/method/mrpo/hyperparameters/beta", "out_of_range"),
        ("/model", "model_not_found"),
        ("/method/mrpo/references/0/model", "model_in_error"),
        ("/method/mrpo/references/1/model", "model_not_found"),
        ("/training_file", "file_in_error"),
    ];
    for (i, (pointer, code)) in expected.iter().enumerate() {
        assert_eq!(found[i], ((*pointer).to_owned(), (*code).to_owned()), "{body}");
    }
    assert_eq!(body["errors"][7]["line"], 1, "the file's own problems follow it: {body}");
    assert_eq!(found.last(), Some(&("/validation_file".to_owned(), "file_not_found".to_owned())));
    assert_eq!(body["n_problems"], found.len());
    assert_eq!(ids(&server.get("/v1/fine_tuning/jobs").ok()).len(), 0);
}

#[test]
fn one_problem_is_what_openai_s_clients_see() {
    let server = Server::start();
    let file = server.checked_file(&pairs(2));
    let post = |model: &str, method: Value| {
        server.post("/v1/fine_tuning/jobs", &json!({"model": model, "training_file": file["id"], "method": method}))
    };
    let body = post("nobody", json!({"type": "dpo"})).error(400, "model_not_found");
    assert_eq!(body["error"]["param"], "model");
    server.add_model("smol");
    let gone = format!("reflist-{}", "0".repeat(32));
    let body =
        post("smol", json!({"type": "mrpo", "mrpo": {"references": gone}})).error(400, "reference_list_not_found");
    assert_eq!(body["error"]["param"], "method.mrpo.references");
    let body = post("smol", json!({"type": "ppo"})).error(400, "invalid_value");
    assert_eq!(body["error"]["param"], "method.type");
    let body =
        post("smol", json!({"type": "dpo", "dpo": {"hyperparameters": {"betta": 1}}})).error(400, "unknown_field");
    assert!(body["detail"].as_str().expect("text").contains("betta"));
    let body = post("smol", json!({"type": "dpo", "dpo": {"hyperparameters": {"beta": "high"}}}));
    let body = body.error(400, "wrong_type");
    assert_eq!(body["error"]["param"], "method.dpo.hyperparameters.beta");
    post("smol", json!({"type": "mrpo"})).error(400, "missing_field");
    let body = server
        .post("/v1/fine_tuning/jobs", &json!({"model": "smol", "training_file": "file-1", "method": {"type": "dpo"}}));
    assert_eq!(body.error(400, "invalid_value")["error"]["param"], "training_file");
}

#[test]
fn a_job_is_paused_resumed_and_cancelled_without_a_body() {
    let server = Server::start();
    let job = server.add_job();
    let act = |act: &str| server.post_empty(&format!("/v1/fine_tuning/jobs/{job}/{act}"));
    act("resume").error(409, "illegal_transition");
    assert_eq!(act("pause").ok()["status"], "paused");
    act("pause").error(409, "illegal_transition");
    assert_eq!(act("resume").ok()["status"], "validating_files");
    let cancelled = act("cancel").ok();
    assert_eq!(cancelled["status"], "cancelled");
    assert!(cancelled["finished_at"].is_i64());
    for again in ["cancel", "pause", "resume"] {
        act(again).error(409, "illegal_transition");
    }
    let gone = format!("/v1/fine_tuning/jobs/ftjob-{}", "0".repeat(32));
    for act in ["cancel", "pause", "resume"] {
        server.post_empty(&format!("{gone}/{act}")).error(404, "job_not_found");
    }
    server.get(&gone).error(404, "job_not_found");
}

#[test]
fn jobs_are_listed_page_by_page_and_by_metadata() {
    let server = Server::start();
    server.add_model("smol");
    let file = server.checked_file(&pairs(2));
    let made: Vec<String> = [json!({"team": "red"}), json!({"team": "blue", "run": "2"}), Value::Null]
        .iter()
        .map(|metadata| {
            let body =
                json!({"model": "smol", "training_file": file["id"], "method": {"type": "dpo"}, "metadata": metadata});
            server.post("/v1/fine_tuning/jobs", &body).ok()["id"].as_str().expect("id").to_owned()
        })
        .collect();
    let list = |query: &str| server.get(&format!("/v1/fine_tuning/jobs{query}"));
    assert_eq!(ids(&list("").ok()), [made[2].as_str(), &made[1], &made[0]]);
    let first = list("?limit=1").ok();
    assert_eq!((ids(&first), &first["has_more"]), (vec![made[2].clone()], &json!(true)));
    assert_eq!(ids(&list(&format!("?limit=5&after={}", made[2])).ok()), [made[1].as_str(), &made[0]]);
    assert_eq!(ids(&list(&format!("?after={}", made[0])).ok()).len(), 0);
    assert_eq!(ids(&list("?metadata%5Bteam%5D=red").ok()), [made[0].as_str()]);
    assert_eq!(ids(&list("?metadata%5Bteam%5D=blue&metadata%5Brun%5D=2").ok()), [made[1].as_str()]);
    assert_eq!(ids(&list("?metadata%5Bteam%5D=green").ok()).len(), 0);
    assert_eq!(ids(&list("?metadata=null").ok()), [made[2].as_str()]);
    list("?after=ftjob-1").error(400, "unknown_cursor");
    list(&format!("?after=ftjob-{}", "0".repeat(32))).error(400, "unknown_cursor");
    list("?limit=none").error(400, "invalid_query");
    let body = list("?page=2").error(400, "invalid_query");
    assert_eq!(body["error"]["param"], "page");
}

#[test]
fn events_come_newest_first_with_ids_that_stay() {
    let server = Server::start();
    let job = server.add_job();
    let list = |query: &str| server.get(&format!("/v1/fine_tuning/jobs/{job}/events{query}"));
    let all = list("").ok();
    let event = &all["data"][0];
    assert_eq!((&event["object"], &event["level"]), (&json!("fine_tuning.job.event"), &json!("info")));
    assert_eq!(event["type"], "message");
    assert_eq!(all, list("").ok());
    let newest = ids(&all);
    assert!(newest.len() >= 2);
    let first = list("?limit=1").ok();
    assert_eq!((ids(&first), &first["has_more"]), (newest[..1].to_vec(), &json!(true)));
    assert_eq!(ids(&list(&format!("?after={}", newest[0])).ok()), newest[1..]);
    assert_eq!(ids(&list(&format!("?after={}", newest[newest.len() - 1])).ok()).len(), 0);
    list("?after=ftevent-1").error(400, "unknown_cursor");
    let gone = format!("/v1/fine_tuning/jobs/ftjob-{}/events", "0".repeat(32));
    server.get(&gone).error(404, "job_not_found");
}

#[test]
fn metrics_come_as_pages_and_as_one_table() {
    let server = Server::start();
    let job = server.add_job();
    let path = format!("/v1/fine_tuning/jobs/{job}/metrics");
    assert_eq!(server.get(&path).ok()["data"], json!([]));
    assert_eq!(server.get(&format!("{path}?format=csv")).body, b"step\n");
    for (kind, step, values) in [
        ("training", "1", r#"{"loss":0.6931471805599453}"#),
        ("training", "2", r#"{"loss":0.5,"refs/smol/accuracy":1.0}"#),
        ("evaluation", "0", r#"{"loss":0.7}"#),
    ] {
        server.execute(
            "insert into metrics (job_id, kind, step, \"values\") values (?, ?, cast(? as integer), ?)",
            &[&job, kind, step, values],
        );
    }
    let page = server.get(&format!("{path}?limit=1")).ok();
    assert_eq!(page["data"], json!([{"step": 1, "metrics": {"loss": std::f64::consts::LN_2}}]));
    assert_eq!((&page["has_more"], &page["last_id"]), (&json!(true), &json!("1")));
    assert_eq!(server.get(&format!("{path}?after=1")).ok()["data"][0]["step"], 2);
    assert_eq!(server.get(&format!("{path}?kind=evaluation")).ok()["data"][0]["metrics"]["loss"], 0.7);
    let table = server.get(&format!("{path}?format=csv"));
    assert_eq!(table.header("content-type"), Some("text/csv; charset=utf-8"));
    let text = String::from_utf8(table.body).expect("text");
    assert_eq!(text, "step,loss,refs/smol/accuracy\n1,0.6931471805599453,\n2,0.5,1\n");
    server.get(&format!("{path}?format=xml")).error(400, "invalid_query");
    server
        .get(&format!("/v1/fine_tuning/jobs/ftjob-{}/metrics?format=csv", "0".repeat(32)))
        .error(404, "job_not_found");
}
