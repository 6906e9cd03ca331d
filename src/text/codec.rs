//! One model's way from text to tokens and back: its tokenizer, its special tokens, its chat template.

use std::{ops::Range, path::Path};

use sha2::{Digest, Sha256};
use tokenizers::{ModelWrapper, Tokenizer};

use super::{
    encoded_pair::EncodedPair,
    error::TextError,
    gguf, huggingface,
    in_spans::in_spans,
    parts::{Parts, SpecialToken},
    render, save,
    template::ChatTemplate,
};
use crate::{
    dataset::{PreferencePair, Prompt},
    domain::{ModelLocation, Sides, WeightsFormat},
};

/// A model's tokenizer, special tokens and chat template.
#[derive(Debug)]
pub struct Codec {
    /// For rendered templates: special tokens in the text are recognised.
    of_template: Tokenizer,
    /// For what people wrote: text that looks like a special token stays text.
    of_text: Tokenizer,
    bos: Option<SpecialToken>,
    starts_with_bos: bool,
    eos: Option<SpecialToken>,
    /// Ends a completion.
    end_id: u32,
    stop_ids: Vec<u32>,
    template: Option<ChatTemplate>,
    vocab_size: usize,
    /// The Hugging Face directory it was read from.
    source: Option<std::path::PathBuf>,
}

/// What tells one model's text from another's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextIdentity {
    /// The kind of tokenizer, in words.
    pub kind: &'static str,
    /// One more than the highest id.
    pub vocab_size: usize,
    /// Digest of all of the tokenizer.
    pub tokenizer: [u8; 32],
    /// Digest of the chat template, where there is one.
    pub template: Option<[u8; 32]>,
    /// The token that begins a text.
    pub bos: Option<String>,
    /// The token that ends one.
    pub eos: Option<String>,
    /// The token that ends a completion.
    pub end_of_turn: String,
}

impl Codec {
    /// Reads the text part of a model: of a GGUF file the metadata only, never the tensors.
    pub fn load(location: &ModelLocation) -> Result<Self, TextError> {
        match location.format {
            WeightsFormat::Huggingface => {
                Self::new(huggingface::load(&location.weights)?, Some(location.weights.clone()))
            }
            WeightsFormat::Gguf => Self::new(gguf::load(&location.weights)?, None),
            WeightsFormat::Scores | WeightsFormat::Remote => Err(TextError::Invalid(WeightsFormat::NOT_A_MODEL.into())),
        }
    }

    fn new(parts: Parts, source: Option<std::path::PathBuf>) -> Result<Self, TextError> {
        let Parts { mut tokenizer, bos, starts_with_bos, eos, stop_ids, template } = parts;
        let failed = |e: tokenizers::Error| TextError::Tokenizer(e.to_string());
        tokenizer.with_truncation(None).map_err(failed)?;
        tokenizer.with_padding(None);
        // It would add BOS (we do, or the template does) and trim the offsets that cuts are made at.
        tokenizer.with_post_processor(None::<tokenizers::PostProcessorWrapper>);
        let mut of_text = tokenizer.clone();
        of_text.set_encode_special_tokens(true);
        let template = template.map(|source| ChatTemplate::new(&source, bos.as_ref(), eos.as_ref())).transpose()?;
        let vocab_size = tokenizer.get_vocab(true).into_values().max().map_or(0, |id| id as usize + 1);
        let end_id = match &template {
            Some(template) => end_of_turn(template, &tokenizer, &stop_ids)?,
            None => None,
        }
        .or(eos.as_ref().map(|t| t.id))
        .ok_or_else(|| {
            TextError::Unsupported(
                "the tokenizer names no end-of-sequence token, so a completion could not be ended: name eos_token in \
                 tokenizer_config.json"
                    .into(),
            )
        })?;
        let mut codec = Self {
            of_template: tokenizer,
            of_text,
            starts_with_bos: starts_with_bos && bos.is_some(),
            bos,
            eos,
            end_id,
            stop_ids,
            template,
            vocab_size,
            source,
        };
        codec.stop_ids.push(end_id);
        codec.stop_ids.sort_unstable();
        codec.stop_ids.dedup();
        Ok(codec)
    }

