//! The families of models, one file each: what its `config.json` and GGUF metadata say, and what its weights are called.
//!
//! A family is data: the layers that compute are the same for all.

mod gemma;
mod gpt2;
mod gpt_neox;
pub(super) mod keys;
mod llama;
pub(super) mod metadata;
mod mistral;
mod phi3;
mod qwen;
pub(super) mod settings;

use candle_core::Tensor;
use keys::Keys;
use metadata::Metadata;
use serde_json::{Map, Value};
use settings::Settings;

use super::{ModelConfig, ModelError};
use crate::domain::TargetModule;

/// All that can be trained and scored.
pub static FAMILIES: [&Family; 9] = [
    &llama::LLAMA,
    &mistral::MISTRAL,
    &qwen::QWEN2,
    &qwen::QWEN3,
    &gemma::GEMMA2,
    &gemma::GEMMA3,
    &phi3::PHI3,
    &gpt2::GPT2,
    &gpt_neox::GPT_NEOX,
];

/// How activations are normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// Root mean square, times the weight (arXiv 1910.07467).
    Rms,
    /// Root mean square, times 1 + the weight (Gemma's).
    RmsPlusOne,
    /// Mean and variance, times the weight, plus a bias (arXiv 1607.06450).
    Layer,
}

/// A place in a model that has a weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the layers' own")]
pub enum Part {
    Embedding,
    /// Learned embedding of positions.
    Positions,
    FinalNorm,
    Head,
    AttentionNorm,
    Q,
    K,
    V,
    /// Queries, keys and values in one.
    Qkv,
    QNorm,
    KNorm,
    O,
    PostAttentionNorm,
    MlpNorm,
    Gate,
    Up,
    /// Gate and up in one.
    GateUp,
    Down,
    PostMlpNorm,
}

impl Part {
    /// Whether every block has one.
    pub(super) fn is_of_block(self) -> bool {
        !matches!(self, Self::Embedding | Self::Positions | Self::FinalNorm | Self::Head)
    }
}

/// What a part is called: in Hugging Face's files, and in GGUF; within its block, if it is one of a block.
#[derive(Debug)]
pub(super) struct Name {
    pub(super) part: Part,
    pub(super) hf: &'static str,
    pub(super) gguf: &'static str,
}

/// Shorthand of the tables of names.
const fn name(part: Part, hf: &'static str, gguf: &'static str) -> Name {
    Name { part, hf, gguf }
}

/// A family of models.
#[derive(Debug)]
pub struct Family {
    /// What `config.json` calls it in `architectures`.
    pub architecture: &'static str,
    /// ... and in `model_type`.
    pub model_type: &'static str,
    /// What llama.cpp calls it; `None` where it writes the family's models as another's.
    pub gguf: Option<&'static str>,
    pub(super) norm: NormKind,
    /// Whether the matrices of its blocks are stored (in, out) in Hugging Face's files.
    pub(super) stores_transposed: bool,
    /// Whether a head's query, key and value lie side by side in the fused layer, and not all queries, all keys, all values.
    pub(super) is_fused_by_head: bool,
    pub(super) is_tied_by_default: bool,
    /// What the names of its blocks begin with in Hugging Face's files.
    pub(super) blocks: &'static str,
    /// The parts it has.
    pub(super) names: &'static [Name],
    /// Reads what is its own.
    pub(super) read: fn(&mut ModelConfig, &Settings) -> Result<(), ModelError>,
    /// Adds what is its own to the `config.json` of a GGUF file.
    pub(super) add_json: fn(&Metadata<'_>, &mut Map<String, Value>) -> Result<(), ModelError>,
    /// Turns a GGUF file's tensor into Hugging Face's.
    pub(super) from_gguf: fn(&ModelConfig, Part, Tensor) -> candle_core::Result<Tensor>,
    /// Turns it back.
    pub(super) to_gguf: fn(&ModelConfig, Part, Tensor) -> candle_core::Result<Tensor>,
    /// Adds what is its own to a GGUF file's metadata.
    pub(super) add_keys: fn(&ModelConfig, &mut Keys) -> Result<(), ModelError>,
}

impl PartialEq for Family {
    fn eq(&self, other: &Self) -> bool {
        self.architecture == other.architecture
    }
}

impl Family {
    /// The family `config.json` names.
    ///
    /// # Errors
    /// Names the supported ones.
    pub fn of_architecture(name: &str) -> Result<&'static Self, ModelError> {
        Self::find(name, |family| family.architecture == name)
    }

