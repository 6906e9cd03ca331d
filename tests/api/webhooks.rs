//! Webhooks as their owners see them. Nothing is sent here: there is no worker.

use serde_json::{Value, json};

use crate::support::{Server, id_of, ids};

const WEBHOOKS: &str = "/v1/webhook_endpoints";

fn request() -> Value {
    let types = ["fine_tuning.job.cancelled", "fine_tuning.job.succeeded", "fine_tuning.job.succeeded"];
    json!({"name": " mine ", "url": "https://hooks.example/team/x/", "event_types": types})
}

/// A webhook, without its secret.
fn made(server: &Server) -> (String, Value) {
    let mut made = server.post(WEBHOOKS, &request()).ok();
    made.as_object_mut().expect("an object").remove("signing_secret").expect("shown");
    (format!("{WEBHOOKS}/{}", id_of(&made)), made)
}

/// A job that has ended, as somebody's webhook will be told.
fn cancelled_job(server: &Server) -> String {
    let job = server.add_job();
    server.post_empty(&format!("/v1/fine_tuning/jobs/{job}/cancel")).ok();
    job
}

#[test]
fn a_secret_is_shown_once_and_replaced() {
    let server = Server::start();
    let first = server.post(WEBHOOKS, &request()).ok();
    let secret = |answer: &Value| answer["signing_secret"].as_str().expect("shown").to_owned();
    assert!(secret(&first).starts_with("whsec_") && secret(&first).len() == "whsec_".len() + 44, "{first}");
    assert_eq!((&first["object"], &first["name"]), (&json!("webhook_endpoint"), &json!("mine")));
    let types = json!(["fine_tuning.job.succeeded", "fine_tuning.job.cancelled"]);
    assert_eq!((&first["url"], &first["event_types"]), (&request()["url"], &types));

    let path = format!("{WEBHOOKS}/{}", id_of(&first));
    let second = server.post(&format!("{path}/rotate_secret"), &json!({})).ok();
    assert_ne!(secret(&first), secret(&second));
    let hint = second["signing_secret_hint"].as_str().expect("a hint");
    assert!(secret(&second).ends_with(hint.trim_start_matches("whsec_…")) && hint.chars().count() == 11, "{hint}");
    assert!(server.post_empty(&format!("{path}/rotate_secret")).ok()["signing_secret"].is_string());
    server.post(&format!("{path}/rotate_secret"), &json!({"keep_old_secret_active_for_24_hours": true})).ok();
    let shown = [
        server.get(&path).ok(),
        server.get(WEBHOOKS).ok(),
        server.post(&path, &json!({"name": "other"})).ok(),
        server.get("/v1/audit").ok(),
    ];
    for answer in shown {
        assert!(!answer.to_string().contains("signing_secret\":"), "{answer}");
        assert!(!answer.to_string().contains(&secret(&first)), "{answer}");
    }
}

#[test]
fn everything_that_is_wrong_is_said_and_a_host_must_be_allowed() {
    let server = Server::start();
    let body = json!({"name": "", "url": "https://u:p@hooks.example/x", "event_types": []});
    let refused = server.post(WEBHOOKS, &body).error(400, "out_of_range");
    let codes: Vec<&str> =
        refused["errors"].as_array().expect("list").iter().filter_map(|e| e["code"].as_str()).collect();
    assert_eq!(codes, ["out_of_range", "invalid_url", "out_of_range"]);
    let mut body = request();
    body["event_types"] = json!(["batch.completed"]);
    let refused = server.post(WEBHOOKS, &body);
    assert!(refused.status == 400 && refused.json()["detail"].to_string().contains("fine_tuning.job.succeeded"));

    for url in ["http://hooks.example:80001/x", "http://hooks.example/x?key=1"] {
        let body = json!({"name": "a\u{202e}b", "url": url, "event_types": ["fine_tuning.job.failed"]});
        let refused = server.post(WEBHOOKS, &body).error(400, "invalid_value");
        assert!(refused["errors"].to_string().contains("invalid_url"), "{refused}");
    }

    let (path, webhook) = made(&server);
    for url in ["http://169.254.169.254/latest", "http://hooks.example.evil.net/x", "http://[::1]:8111/v1/files"] {
        let mut body = request();
        body["url"] = json!(url);
        for path in [WEBHOOKS, &path] {
            let body = if path == WEBHOOKS { body.clone() } else { json!({"url": url}) };
            let refused = server.post(path, &body).error(403, "webhook_host_not_allowed");
            assert!(refused["detail"].as_str().expect("text").contains("--allow-webhook"), "{refused}");
        }
    }
    assert_eq!(server.get(&path).ok(), webhook);
}

