//! A webhook of the server as it is shipped: tested, told, and told again after a kill.

use serde_json::json;

use crate::{
    receiver::{Receiver, Reply},
    server::{Server, text, wait_until},
};

#[test]
fn a_kill_in_the_middle_neither_loses_nor_renames_what_a_webhook_is_told() {
    let receiver = Receiver::start(&[Reply::Status(418, ""), Reply::Silence]);
    let mut server = Server::start_with(&["--allow-webhook", &receiver.address]);
    let types = ["fine_tuning.job.cancelled", "fine_tuning.job.succeeded"];
    let made = json!({"name": "mine", "url": receiver.url(), "event_types": types});
    let made = server.post("/v1/webhook_endpoints", &made).ok();
    let webhook = format!("/v1/webhook_endpoints/{}", text(&made["id"]));
    let test = server.post(&format!("{webhook}/test"), &json!({"event_type": types[1]})).ok();
    assert_eq!((&test["status_code"], &test["success"]), (&json!(418), &json!(true)), "{test}");

    let [training, _] = server.with_model_and_files(4, 20);
    let job = json!({"model": "tiny", "training_file": training, "method": {"type": "dpo"}});
    let job = server.job(&job);
    server.post(&format!("{job}/cancel"), &json!({})).ok();
    wait_until("the webhook is told", || receiver.received().len() == 2);
    server.kill();
    receiver.hang_up();
    server.start_again();

    let deliveries = server.until(&format!("{webhook}/deliveries"), |list| list["data"][0]["status"] == "delivered");
    let delivery = &deliveries["data"][0];
    assert_eq!((&delivery["n_attempts"], &delivery["status_code"]), (&json!(2), &json!(200)));
    assert!(job.ends_with(text(&delivery["job_id"])), "{delivery}");
    assert_eq!(receiver.received()[2].json()["data"]["id"], delivery["job_id"]);
    // A test is sent once, whatever the answer.
    assert_eq!((&deliveries["data"][1]["status"], &deliveries["data"][1]["id"]), (&json!("failed"), &test["event_id"]));
    let received = receiver.received();
    assert_eq!(received.len(), 3);
    assert_eq!(received[1].body, received[2].body);
    assert!(received.iter().all(|request| request.n_signatures_by(text(&made["signing_secret"])) == 1));
    assert_eq!(received[2].header("webhook-id"), text(&delivery["id"]));
}
