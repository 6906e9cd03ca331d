//! The merges of a `tokenizer.json`, and the scores that say the same of pieces.

use std::collections::HashMap;

use serde_json::Value as Json;

use super::tokens::Tokens;
use crate::text::error::TextError;

/// The pairs that become one token, the first first.
pub(super) fn merges(json: &Json) -> Result<Vec<(&str, &str)>, TextError> {
    let wrong = || TextError::Invalid("tokenizer.json: model.merges is not a list of pairs".into());
    let merges = json["model"]["merges"].as_array().ok_or_else(wrong)?;
    let read = merges.iter().map(|merge| match merge.as_str() {
        Some(text) => text.split_once(' '),
        None => merge[0].as_str().zip(merge[1].as_str()),
    });
    read.collect::<Option<_>>().ok_or_else(wrong)
}

/// A score for each token: the pieces that are merged first have the highest.
///
/// Of neighbours llama.cpp joins those that make the piece with the highest score, so that pieces whose merges are mixed in the
/// list must have had the same score when the list was made.
pub(super) fn of(tokens: &Tokens, merges: &[(&str, &str)]) -> Vec<f32> {
    let pieces: Vec<String> = merges.iter().map(|(a, b)| format!("{a}{b}")).collect();
    let last: HashMap<&str, usize> = pieces.iter().enumerate().map(|(at, piece)| (piece.as_str(), at)).collect();
    let mut scores: HashMap<&str, f32> = HashMap::new();
    let (mut group, mut end) = (0, 0);
    for (at, piece) in pieces.iter().enumerate() {
        if at > end {
            group += 1;
        }
        end = end.max(last[piece.as_str()]);
        scores.insert(piece, -(group as f32));
    }
    // Nothing is merged into them.
    let lowest = -(group as f32) - 1.0;
    tokens.texts.iter().map(|text| scores.get(text.as_str()).copied().unwrap_or(lowest)).collect()
}
