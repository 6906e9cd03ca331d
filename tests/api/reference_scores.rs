//! `/v1/reference_scores`.

use serde_json::json;

use crate::support::{Server, ids, pairs, sha256};

/// Scores of three references, the newest of them in two precisions; the first is `smol`'s.
fn with_scores(server: &Server) -> String {
    server.add_model("smol");
    server.add_model("pending");
    server.make_ready("smol");
    let file = server.checked_file(&pairs(4));
    let smol = format!("sha256:{}", "0".repeat(64));
    let references = [(smol.as_str(), "float32"), ("sha256:gone", "float32"), (smol.as_str(), "bfloat16")];
    for (reference, precision) in references {
        server.execute(
            "insert into score_references (reference, precision, n_scores) values (?, ?, 8)",
            &[reference, precision],
        );
    }
    server.execute(
        "insert into score_files (reference_id, file, n_rows) select id, ?, 8 from score_references",
        &[&sha256(pairs(4).as_bytes())],
    );
    let job = server.add_job();
    server.execute(
        "insert into score_uses (job_id, reference_id, n_known, used_at)
         select ?, id, 5, 1800000000 from score_references where precision = 'bfloat16'",
        &[&job],
    );
    file["id"].as_str().expect("id").to_owned()
}

#[test]
fn what_is_kept_is_listed_by_reference_and_precision() {
    let server = Server::start();
    assert_eq!(ids(&server.get("/v1/reference_scores").ok()).len(), 0);
    let file = with_scores(&server);
    let list = server.get("/v1/reference_scores").ok();
    let smol = format!("sha256:{}", "0".repeat(64));
    let expected = [format!("{smol}:bfloat16"), "sha256:gone:float32".to_owned(), format!("{smol}:float32")];
    assert_eq!(ids(&list), expected);
    let newest = &list["data"][0];
    assert_eq!((&newest["object"], &newest["models"]), (&json!("reference_scores"), &json!(["smol"])));
    assert_eq!((&newest["reference"], &newest["precision"]), (&json!(smol), &json!("bfloat16")));
    let counts = ["n_scores", "n_hits", "last_used_at", "n_datasets"].map(|name| newest[name].as_u64());
    assert_eq!(counts, [Some(8), Some(5), Some(1_800_000_000), Some(1)]);
    let dataset = &newest["datasets"][0];
    // The job's file has the same content: both uploads are named, the newest first.
    assert_eq!((&dataset["n_rows"], dataset["files"].as_array().map(Vec::len)), (&json!(8), Some(2)));
    assert_eq!(dataset["files"][1], json!({"id": file, "filename": "pairs.jsonl"}));
    let unused = &list["data"][2];
    assert_eq!((&unused["n_hits"], &unused["last_used_at"]), (&json!(0), &json!(null)));
    assert_eq!(list["data"][1]["models"], json!([]));
}

#[test]
fn the_list_is_paged_and_filtered() {
    let server = Server::start();
    with_scores(&server);
    let get = |query: &str| server.get(&format!("/v1/reference_scores?{query}"));
    let first = get("limit=2").ok();
    assert_eq!((ids(&first).len(), &first["has_more"]), (2, &json!(true)));
    let after = first["last_id"].as_str().expect("id");
    assert_eq!(ids(&get(&format!("after={after}")).ok()).len(), 1);
    assert_eq!(ids(&get("model=smol").ok()).len(), 2);
    assert_eq!(ids(&get("model=pending").ok()).len(), 0);
    get("model=nobody").error(404, "model_not_found");
    get("model=a%2Fb").error(404, "model_not_found");
    get("after=nobody").error(400, "unknown_cursor");
    get("after=sha256:gone:bfloat16").error(400, "unknown_cursor");
    get("limit=0").error(400, "invalid_query");
    get("modell=smol").error(400, "invalid_query");
}

#[test]
fn deleting_takes_every_precision_and_no_other_reference() {
    let server = Server::start();
    with_scores(&server);
    server.delete("/v1/reference_scores").error(400, "invalid_query");
    server.delete("/v1/reference_scores?model=nobody").error(404, "model_not_found");
    assert_eq!(server.delete("/v1/reference_scores?model=pending").ok()["n_scores"], 0);
    let deleted = server.delete("/v1/reference_scores?model=smol").ok();
    assert_eq!(deleted, json!({"object": "reference_scores", "deleted": true, "model": "smol", "n_scores": 16}));
    assert_eq!(ids(&server.get("/v1/reference_scores").ok()), ["sha256:gone:float32"]);
    assert_eq!(server.delete("/v1/reference_scores?model=smol").ok()["n_scores"], 0);
}

#[test]
fn a_job_tells_what_its_references_have_cost() {
    let server = Server::start();
    let job = format!("/v1/fine_tuning/jobs/{}", server.add_job());
    assert_eq!(server.get(&job).ok()["reference_scores"], json!(null));
    let cost = json!({"n_known": 3, "n_computed": 5, "duration_ms": 12.5});
    server.execute("update jobs set reference_scores = ?", &[&cost.to_string()]);
    assert_eq!(server.get(&job).ok()["reference_scores"], cost);
}
