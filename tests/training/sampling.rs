//! Sampling with kept keys and values says what reading the whole text again for every token says.

use mrpo::{
    domain::Dtype,
    model::{Decoder, Tuning, Weights, generate_greedy},
};

use crate::tiny;

#[test]
fn a_token_at_a_time_is_the_text_as_a_whole() {
    let directory = tempfile::tempdir().expect("temp dir");
    let weights = Weights::load(&tiny::write_model(directory.path(), 3), Dtype::Float32).expect("loaded");
    let (decoder, parameters) = Decoder::new(weights, &Tuning::Frozen, Dtype::Float32).expect("built");
    let at_once = generate_greedy(&decoder, &parameters, &[1, 2, 3], &[], 70).expect("computed");
    assert_eq!(at_once.len(), 70);
    let mut text = vec![1, 2, 3];
    for token in &at_once {
        let next = generate_greedy(&decoder, &parameters, &text, &[], 1).expect("computed");
        assert_eq!(next, [*token], "after {} tokens", text.len());
        text.extend(next);
    }
    let end = at_once[5];
    let first = at_once.iter().position(|t| *t == end).expect("it is there");
    let cut = generate_greedy(&decoder, &parameters, &[1, 2, 3], &[end], 70).expect("computed");
    assert_eq!(cut, at_once[..first]);
}
