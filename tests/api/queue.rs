//! Priorities, limits per user, places in the queue, and `/v1/queue`.

use mrpo::domain::{DeviceMemory, JobMemory, ReadMemory};
use serde_json::{Value, json};
use ureq::http::Method;

use crate::{
    people::{Person, team},
    support::{Server, id_of, wait_until},
};

/// A model and a file that the team sees.
fn shared_by(person: &Person<'_>) -> Value {
    let file = person.upload();
    person.post("/v1/models", &json!({"id": "smol", "source": "path:/models/x"})).ok();
    person.server.make_ready("smol");
    wait_until("the file is checked", || person.get(&format!("/v1/files/{file}")).ok()["status"] == "processed");
    for path in [format!("/v1/files/{file}"), "/v1/models/smol".to_owned()] {
        person.post(&format!("{path}/sharing"), &json!({"shared": true})).ok();
    }
    json!({"model": "smol", "training_file": file, "method": {"type": "dpo"}})
}

fn with(body: &Value, name: &str, value: &str) -> Value {
    let mut body = body.clone();
    body[name] = json!(value);
    body
}

const JOBS: &str = "/v1/fine_tuning/jobs";

#[test]
fn a_job_tells_its_place_and_why_it_waits() {
    let server = Server::start();
    let [root, ana, bo] = team(&server);
    let body = shared_by(&root);
    let first = ana.post(JOBS, &body).ok();
    assert_eq!((&first["priority"], &first["queue"]["position"]), (&json!("normal"), &json!(1)));
    assert_eq!(first["queue"]["reason"]["code"], "starting");
    let second = ana.post(JOBS, &body).ok();
    assert_eq!((&second["queue"]["position"], &second["queue"]["n_ahead"]), (&json!(2), &json!(1)));
    assert_eq!(second["queue"]["estimated_start"], Value::Null, "nothing has ended yet: nobody knows");
    let of_bo = bo.post(JOBS, &body).ok();
    assert_eq!(of_bo["queue"]["position"], 2, "it is his first and would be her second");
    let places: Vec<_> = root.get(JOBS).ok()["data"]
        .as_array()
        .expect("list")
        .iter()
        .map(|job| job["queue"]["position"].as_u64().expect("a place"))
        .collect();
    assert_eq!(places, [2, 3, 1]);
    let paused = ana.post(&format!("{JOBS}/{}/pause", id_of(&first)), &json!({})).ok();
    assert_eq!(paused["queue"], Value::Null);
}

#[test]
fn what_goes_first_is_its_owners_to_say_and_what_is_high_an_admins() {
    let server = Server::start();
    let [root, ana, bo] = team(&server);
    let body = shared_by(&root);
    let refused = ana.post(JOBS, &with(&body, "priority", "high")).error(403, "admins_only");
    assert_eq!(refused["error"]["param"], "priority");
    ana.post(JOBS, &with(&body, "priority", "urgent")).error(400, "invalid_value");
    let job = id_of(&ana.post(JOBS, &with(&body, "priority", "low")).ok());
    let path = format!("{JOBS}/{job}/priority");
    bo.post(&path, &json!({"priority": "low"})).error(404, "job_not_found");
    ana.post(&path, &json!({"priority": "high"})).error(403, "admins_only");
    assert_eq!(ana.post(&path, &json!({"priority": "normal"})).ok()["priority"], "normal");
    bo.post(JOBS, &body).ok();
    let raised = root.post(&path, &json!({"priority": "high"})).ok();
    assert_eq!((&raised["priority"], &raised["queue"]["position"]), (&json!("high"), &json!(1)));
    let events = ana.get(&format!("{JOBS}/{job}/events")).ok();
    assert_eq!(events["data"][0]["message"], "The job's priority is high (it was normal)");
    ana.post(&format!("{JOBS}/{job}/cancel"), &json!({})).ok();
    root.post(&path, &json!({"priority": "low"})).error(409, "illegal_transition");
}

#[test]
fn everybody_sees_the_queue_and_only_their_own_names_in_it() {
    let server = Server::start();
    let [root, ana, bo] = team(&server);
    let body = shared_by(&root);
    let job = id_of(&ana.post(JOBS, &body).ok());
    bo.post(JOBS, &with(&body, "priority", "low")).ok();
    let queue = bo.get("/v1/queue").ok();
    assert_eq!((&queue["n_slots"], &queue["n_free_slots"], &queue["n_waiting"]), (&json!(1), &json!(1), &json!(2)));
    let waiting = &queue["waiting"];
    assert_eq!((&waiting[0]["job"], &waiting[0]["owner"]), (&Value::Null, &Value::Null));
    assert_eq!((&waiting[1]["owner"], &waiting[1]["priority"]), (&json!("bo"), &json!("low")));
    assert_eq!(waiting[1]["position"], 2);
    assert!(!queue.to_string().contains(&job) && !queue.to_string().contains("ana"), "{queue}");
    assert_eq!((&queue["yours"]["n_waiting"], &queue["yours"]["max_waiting"]), (&json!(1), &Value::Null));
    let all = root.get("/v1/queue").ok();
    assert_eq!((&all["waiting"][0]["job"], &all["waiting"][0]["owner"]), (&json!(job), &json!("ana")));
}

#[test]
fn limits_are_per_user_and_name_the_way_out() {
    let server = Server::with(|settings| {
        settings.queue.max_waiting_per_user = Some(1);
        settings.queue.max_disk_bytes_per_user = Some(600);
    });
    let [root, ana, bo] = team(&server);
    let body = shared_by(&root);
    let job = id_of(&ana.post(JOBS, &body).ok());
    let refused = ana.post(JOBS, &body).error(409, "too_many_waiting");
    assert!(refused["detail"].as_str().is_some_and(|text| text.contains("cancel some")), "{refused}");
    bo.post(JOBS, &body).ok();
    ana.post(&format!("{JOBS}/{job}/cancel"), &json!({})).ok();
    ana.post(JOBS, &body).ok();

    let size = |person: &Person<'_>| person.get("/v1/queue").ok()["yours"]["disk_bytes"].as_u64().expect("a size");
    assert_eq!(size(&bo), 0);
    let mut n_uploads = 0;
    let refused = loop {
        let answer = bo.try_upload();
        if answer.status != 200 {
            break answer;
        }
        n_uploads += 1;
        assert!(n_uploads < 10, "a limit");
    };
    let told = refused.error(409, "disk_limit");
    let in_parts = json!({"filename": "x.jsonl", "purpose": "fine-tune", "bytes": 600, "mime_type": "text/jsonl"});
    bo.post("/v1/uploads", &in_parts).error(409, "disk_limit");
    assert!(told["detail"].as_str().is_some_and(|text| text.contains("delete some")), "{told}");
    assert!(n_uploads > 0 && size(&bo) <= 600);
    let file = bo.get("/v1/files").ok()["data"][0]["id"].as_str().expect("an id").to_owned();
    bo.send(Method::DELETE, &format!("/v1/files/{file}"), None).ok();
    bo.upload();
}

#[test]
fn what_could_never_fit_is_refused() {
    let memory = DeviceMemory { device: "cpu".into(), free_bytes: 0, all_bytes: 1 << 28 };
    let server =
        Server::with(|settings| settings.memory = ReadMemory::new(move || Some(JobMemory::Shared(memory.clone()))));
    let [root, ..] = team(&server);
    let body = shared_by(&root);
    let refused = root.post(JOBS, &body).error(400, "too_large");
    assert!(refused["detail"].as_str().is_some_and(|text| text.contains("0.2 GiB")), "{refused}");
}