    /// The family a GGUF file names.
    ///
    /// # Errors
    /// Names the supported ones.
    pub(super) fn of_gguf(name: &str) -> Result<&'static Self, ModelError> {
        Self::find(name, |family| family.gguf == Some(name))
    }

    fn find(name: &str, is_it: impl Fn(&Self) -> bool) -> Result<&'static Self, ModelError> {
        FAMILIES.into_iter().find(|family| is_it(family)).ok_or_else(|| {
            let all = FAMILIES.map(|family| match family.gguf {
                Some(gguf) => format!("{} (GGUF: {gguf})", family.architecture),
                None => family.architecture.to_owned(),
            });
            ModelError::Unsupported(format!(
                "the architecture '{name}' is not supported; supported: {}",
                all.join(", ")
            ))
        })
    }

    /// The family its models are in a GGUF file.
    pub(super) fn in_gguf(&'static self) -> &'static Self {
        if self.gguf.is_some() { self } else { &llama::LLAMA }
    }

    /// Whether queries, keys and values are one layer.
    pub(super) fn is_fused(&self) -> bool {
        self.names.iter().any(|name| name.part == Part::Qkv)
    }

    /// The Hugging Face name of a part's layer, without `.weight` or `.bias`.
    pub(super) fn hf_name(&self, part: Part, layer: usize) -> String {
        let name = self.names.iter().find(|name| name.part == part).expect("asked of parts it has").hf;
        if part.is_of_block() { format!("{}.{layer}.{name}", self.blocks) } else { name.to_owned() }
    }

    /// The part, the layer and the Hugging Face name of a GGUF file's tensor.
    pub(super) fn of_gguf_tensor(&self, tensor: &str) -> Option<(Part, String)> {
        let (path, kind) = tensor.rsplit_once('.').filter(|(_, kind)| ["weight", "bias"].contains(kind))?;
        let (layer, path) = match path.strip_prefix("blk.").and_then(|path| path.split_once('.')) {
            Some((layer, path)) => (Some(layer.parse::<usize>().ok()?), path),
            None => (None, path),
        };
        let is_it = |name: &&Name| name.gguf == path && name.part.is_of_block() == layer.is_some();
        let part = self.names.iter().find(is_it)?.part;
        Some((part, format!("{}.{kind}", self.hf_name(part, layer.unwrap_or(0)))))
    }

    /// The block a Hugging Face name belongs to, counted from 0.
    pub(super) fn layer_of(&self, hf_name: &str) -> Option<usize> {
        hf_name.strip_prefix(self.blocks)?.strip_prefix('.')?.split_once('.')?.0.parse().ok()
    }

    /// The name in GGUF files of the tensor with this Hugging Face name.
    pub(super) fn gguf_tensor(&self, hf_name: &str) -> Option<String> {
        let part = self.part_of(hf_name)?;
        let gguf = self.names.iter().find(|name| name.part == part)?.gguf;
        let kind = hf_name.rsplit_once('.')?.1;
        Some(match self.layer_of(hf_name) {
            Some(layer) => format!("blk.{layer}.{gguf}.{kind}"),
            None => format!("{gguf}.{kind}"),
        })
    }

    /// The name the weights are known by here of one in a Hugging Face file: some files leave out what all names begin with.
    pub(super) fn full_name(&self, name: &str) -> String {
        let Some((root, blocks)) = self.blocks.split_once('.') else { return name.to_owned() };
        let is_short = |short: &str| name.strip_prefix(short).is_some_and(|rest| rest.starts_with('.'));
        let tops = self.names.iter().filter(|name| !name.part.is_of_block());
        let mut shorts = tops.filter_map(|top| top.hf.strip_prefix(root)?.strip_prefix('.'));
        if is_short(blocks) || shorts.any(is_short) { format!("{root}.{name}") } else { name.to_owned() }
    }

    /// Whether a part's weight is stored (in, out) in Hugging Face's files.
    pub(super) fn is_stored_transposed(&self, part: Part) -> bool {
        self.stores_transposed && matches!(part, Part::Qkv | Part::O | Part::Up | Part::Down)
    }

    /// The part a Hugging Face name belongs to.
    pub(super) fn part_of(&self, hf_name: &str) -> Option<Part> {
        let path = hf_name.rsplit_once('.')?.0;
        let in_block = path.strip_prefix(self.blocks).and_then(|p| p.strip_prefix('.')).and_then(|p| p.split_once('.'));
        let is_it = |name: &&Name| match in_block {
            Some((_, path)) => name.part.is_of_block() && name.hf == path,
            None => !name.part.is_of_block() && name.hf == path,
        };
        self.names.iter().find(is_it).map(|name| name.part)
    }

    /// The LoRA target a part's layer is, if it is one.
    pub(super) fn target_of(&self, part: Part) -> Option<TargetModule> {
        let name = self.names.iter().find(|name| name.part == part && part.is_of_block())?;
        TargetModule::of_name(name.hf.rsplit('.').next()?)
    }

    /// All LoRA targets its models have, in the order of a block.
    pub fn targets(&self) -> Vec<TargetModule> {
        let mut targets = Vec::new();
        for target in self.names.iter().filter_map(|name| self.target_of(name.part)) {
            if !targets.contains(&target) {
                targets.push(target);
            }
        }
        targets
    }
}

