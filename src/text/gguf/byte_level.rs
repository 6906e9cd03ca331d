//! `gpt2`: a byte-level BPE, whose words are cut as `tokenizer.ggml.pre` says.

use tokenizers::{Tokenizer, decoders::byte_level::ByteLevel, models::bpe::BPE};

use super::{
    Kind, failed,
    metadata::Metadata,
    pre_tokenizer,
    vocabulary::{Vocabulary, merges},
};
use crate::text::error::TextError;

pub(super) fn tokenizer(metadata: &Metadata<'_>) -> Result<Kind, TextError> {
    let rules = pre_tokenizer::by_name(metadata.text_or_empty("tokenizer.ggml.pre"))?;
    let vocabulary = Vocabulary::read(metadata)?;
    let bpe = BPE::builder().vocab_and_merges(vocabulary.ids(), merges(metadata)?).ignore_merges(rules.ignore_merges);
    let mut tokenizer = Tokenizer::new(bpe.build().map_err(|e| TextError::Invalid(e.to_string()))?);
    tokenizer.with_normalizer(rules.normalizer).map_err(failed)?;
    tokenizer.with_pre_tokenizer(Some(rules.pre_tokenizer));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    vocabulary.add_to(&mut tokenizer, false)?;
    Ok(Kind { tokenizer, bos_id: None, eos_id: None })
}