    /// Whether the model has a chat template; without one the plain format of [`Codec::render_prompt`] is used.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// Whether the template takes anything at all: a question, a question under a system prompt, or a second question.
    ///
    /// # Errors
    /// [`TextError::Template`] with what it says to the first, where it refuses all three.
    pub fn check_template(&self) -> Result<(), TextError> {
        self.template.as_ref().map_or(Ok(()), render::check)
    }

    /// What tells this model's text from another's.
    pub fn identity(&self) -> Result<TextIdentity, TextError> {
        let kind = match self.of_template.get_model() {
            ModelWrapper::BPE(bpe) if bpe.byte_fallback => "SentencePiece BPE",
            ModelWrapper::BPE(_) => "byte-level BPE",
            ModelWrapper::Unigram(_) => "unigram",
            ModelWrapper::WordPiece(_) => "WordPiece",
            ModelWrapper::WordLevel(_) => "words",
        };
        let tokenizer = self.of_template.to_string(false).map_err(|e| TextError::Tokenizer(e.to_string()))?;
        Ok(TextIdentity {
            kind,
            vocab_size: self.vocab_size,
            tokenizer: Sha256::digest(tokenizer).into(),
            template: self.template.as_ref().map(|template| Sha256::digest(template.source()).into()),
            bos: self.bos.as_ref().map(|token| token.text.clone()),
            eos: self.eos.as_ref().map(|token| token.text.clone()),
            end_of_turn: self.end_text(),
        })
    }

    /// One more than the highest id the tokenizer can give.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Every token that ends a generation, in order.
    pub fn eos_ids(&self) -> &[u32] {
        &self.stop_ids
    }

    /// The prompt as this model reads it, up to where the assistant begins to speak.
    ///
    /// With a template: as the template writes it (system prompt and BOS included, where it writes them), a text being one
    /// user message. Without: a text as it is; messages as `{role}:\n{content}\n\n` each, then `assistant:\n`.
    pub fn render_prompt(&self, prompt: &Prompt) -> Result<String, TextError> {
        render::prompt(self.template.as_ref(), prompt)
    }

