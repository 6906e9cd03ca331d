//! The queue: real SQLite, real worker, real processes where a process matters.

mod disk;
mod expiry;
mod exports;
mod migrations;
mod processes;
mod queue;
mod receiver;
mod records;
mod restart;
mod results;
mod retention;
mod scores;
mod store;
mod stories;
mod webhooks;
mod world;
