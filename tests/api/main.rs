//! The API as a client sees it: a real server on a free port, a temporary data directory, no worker.

mod checkpoints;
mod datasets;
mod disk;
mod errors;
mod exports;
mod files;
mod forms;
mod given_scores;
mod health;
mod hostile;
mod jobs;
mod live;
mod methods;
mod models;
mod objectives;
mod people;
mod queue;
mod reference_lists;
mod reference_scores;
mod repeats;
mod support;
mod tensorboard;
mod uploads;
mod webhooks;
