//! Tests of the training half that need more than one room of it, or files from outside the repository.

mod fake_server;
mod families;
mod given_scores;
mod golden;
mod gradients;
mod hub;
mod methods;
mod oracle;
mod parity;
mod remote;
mod resume;
mod sampling;
mod scores;
mod step;
mod stops;
mod text;
mod tiny;
mod token_spans;
mod world;