#[test]
fn webhooks_are_listed_changed_counted_and_deleted() {
    let server = Server::start();
    let (path, webhook) = made(&server);
    assert_eq!(server.post(&path, &json!({})).ok(), webhook);
    let changed = server.post(&path, &json!({"url": "http://hooks.example/y", "disabled": true})).ok();
    assert_eq!((&changed["url"], &changed["name"]), (&json!("http://hooks.example/y"), &webhook["name"]));
    assert!(changed["disabled_at"].is_i64() && changed["disabled_reason"].is_string(), "{changed}");
    cancelled_job(&server);
    assert!(ids(&server.get(&format!("{path}/deliveries")).ok()).is_empty());
    let test = json!({"event_type": "fine_tuning.job.failed"});
    server.post(&format!("{path}/test"), &test).error(400, "invalid_request");
    assert_eq!(server.post(&path, &json!({"disabled": false})).ok()["disabled_at"], Value::Null);

    let others: Vec<String> = (0..19).map(|_| made(&server).1["id"].as_str().expect("id").to_owned()).collect();
    let refused = server.post(WEBHOOKS, &request()).error(409, "too_many");
    assert!(refused["detail"].as_str().expect("text").contains("20 webhooks"), "{refused}");
    let page = server.get(&format!("{WEBHOOKS}?limit=2&after={}", others[2])).ok();
    assert_eq!((ids(&page), &page["has_more"]), (vec![others[1].clone(), others[0].clone()], &json!(true)));
    server.get(&format!("{WEBHOOKS}?after=we_x")).error(400, "unknown_cursor");
    assert_eq!(server.delete(&path).ok()["object"], "webhook_endpoint.deleted");
    for answer in [server.get(&path), server.delete(&path), server.get(&format!("{WEBHOOKS}/we_x"))] {
        answer.error(404, "webhook_not_found");
    }
    assert_eq!(server.get("/v1/webhook_event_types").ok()["data"].as_array().expect("list").len(), 3);
    let elsewhere = server.get("/v1/webhooks").error(404, "route_not_found");
    assert!(elsewhere["detail"].as_str().expect("text").contains(WEBHOOKS), "{elsewhere}");
}

#[test]
fn what_a_webhook_is_told_is_listed_and_sent_again() {
    let server = Server::start();
    let (path, _) = made(&server);
    let jobs = [cancelled_job(&server), cancelled_job(&server)];
    let list = server.get(&format!("{path}/deliveries?limit=1")).ok();
    let newest = &list["data"][0];
    assert_eq!((&newest["job_id"], &newest["status"]), (&json!(jobs[1]), &json!("pending")));
    assert_eq!((&newest["event_type"], &newest["n_attempts"]), (&json!("fine_tuning.job.cancelled"), &json!(0)));
    assert_eq!(newest["next_attempt_at"], newest["created_at"]);
    let rest = server.get(&format!("{path}/deliveries?after={}", id_of(newest))).ok();
    assert_eq!((&rest["data"][0]["job_id"], &rest["has_more"]), (&json!(jobs[0]), &json!(false)));

    server.execute("update webhook_deliveries set status = 'failed', n_attempts = 12, ended_at = 5", &[]);
    let retry = |event: &str| server.post_empty(&format!("{path}/deliveries/{event}/retry"));
    let again = retry(&id_of(newest)).ok();
    assert_eq!((&again["status"], &again["ended_at"], &again["id"]), (&json!("pending"), &Value::Null, &newest["id"]));
    for event in [format!("evt_{:032}", 0), "x".to_owned()] {
        retry(&event).error(404, "delivery_not_found");
    }
    server.get(&format!("{path}/deliveries?after=evt_{:032}", 0)).error(400, "unknown_cursor");
    let metrics = String::from_utf8(server.get("/metrics").body).expect("text");
    for line in ["mrpo_webhook_deliveries{status=\"failed\"} 1", "mrpo_webhook_deliveries{status=\"pending\"} 1"] {
        assert!(metrics.lines().any(|found| found == line), "{metrics}");
    }
}
