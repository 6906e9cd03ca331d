//! Who may do what: keys, owners, what is shared, and that nothing of others shows by any route.

use serde_json::{Value, json};
use ureq::http::Method;

use crate::support::{Answer, Server, id_of, pairs};

/// A client with a key.
pub(crate) struct Person<'a> {
    pub(crate) server: &'a Server,
    pub(crate) authorization: String,
    pub(crate) key_id: String,
}

impl Person<'_> {
    pub(crate) fn send(&self, method: Method, path: &str, body: Option<&Value>) -> Answer {
        let headers = [("authorization", self.authorization.as_str()), ("content-type", "application/json")];
        self.server.send(method, path, &headers, body.map(|body| body.to_string().into_bytes()))
    }

    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, None)
    }

    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, Some(body))
    }

    pub(crate) fn upload(&self) -> String {
        id_of(&self.try_upload().ok())
    }

    pub(crate) fn try_upload(&self) -> Answer {
        let form = format!(
            "--XX\r\nContent-Disposition: form-data; name=\"purpose\"\r\n\r\nfine-tune\r\n--XX\r\n\
             Content-Disposition: form-data; name=\"file\"; filename=\"pairs.jsonl\"\r\n\r\n{}\r\n--XX--\r\n",
            pairs(4)
        );
        let headers =
            [("authorization", self.authorization.as_str()), ("content-type", "multipart/form-data; boundary=XX")];
        self.server.send(Method::POST, "/v1/files", &headers, Some(form.into_bytes()))
    }
}

/// Makes a key as `by`; the first one as anybody.
pub(crate) fn key<'a>(server: &'a Server, by: Option<&Person<'_>>, request: &Value) -> Person<'a> {
    let made = match by {
        Some(admin) => admin.post("/v1/api_keys", request),
        None => server.post("/v1/api_keys", request),
    }
    .ok();
    Person {
        server,
        authorization: format!("Bearer {}", made["key"].as_str().expect("shown once")),
        key_id: id_of(&made),
    }
}

/// An admin and two members.
pub(crate) fn team(server: &Server) -> [Person<'_>; 3] {
    let root = key(server, None, &json!({"user": "root", "role": "admin"}));
    let ana = key(server, Some(&root), &json!({"user": "ana"}));
    let bo = key(server, Some(&root), &json!({"user": "bo"}));
    [root, ana, bo]
}

/// A file, an upload, a model, a list, a webhook, a job and an export of one person, as what the parts of addresses are called.
pub(crate) fn things_of(person: &Person<'_>) -> [(&'static str, String); 7] {
    let file = person.upload();
    let model = format!("{}-model", person.key_id);
    person.post("/v1/models", &json!({"id": model, "source": "path:/models/x"})).ok();
    person.server.make_ready(&model);
    let list = person.post("/v1/reference_lists", &json!({"name": "mine", "references": [{"model": model}]})).ok();
    let body = json!({"model": model, "training_file": file, "method": {"type": "dpo"}});
    let job = person.post("/v1/fine_tuning/jobs", &body).ok();
    assert_eq!(job["shared"], false);
    let export = person.post(&format!("/v1/models/{model}/exports"), &json!({"format": "gguf"})).ok();
    let upload = json!({"filename": "x", "purpose": "fine-tune", "bytes": 9});
    let upload = person.post("/v1/uploads", &upload).ok();
    let webhook = json!({"name": "mine", "url": "https://hooks.example/x", "event_types": ["fine_tuning.job.failed"]});
    let webhook = person.post("/v1/webhook_endpoints", &webhook).ok();
    [
        ("{file_id}", file),
        ("{upload_id}", id_of(&upload)),
        ("{model}", model),
        ("{reference_list_id}", id_of(&list)),
        ("{webhook_endpoint_id}", id_of(&webhook)),
        ("{job_id}", id_of(&job)),
        ("{export_id}", id_of(&export)),
    ]
}

