//! `llama` and `gemma4`: SentencePiece's BPE. No words are cut: a space is the character ▁ and pairs are joined across it.

use tokenizers::{
    DecoderWrapper, NormalizerWrapper, Tokenizer,
    decoders::{byte_fallback::ByteFallback, fuse::Fuse, sequence::Sequence as Decoders, strip::Strip},
    models::bpe::{BPE, Merges, Vocab},
    normalizers::{Prepend, Replace, Sequence as Normalizers},
};

use super::{
    Kind, failed,
    metadata::Metadata,
    vocabulary::{TokenKind, Vocabulary, merges},
};
use crate::text::error::TextError;

/// How a space is written.
const SPACE: &str = "▁";

/// A tokenizer whose pieces have scores: of all neighbours that make a piece, the one with the highest score is joined first.
pub(super) fn scored(metadata: &Metadata<'_>) -> Result<Kind, TextError> {
    let vocabulary = Vocabulary::read(metadata)?;
    let scores = metadata.numbers("tokenizer.ggml.scores")?;
    if scores.len() != vocabulary.tokens.len() {
        let (n, m) = (vocabulary.tokens.len(), scores.len());
        return Err(TextError::Invalid(format!("the GGUF file has {n} tokens and {m} scores")));
    }
    let ids = vocabulary.ids();
    let merges = if scores.iter().any(|score| *score != scores[0]) {
        merges_by_score(&vocabulary, &ids, &scores)
    } else if metadata.get("tokenizer.ggml.merges").is_some() {
        // Converters that know the merges and no scores write one score for all.
        merges(metadata)?
    } else {
        return Err(TextError::Invalid(
            "all tokens of the GGUF file have the same score, which leaves no order to join them in: use the model's \
             Hugging Face directory, which has a tokenizer.json"
                .into(),
        ));
    };
    let starts_with_space = metadata.flag("tokenizer.ggml.add_space_prefix").unwrap_or(true);
    // Phi 3's special tokens take the white space behind them along, which GGUF has no way to say.
    let takes_space_after = metadata.text_or_empty("general.architecture") == "phi3";
    let mut tokenizer = tokenizer(&vocabulary, ids, merges, starts_with_space)?;
    vocabulary.add_to(&mut tokenizer, takes_space_after)?;
    Ok(Kind { tokenizer, bos_id: Some(1), eos_id: Some(2) })
}

/// The same with a list of merges in place of scores, as Gemma 4 has it.
pub(super) fn merged(metadata: &Metadata<'_>) -> Result<Kind, TextError> {
    let vocabulary = Vocabulary::read(metadata)?;
    let mut tokenizer = tokenizer(&vocabulary, vocabulary.ids(), merges(metadata)?, false)?;
    vocabulary.add_to(&mut tokenizer, false)?;
    Ok(Kind { tokenizer, bos_id: None, eos_id: None })
}

fn tokenizer(
    vocabulary: &Vocabulary<'_>,
    ids: Vocab,
    merges: Merges,
    starts_with_space: bool,
) -> Result<Tokenizer, TextError> {
    let n_bytes = vocabulary.kinds.iter().filter(|kind| **kind == TokenKind::Byte).count();
    if n_bytes != 256 {
        return Err(TextError::Unsupported(format!(
            "the GGUF file has {n_bytes} tokens for bytes in place of 256, so that some text has no tokens: use the \
             model's Hugging Face directory, which has a tokenizer.json"
        )));
    }
    let bpe = BPE::builder().vocab_and_merges(ids, merges).byte_fallback(true).fuse_unk(true);
    let mut tokenizer = Tokenizer::new(bpe.build().map_err(|e| TextError::Invalid(e.to_string()))?);

    let mut normalizers: Vec<NormalizerWrapper> = vec![Replace::new(" ", SPACE).map_err(failed)?.into()];
    let mut decoders: Vec<DecoderWrapper> =
        vec![Replace::new(SPACE, " ").map_err(failed)?.into(), ByteFallback::new().into(), Fuse::new().into()];
    if starts_with_space {
        // Before every stretch of text between added tokens, as the models were trained.
        normalizers.insert(0, Prepend::new(SPACE.into()).into());
        decoders.push(Strip::new(' ', 1, 0).into());
    }
    tokenizer.with_normalizer(Some(Normalizers::new(normalizers))).map_err(failed)?;
    tokenizer.with_decoder(Some(Decoders::new(decoders)));
    Ok(tokenizer)
}

/// Every way to make a piece out of two others, the piece with the highest score first.
///
/// Where scores are equal SentencePiece joins the leftmost neighbours first and so lets a run of spaces grow from its left:
/// the longest left half comes first. Special tokens are no pieces: a text that spells one must not become it.
fn merges_by_score(vocabulary: &Vocabulary<'_>, ids: &Vocab, scores: &[f32]) -> Merges {
    let is_piece = |id: usize| matches!(vocabulary.kinds[id], TokenKind::Normal | TokenKind::UserDefined);
    let is_known = |text: &str| ids.get(text).is_some_and(|id| is_piece(*id as usize));
    let mut pieces: Vec<usize> = (0..scores.len()).filter(|id| is_piece(*id)).collect();
    pieces.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
    let mut merges: Vec<(f32, &str, &str)> = Vec::new();
    for id in pieces {
        let piece = vocabulary.tokens[id];
        for (at, _) in piece.char_indices().skip(1) {
            let (left, right) = piece.split_at(at);
            if is_known(left) && is_known(right) {
                merges.push((scores[id], left, right));
            }
        }
    }
    // Nearly in order already, which makes this cheap.
    merges.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.len().cmp(&a.1.len())).then(b.2.len().cmp(&a.2.len())));
    merges.into_iter().map(|(_, left, right)| (left.to_owned(), right.to_owned())).collect()
}
