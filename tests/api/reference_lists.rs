//! `/v1/reference_lists`.

use serde_json::json;

use crate::support::{Server, ids};

#[test]
fn a_list_is_made_listed_shown_and_deleted() {
    let server = Server::start();
    server.add_model("a");
    server.add_model("b");
    let references = json!([{"model": "a", "weight": 0.25}, {"model": "b", "weight": 0.75}]);
    let list = server.post("/v1/reference_lists", &json!({"name": "both", "references": references})).ok();
    assert_eq!(
        (&list["object"], &list["name"], &list["references"]),
        (&json!("reference_list"), &json!("both"), &references)
    );
    let id = list["id"].as_str().expect("id");
    assert!(id.starts_with("reflist-"));
    assert_eq!(server.get(&format!("/v1/reference_lists/{id}")).ok(), list);
    assert_eq!(ids(&server.get("/v1/reference_lists").ok()), [id]);
    assert_eq!(ids(&server.get(&format!("/v1/reference_lists?after={id}")).ok()).len(), 0);
    server.get("/v1/reference_lists?after=reflist-1").error(400, "unknown_cursor");
    assert_eq!(server.delete(&format!("/v1/reference_lists/{id}")).ok()["deleted"], true);
    server.get(&format!("/v1/reference_lists/{id}")).error(404, "reference_list_not_found");
    server.delete(&format!("/v1/reference_lists/{id}")).error(404, "reference_list_not_found");
}

#[test]
fn every_problem_of_a_list_is_named_at_once() {
    let server = Server::start();
    server.add_model("a");
    let post = |body| server.post("/v1/reference_lists", &body);
    let body =
        post(json!({"name": "x", "references": [{"model": "a"}, {"model": "nobody"}]})).error(400, "model_not_found");
    assert_eq!((&body["errors"][0]["pointer"], &body["n_problems"]), (&json!("/references/1/model"), &json!(1)));
    assert_eq!(body["error"]["param"], "references.1.model");

    let body =
        post(json!({"name": "", "references": [{"model": "a", "weight": 0.5}, {"model": "nobody", "weight": 0.6}]}));
    let body = body.error(400, "out_of_range");
    let codes: Vec<_> = body["errors"].as_array().expect("errors").iter().map(|e| &e["code"]).collect();
    assert_eq!(codes, ["out_of_range", "weights_do_not_sum_to_one", "model_not_found"]);
    assert_eq!(body["n_problems"], 3);

    post(json!({"name": "x", "references": []})).error(400, "empty_list");
    post(json!({"name": "x", "references": [{"model": "a"}, {"model": "a"}]})).error(400, "duplicate_reference");
    post(json!({"name": "x", "references": [{"model": "a", "weight": "1"}]})).error(400, "wrong_type");
    assert_eq!(ids(&server.get("/v1/reference_lists").ok()).len(), 0);
}