/// Every route that names a thing, with its method, the ids filled in.
fn routes_to(things: &[(&'static str, String)]) -> Vec<(Method, String)> {
    let api: Value = serde_json::from_str(mrpo::http::document()).expect("JSON");
    let mut routes = Vec::new();
    for (path, item) in api["paths"].as_object().expect("paths") {
        let Some((part, id)) = things.iter().find(|(part, _)| path.contains(part)) else { continue };
        let path = path
            .replace(part, id)
            .replace("{checkpoint_id}", &format!("ftckpt-{:032}", 0))
            .replace("{name}", "x")
            .replace("{event_id}", &format!("evt_{:032}", 0));
        for method in item.as_object().expect("methods").keys() {
            let method = method.to_uppercase().parse().expect("a method");
            let with = if path.ends_with("/overlap") { format!("?with={id}") } else { String::new() };
            routes.push((method, format!("{path}{with}")));
        }
    }
    assert!(routes.len() > 25, "{}", routes.len());
    routes
}

#[test]
fn from_the_first_key_on_everybody_is_asked_for_one() {
    let server = Server::start();
    assert_eq!(server.get("/v1/me").ok()["user"], Value::Null);
    // A member's key alone would lock everybody out of making others.
    server.post("/v1/api_keys", &json!({"user": "ana"})).error(400, "admin_first");
    let root = key(&server, None, &json!({"user": "root", "role": "admin"}));

    let refused = server.get("/v1/files");
    refused.error(401, "unauthenticated");
    assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    for open in ["/healthz", "/readyz", "/openapi.json"] {
        assert_eq!(server.get(open).status, 200, "{open}");
    }
    let me = root.get("/v1/me").ok();
    assert_eq!((&me["user"], &me["role"], &me["key_id"]), (&json!("root"), &json!("admin"), &json!(root.key_id)));
    for wrong in ["Bearer mrpo_0", "Bearer ", "Basic x", "mrpo"] {
        let headers = [("authorization", wrong)];
        server.send(Method::GET, "/v1/files", &headers, None).error(401, "unauthenticated");
    }
}

#[test]
fn a_key_is_shown_once_kept_nowhere_and_gone_when_revoked() {
    let server = Server::start();
    let [root, ana, _] = team(&server);
    let secret = ana.authorization.trim_start_matches("Bearer ");
    ana.get("/v1/me").ok();

    let listed = root.get("/v1/api_keys").ok();
    let of_ana = listed["data"].as_array().expect("keys").iter().find(|k| k["user"] == "ana").expect("listed").clone();
    assert!(of_ana.get("key").is_none() && secret.starts_with(of_ana["prefix"].as_str().expect("prefix")), "{of_ana}");
    assert!(of_ana["last_used_at"].is_i64(), "{of_ana}");
    ana.get("/v1/api_keys").error(403, "admins_only");
    for entry in
        std::fs::read_dir(server.data_dir()).expect("data").filter_map(Result::ok).filter(|e| e.path().is_file())
    {
        let bytes = std::fs::read(entry.path()).expect("read");
        let holds = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!holds, "the key stands in {}", entry.path().display());
    }

    let path = format!("/v1/api_keys/{}", ana.key_id);
    ana.send(Method::DELETE, &path, None).error(403, "admins_only");
    assert!(root.send(Method::DELETE, &path, None).ok()["revoked_at"].is_i64());
    ana.get("/v1/me").error(401, "unauthenticated");
    root.post("/v1/api_keys", &json!({"user": "x", "expires_at": 1})).error(400, "in_the_past");
}

#[test]
fn what_others_own_is_not_there_by_any_route() {
    let server = Server::start();
    let [root, ana, bo] = team(&server);
    let things = things_of(&ana);
    for (method, path) in routes_to(&things) {
        let answer = bo.send(method.clone(), &path, Some(&json!({})));
        assert_eq!(answer.status, 404, "{method} {path}: {}", String::from_utf8_lossy(&answer.body));
    }
    // All of it stands, and its owner and an admin see it.
    for (part, id) in &things {
        let path = match *part {
            // There is no looking at it; its owner may give it up.
            "{upload_id}" => {
                ana.post(&format!("/v1/uploads/{id}/cancel"), &json!({})).ok();
                continue;
            }
            "{file_id}" => format!("/v1/files/{id}"),
            "{model}" => format!("/v1/models/{id}"),
            "{reference_list_id}" => format!("/v1/reference_lists/{id}"),
            "{job_id}" => format!("/v1/fine_tuning/jobs/{id}"),
            "{webhook_endpoint_id}" => format!("/v1/webhook_endpoints/{id}"),
            _ => format!("/v1/exports/{id}"),
        };
        ana.get(&path).ok();
        root.get(&path).ok();
    }
}

#[test]
fn lists_and_bodies_know_nothing_of_what_others_own() {
    let server = Server::start();
    let [root, ana, bo] = team(&server);
    let things = things_of(&ana);
    let id = |part: &str| things.iter().find(|(p, _)| *p == part).expect("a thing").1.clone();
    for list in ["files", "models", "reference_lists", "fine_tuning/jobs", "webhook_endpoints"] {
        let n = |person: &Person<'_>| person.get(&format!("/v1/{list}")).ok()["data"].as_array().expect("list").len();
        assert_eq!((n(&ana), n(&bo), n(&root)), (1, 0, 1), "{list}");
    }
    bo.get(&format!("/v1/files?after={}", id("{file_id}"))).error(400, "unknown_cursor");
    bo.get(&format!("/v1/fine_tuning/jobs?after={}", id("{job_id}"))).error(400, "unknown_cursor");

    let own = bo.upload();
    let body = json!({"model": id("{model}"), "training_file": id("{file_id}"), "method": {"type": "dpo"}});
    let refused = bo.post("/v1/fine_tuning/jobs", &body).error(400, "model_not_found");
    let codes: Vec<&str> =
        refused["errors"].as_array().expect("list").iter().filter_map(|e| e["code"].as_str()).collect();
    assert_eq!(codes, ["model_not_found", "file_not_found"]);
    bo.get(&format!("/v1/files/{own}/overlap?with={}", id("{file_id}"))).error(404, "file_not_found");
    let list = json!({"name": "x", "references": [{"model": id("{model}")}]});
    bo.post("/v1/reference_lists", &list).error(400, "model_not_found");
    bo.get(&format!("/v1/reference_scores?model={}", id("{model}"))).error(404, "model_not_found");
    bo.send(Method::DELETE, &format!("/v1/reference_scores?model={}", id("{model}")), None)
        .error(404, "model_not_found");
    bo.post("/v1/models", &json!({"id": "s", "source": format!("scores:{}", id("{file_id}"))}))
        .error(400, "file_not_found");
}

#[test]
fn what_is_shared_is_seen_and_used_by_all_and_changed_by_its_owner() {
    let server = Server::start();
    let [root, ana, bo] = team(&server);
    let things = things_of(&ana);
    let id = |part: &str| things.iter().find(|(p, _)| *p == part).expect("a thing").1.clone();
    for path in [
        format!("/v1/files/{}", id("{file_id}")),
        format!("/v1/models/{}", id("{model}")),
        format!("/v1/reference_lists/{}", id("{reference_list_id}")),
        format!("/v1/fine_tuning/jobs/{}", id("{job_id}")),
    ] {
        bo.get(&path).error(404, bo.get(&path).json()["error"]["code"].as_str().expect("a code"));
        assert_eq!(ana.post(&format!("{path}/sharing"), &json!({"shared": true})).ok()["shared"], true);
        assert_eq!(bo.get(&path).ok()["shared"], true, "{path}");
        bo.post(&format!("{path}/sharing"), &json!({"shared": false})).error(403, "not_owner");
    }
    bo.send(Method::DELETE, &format!("/v1/files/{}", id("{file_id}")), None).error(403, "not_owner");
    bo.post(&format!("/v1/fine_tuning/jobs/{}/cancel", id("{job_id}")), &json!({})).error(403, "not_owner");
    let used = json!({"model": id("{model}"), "training_file": id("{file_id}"), "method": {"type": "dpo"}});
    let job = bo.post("/v1/fine_tuning/jobs", &used).ok();
    assert_eq!(job["owner"], "bo");
    root.post(&format!("/v1/fine_tuning/jobs/{}/cancel", id_of(&job)), &json!({})).ok();
    // What was exported of a model that all see is seen by all.
    bo.get(&format!("/v1/exports/{}", id("{export_id}"))).ok();
    bo.send(Method::DELETE, &format!("/v1/exports/{}", id("{export_id}")), None).error(403, "not_owner");

    ana.post(&format!("/v1/models/{}/sharing", id("{model}")), &json!({"shared": false})).ok();
    bo.get(&format!("/v1/models/{}", id("{model}"))).error(404, "model_not_found");
}

#[test]
fn what_stood_before_there_were_keys_belongs_to_the_team() {
    let server = Server::start();
    let job = server.add_job();
    let [root, ana, _] = team(&server);
    assert_eq!(ana.get(&format!("/v1/fine_tuning/jobs/{job}")).ok()["owner"], Value::Null);
    ana.post(&format!("/v1/fine_tuning/jobs/{job}/cancel"), &json!({})).error(403, "not_owner");
    root.post(&format!("/v1/fine_tuning/jobs/{job}/cancel"), &json!({})).ok();
}

#[test]
fn a_key_to_read_changes_nothing_and_the_log_tells_who_did() {
    let server = Server::start();
    let [root, ana, _] = team(&server);
    let reader = key(&server, Some(&root), &json!({"user": "ana", "scope": "read"}));
    let file = ana.upload();
    reader.get(&format!("/v1/files/{file}")).ok();
    reader.send(Method::DELETE, &format!("/v1/files/{file}"), None).error(403, "insufficient_scope");
    ana.send(Method::DELETE, &format!("/v1/files/{file}"), None).ok();

    ana.get("/v1/audit").error(403, "admins_only");
    let log = root.get("/v1/audit?user=ana").ok();
    let entries = log["data"].as_array().expect("list");
    assert_eq!(entries[0]["action"], "DELETE /v1/files/{file_id}");
    assert_eq!((&entries[0]["subject"], &entries[0]["status"]), (&json!(file), &json!(200)));
    assert_eq!((&entries[0]["key_id"], &entries[1]["action"]), (&json!(ana.key_id), &json!("POST /v1/files")));
    let next = root.get(&format!("/v1/audit?user=ana&limit=1&after={}", entries[0]["id"])).ok();
    assert_eq!(next["data"][0]["id"], entries[1]["id"]);
}

#[test]
fn only_pages_of_named_sites_may_ask_from_a_browser() {
    let server = Server::with(|settings| settings.origins = vec!["https://lab.example".parse().expect("an origin")]);
    key(&server, None, &json!({"user": "root", "role": "admin"}));
    let ask = |origin: &str| {
        let headers = [("origin", origin), ("access-control-request-method", "POST")];
        // Browsers ask without a key.
        server.send(Method::OPTIONS, "/v1/files", &headers, None)
    };
    let named = ask("https://lab.example");
    assert_eq!((named.status, named.header("access-control-allow-origin")), (200, Some("https://lab.example")));
    assert_eq!(ask("https://other.example").header("access-control-allow-origin"), None);
    server.get_with("/v1/files", &[("origin", "https://lab.example")]).error(401, "unauthenticated");
}

#[test]
fn an_upload_that_an_admin_completes_stays_its_owners() {
    let server = Server::start();
    let [root, ana, _] = team(&server);
    let content = pairs(4);
    let body =
        json!({"filename": "pairs.jsonl", "purpose": "fine-tune", "bytes": content.len(), "mime_type": "text/jsonl"});
    let path = format!("/v1/uploads/{}", id_of(&ana.post("/v1/uploads", &body).ok()));
    let form = format!(
        "--XX\r\nContent-Disposition: form-data; name=\"data\"; filename=\"upload\"\r\n\r\n{content}\r\n--XX--\r\n"
    );
    let headers = [("authorization", ana.authorization.as_str()), ("content-type", "multipart/form-data; boundary=XX")];
    let part = id_of(&server.send(Method::POST, &format!("{path}/parts"), &headers, Some(form.into_bytes())).ok());
    let done = root.post(&format!("{path}/complete"), &json!({"part_ids": [part]})).ok();
    assert_eq!(ana.get(&format!("/v1/files/{}", id_of(&done["file"]))).ok()["owner"], "ana");
}

#[test]
fn numbers_of_everybody_are_for_admins() {
    let server = Server::start();
    let [root, ana, _] = team(&server);
    things_of(&ana);
    ana.get("/metrics").error(403, "admins_only");
    let answer = root.get("/metrics");
    let text = String::from_utf8(answer.body).expect("text");
    assert!(
        text.lines()
            .any(|line| line.starts_with("mrpo_jobs{") && line.contains("owner=\"ana\"") && line.ends_with(" 1"))
    );
    // Addresses are patterns: no id makes a series.
    assert!(text.contains("route=\"/v1/models/{model}/exports\"") && !text.contains(&ana.key_id), "{text}");
}

#[test]
fn a_key_has_a_rate() {
    let server = Server::with(|settings| settings.requests_per_second = std::num::NonZeroU32::new(1));
    let root = key(&server, None, &json!({"user": "root", "role": "admin"}));
    let refused = (0..20).map(|_| root.get("/v1/me")).find(|answer| answer.status != 200).expect("a limit");
    refused.error(429, "rate_limited");
    assert_eq!(refused.header("retry-after"), Some("1"));
}
