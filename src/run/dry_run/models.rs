//! The models of a dry run: what their files say, side by side with the base's.

use std::rc::Rc;

use super::{
    super::{codecs::Codecs, references::unusable},
    lengths::PairLength,
    sample::Said,
};
use crate::{
    domain::{
        DryRunSpec, KeptCount, ReferenceFitness, ReferenceRole, ResolvedReference, ScorePrecision, TextFitness,
        WeightsFormat,
    },
    fetch::size_bytes,
    model::{Footprint, ModelFacts, Tuning, inspect, licence},
    text::{Codec, TextIdentity},
};

/// A reference, the base among them, or the policy of an earlier round.
pub(super) struct Model<'a> {
    pub(super) number: usize,
    pub(super) role: ReferenceRole,
    pub(super) reference: &'a ResolvedReference,
    pub(super) precision: ScorePrecision,
    size_bytes: u64,
    pub(super) licence: Option<String>,
    /// Of one that runs here.
    pub(super) local: Option<Local>,
}

/// What is known of a model that runs here.
pub(super) struct Local {
    pub(super) codec: Rc<Codec>,
    pub(super) text: TextIdentity,
    base_text: TextIdentity,
    pub(super) facts: ModelFacts,
    /// While it scores.
    pub(super) footprint: Footprint,
    /// The pairs of the training file, and of the validation file.
    pub(super) lengths: [Vec<PairLength>; 2],
    /// Share of the training pairs whose completions have other numbers of tokens than under the base.
    pub(super) other_count_share: f64,
}

impl<'a> Model<'a> {
    /// All models of a job; the lengths of pairs are still to be measured.
    pub(super) fn all(spec: &'a DryRunSpec, codecs: &mut Codecs) -> anyhow::Result<Vec<Self>> {
        let train = &spec.train;
        let all = || train.references.iter().chain(&train.earlier);
        codecs.load_all(all().filter(|reference| !reference.location.format.is_reference_only()))?;
        let mut models = Vec::new();
        for (number, reference) in all().enumerate() {
            let role = match number {
                0 => ReferenceRole::Base,
                n if n < train.references.len() => ReferenceRole::Reference,
                _ => ReferenceRole::Earlier,
            };
            let local = match reference.location.format {
                WeightsFormat::Scores | WeightsFormat::Remote => None,
                WeightsFormat::Huggingface | WeightsFormat::Gguf => {
                    Some(Local::read(reference, &train.references[0], spec, codecs)?)
                }
            };
            models.push(Self {
                number,
                role,
                reference,
                precision: reference.precision(&train.hyperparameters, number == 0),
                size_bytes: size_bytes(&reference.location).map_err(|e| unusable(reference, &e))?,
                licence: licence(&reference.location),
                local,
            });
        }
        Ok(models)
    }

    /// What is answered of it.
    pub(super) fn fitness(&self, kept_scores: KeptCount, said: &Said) -> ReferenceFitness {
        let facts = self.local.as_ref().map(|local| &local.facts);
        let (sample, no_sample) = match &said.fitness {
            Ok(sample) => (Some(sample.clone()), None),
            Err(why) => (None, Some(why.clone())),
        };
        ReferenceFitness {
            number: self.number as u64,
            role: self.role,
            model: self.reference.model.clone(),
            architecture: facts.map(|facts| facts.architecture.clone()),
            n_parameters: facts.map(|facts| facts.n_parameters),
            size_bytes: self.size_bytes,
            scoring_bytes: said.scoring_bytes,
            precision: self.precision,
            max_position_embeddings: facts.map(|facts| facts.max_position_embeddings),
            text: self.local.as_ref().map(Local::fitness),
            licence: self.licence.clone(),
            kept_scores,
            sample,
            no_sample,
        }
    }
}

impl Local {
    fn read(
        reference: &ResolvedReference,
        base: &ResolvedReference,
        spec: &DryRunSpec,
        codecs: &mut Codecs,
    ) -> anyhow::Result<Self> {
        let codec = codecs.of(reference)?;
        let text = codec.identity().map_err(|e| unusable(reference, &e))?;
        let base_codec = codecs.of(base)?;
        let base_text = if Rc::ptr_eq(&codec, &base_codec) {
            text.clone()
        } else {
            base_codec.identity().map_err(|e| unusable(base, &e))?
        };
        let dtype = spec.train.hyperparameters.dtype;
        let footprint = Footprint::of(&reference.location, Tuning::Frozen, dtype, spec.device == "cpu");
        Ok(Self {
            codec,
            text,
            base_text,
            facts: inspect(&reference.location).map_err(|e| unusable(reference, &e))?,
            footprint: footprint.map_err(|e| unusable(reference, &e))?,
            lengths: [Vec::new(), Vec::new()],
            other_count_share: 0.0,
        })
    }

    fn fitness(&self) -> TextFitness {
        let (text, base) = (&self.text, &self.base_text);
        TextFitness {
            tokenizer: text.kind.to_owned(),
            vocab_size: text.vocab_size as u64,
            has_same_tokenizer: text.tokenizer == base.tokenizer,
            difference: self.difference(),
            other_count_share: self.other_count_share,
            has_chat_template: text.template.is_some(),
            has_same_template: text.template.zip(base.template).map(|(own, base)| own == base),
            bos: text.bos.clone(),
            eos: text.eos.clone(),
            end_of_turn: text.end_of_turn.clone(),
        }
    }

    /// In words, how its tokenizer differs from the base's.
    fn difference(&self) -> Option<String> {
        let (text, base) = (&self.text, &self.base_text);
        if text.tokenizer == base.tokenizer {
            return None;
        }
        let mut parts = Vec::new();
        if text.kind != base.kind {
            parts.push(format!("it is a {} tokenizer, the base's a {} one", text.kind, base.kind));
        }
        if text.vocab_size != base.vocab_size {
            parts.push(format!("it knows {} tokens, the base's {}", text.vocab_size, base.vocab_size));
        }
        let share = 100.0 * self.other_count_share;
        parts.push(format!("{share:.0} % of the training pairs have completions of other numbers of tokens"));
        Some(parts.join("; "))
    }
}
