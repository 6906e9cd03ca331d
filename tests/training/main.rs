//! Tests of the training half that need more than one room of it, or files from outside the repository.

mod exports;
mod fake_server;
mod families;
mod ggml_vocabs;
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
mod sentence_piece;
mod step;
mod stops;
mod text;
mod tiny;
mod token_spans;
mod world;