/// The windows of all layers, where some see a window only; `is_local` where `layer_types` does not say.
fn set_windows(
    config: &mut ModelConfig,
    settings: &Settings,
    is_local: impl Fn(usize) -> bool,
) -> Result<(), ModelError> {
    let window = settings.optional_whole("sliding_window")?;
    let listed = settings.are_local(config.layers.len())?;
    for (i, layer) in config.layers.iter_mut().enumerate() {
        let is_local = listed.as_ref().map_or_else(|| is_local(i), |listed| listed[i]);
        layer.window = window.filter(|_| is_local);
    }
    Ok(())
}

/// For families without settings of their own in GGUF.
#[expect(clippy::unnecessary_wraps, reason = "the signature of all families")]
fn nothing_to_add(_: &Metadata<'_>, _: &mut Map<String, Value>) -> Result<(), ModelError> {
    Ok(())
}

/// For families that GGUF's general keys describe.
#[expect(clippy::unnecessary_wraps, reason = "the signature of all families")]
fn no_keys(_: &ModelConfig, _: &mut Keys) -> Result<(), ModelError> {
    Ok(())
}

/// For families whose tensors are the same in GGUF.
#[expect(clippy::unnecessary_wraps, reason = "the signature of all families")]
fn as_it_is(_: &ModelConfig, _: Part, tensor: Tensor) -> candle_core::Result<Tensor> {
    Ok(tensor)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{TargetChoice, TargetModules};

    #[test]
    fn names_are_found_both_ways() {
        for family in FAMILIES {
            for name in family.names {
                let hf = format!("{}.weight", family.hf_name(name.part, 3));
                assert_eq!(family.part_of(&hf), Some(name.part), "{hf}");
                assert_eq!(family.full_name(&hf), hf);
                let gguf = if name.part.is_of_block() { format!("blk.3.{}", name.gguf) } else { name.gguf.to_owned() };
                let gguf = format!("{gguf}.weight");
                assert_eq!(family.gguf_tensor(&hf), Some(gguf.clone()));
                assert_eq!(family.of_gguf_tensor(&gguf), Some((name.part, hf)), "{gguf}");
            }
            let all = TargetModules::ByArchitecture(TargetChoice::AllLinear);
            assert_eq!(all.of_architecture(family.architecture), Ok(family.targets()));
        }
        assert_eq!(gpt2::GPT2.full_name("h.0.ln_1.weight"), "transformer.h.0.ln_1.weight");
        assert_eq!(gpt2::GPT2.full_name("wte.weight"), "transformer.wte.weight");
        assert_eq!(gpt2::GPT2.full_name("lm_head.weight"), "lm_head.weight");
        assert_eq!(llama::LLAMA.of_gguf_tensor("blk.0.attn_qkv.weight"), None);
    }
}