    /// A rendered prompt without the token that begins a text, where the tokenizer puts that there itself.
    pub fn without_bos<'a>(&self, rendered: &'a str) -> &'a str {
        match &self.bos {
            Some(bos) if self.starts_with_bos => rendered.strip_prefix(bos.text.as_str()).unwrap_or(rendered),
            _ => rendered,
        }
    }

    /// The text of the token that ends a completion.
    pub fn end_text(&self) -> String {
        self.of_template.id_to_token(self.end_id).unwrap_or_default()
    }

    /// The prompt's tokens. A template's text may name special tokens, the BOS among them; without a template BOS is put
    /// before the text where the tokenizer has one.
    pub fn encode_prompt(&self, prompt: &Prompt) -> Result<Vec<u32>, TextError> {
        Ok(self.prompt_tokens(prompt)?.ids)
    }

    /// The tokens of a completion and the one that ends it. Text that looks like a special token is encoded as text.
    pub fn encode_completion(&self, completion: &str) -> Result<Vec<u32>, TextError> {
        let encoding = self.of_text.encode_fast(completion, false).map_err(|e| TextError::Tokenizer(e.to_string()))?;
        let mut ids = encoding.get_ids().to_vec();
        ids.push(self.end_id);
        Ok(ids)
    }

    /// A pair's prompt and its completions, and which of their tokens its spans touch.
    pub fn encode_pair(&self, pair: &PreferencePair) -> Result<EncodedPair, TextError> {
        let prompt = self.prompt_tokens(&pair.prompt)?;
        let reference_response = pair.extra.reference_response.as_deref();
        let in_spans = pair.extra.spans.as_ref().map(|spans| -> Result<_, TextError> {
            Ok(Sides {
                chosen: self.in_spans(&pair.chosen, &spans.chosen)?,
                rejected: self.in_spans(&pair.rejected, &spans.rejected)?,
            })
        });
        Ok(EncodedPair {
            prompt: prompt.ids,
            prompt_starts: prompt.starts,
            prompt_n_chars: prompt.n_chars,
            starts_with_bos: prompt.starts_with_bos,
            chosen: self.encode_completion(&pair.chosen)?,
            rejected: self.encode_completion(&pair.rejected)?,
            reference_response: reference_response.map(|text| self.encode_completion(text)).transpose()?,
            in_spans: in_spans.transpose()?,
        })
    }

    /// The text of some tokens, special ones left out.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        self.of_template.decode(ids, true).map_err(|e| TextError::Tokenizer(e.to_string()))
    }

    /// A token's entry in the vocabulary, and the text it stands for on its own.
    pub fn token(&self, id: u32) -> Result<(String, String), TextError> {
        let piece = self.of_template.id_to_token(id).unwrap_or_default();
        let text = self.of_template.decode(&[id], false).map_err(|e| TextError::Tokenizer(e.to_string()))?;
        Ok((piece, text))
    }

    /// Writes the tokenizer files of a Hugging Face directory into `directory`: copied where the model has them, else made.
    pub fn save(&self, directory: &Path) -> Result<(), TextError> {
        match &self.source {
            Some(source) => save::copy(source, directory),
            None => save::write(
                &self.of_template,
                &save::Config {
                    bos: self.bos.as_ref(),
                    starts_with_bos: self.starts_with_bos,
                    eos: self.eos.as_ref(),
                    stop_ids: &self.stop_ids,
                    template: self.template.as_ref().map(ChatTemplate::source),
                },
                directory,
            ),
        }
    }

    /// Which tokens of a completion, the one that ends it included, its spans touch.
    fn in_spans(&self, completion: &str, spans: &[Range<usize>]) -> Result<Vec<bool>, TextError> {
        let encoding =
            self.of_text.encode_char_offsets(completion, false).map_err(|e| TextError::Tokenizer(e.to_string()))?;
        Ok(in_spans(encoding.get_offsets(), completion.chars().count(), spans))
    }

    fn prompt_tokens(&self, prompt: &Prompt) -> Result<PromptTokens, TextError> {
        let text = self.render_prompt(prompt)?;
        let tokenizer = if self.template.is_some() { &self.of_template } else { &self.of_text };
        let encoding =
            tokenizer.encode_char_offsets(text.as_str(), false).map_err(|e| TextError::Tokenizer(e.to_string()))?;
        let mut ids = encoding.get_ids().to_vec();
        let mut starts: Vec<usize> = encoding.get_offsets().iter().map(|(start, _)| *start).collect();
        if self.template.is_none()
            && self.starts_with_bos
            && let Some(bos) = &self.bos
        {
            ids.insert(0, bos.id);
            starts.insert(0, 0);
        }
        let starts_with_bos = ids.first().is_some_and(|first| self.bos.as_ref().is_some_and(|bos| bos.id == *first));
        Ok(PromptTokens { ids, starts, n_chars: text.chars().count(), starts_with_bos })
    }
}

/// A prompt's tokens, with the fields of [`EncodedPair`].
struct PromptTokens {
    ids: Vec<u32>,
    starts: Vec<usize>,
    n_chars: usize,
    starts_with_bos: bool,
}

/// The token a template writes after an assistant's message, if it is one with a meaning of its own.
///
/// The template is asked, not the tokenizer: base models are published with `ChatML` templates and an `eos_token` that ends
/// documents, and Llama 3's `eos_token` differs from the `<|eot_id|>` that ends its turns.
fn end_of_turn(template: &ChatTemplate, tokenizer: &Tokenizer, stop_ids: &[u32]) -> Result<Option<u32>, TextError> {
    const PROBE: &str = "mrpoprobe";
    // A template may refuse the probe for its own reasons; the end-of-sequence token is then the best guess.
    let Ok(text) = render::exchange(template, "question", PROBE) else { return Ok(None) };
    let Some(at) = text.rfind(PROBE) else { return Ok(None) };
    let after = text[at + PROBE.len()..].trim_start();
    let encoding = tokenizer.encode_fast(after, false).map_err(|e| TextError::Tokenizer(e.to_string()))?;
    let first = encoding.get_ids().first().copied();
    let added = tokenizer.get_added_tokens_decoder();
    Ok(first.filter(|id| stop_ids.contains(id) || added.get(id).is_some_and(|token| token.special)))
}
