//! The whole service as it is shipped: `mrpo serve` as a child, real runs of a tiny model, and a client.

mod api_docs;
mod backups;
mod doctor;
mod dry_runs;
mod exports;
mod gpt2;
mod previews;
#[path = "../worker/receiver.rs"]
mod receiver;
mod refusals;
mod secrets;
mod server;
mod spans;
mod stories;
#[path = "../training/tiny.rs"]
mod tiny;
mod tls;
mod webhooks;
