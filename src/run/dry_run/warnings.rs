//! What speaks against a job, in words and with the way out.

use super::{Given, data::Data, models::Model};
use crate::{
    domain::{
        DryRun, FileOutlook, ModelId, ReferenceFitness, ReferenceRole, SampleFitness, TrainSpec, Warning, WarningCode,
    },
    objective::{Diagnosis, Finding},
};

/// From this share of pairs on that are cut or left out, they are many.
const MANY_TRUNCATED: f64 = 0.1;
/// How much larger or smaller than the base's a reference's log-probabilities may be.
const OTHER_SCALE: f64 = 2.0;

/// All that was found.
pub(super) fn warnings(
    train: &TrainSpec,
    answer: &DryRun,
    data: &Data,
    models: &[Model<'_>],
    (given, findings): (&[Given], &[Diagnosis]),
) -> Vec<Warning> {
    let mut found = Found::default();
    found.of_files(answer, data);
    found.of_batches(answer, train);
    for (model, given) in models.iter().zip(given) {
        if let Given::Unfit(why) = given {
            found.add(WarningCode::WouldFail, Some(&model.reference.model), why.clone());
        }
        found.of_bos(model);
    }
    let has_conversations = data.files().any(|file| file.has_conversations);
    for (reference, model) in answer.references.iter().zip(models) {
        let same_as_base = model.number > 0 && model.reference.digest == models[0].reference.digest;
        found.of_text(reference, &answer.references[0], has_conversations);
        found.of_licence(reference, &answer.references[0]);
        if same_as_base && model.role == ReferenceRole::Reference {
            let message = format!("the reference {} is the base itself: it adds nothing; take it out", reference.model);
            found.add(WarningCode::SameAsBase, Some(&reference.model), message);
        } else {
            found.of_sample(reference, answer.references[0].sample.as_ref());
        }
    }
    found.of_diagnosis(findings, answer);
    found.of_costs(answer);
    found.0
}

#[derive(Default)]
struct Found(Vec<Warning>);

impl Found {
    fn add(&mut self, code: WarningCode, model: Option<&ModelId>, message: String) {
        // What one rule has said of a model another need not say again.
        if model.is_none() || !self.0.iter().any(|other| other.code == code && other.model.as_ref() == model) {
            self.0.push(Warning { code, model: model.cloned(), message });
        }
    }

    fn of_files(&mut self, answer: &DryRun, data: &Data) {
        for failure in data.files().filter_map(|file| file.failure.as_ref()) {
            self.add(WarningCode::WouldFail, None, failure.message.clone());
        }
        let dataset = &answer.dataset;
        let files = [("training", Some(&dataset.training)), ("validation", dataset.validation.as_ref())];
        for (name, file) in files.into_iter().filter_map(|(name, file)| Some((name, file?))) {
            self.of_lengths(name, file);
        }
        if dataset.n_overlapping > 0 {
            let n = dataset.n_overlapping;
            let message = format!(
                "{n} validation pairs stand in the training file too, word for word: what is measured on them says nothing of \
                 new pairs; take them out of one of the files (GET /v1/files/ID/overlap names them)"
            );
            self.add(WarningCode::ValidationOverlaps, None, message);
        }
    }

    fn of_lengths(&mut self, name: &str, file: &FileOutlook) {
        let n_too_long = file.n_prompts_cut + file.n_dropped;
        if n_too_long as f64 > MANY_TRUNCATED * file.n_measured as f64 {
            let message = format!(
                "{n_too_long} of {} {name} pairs are longer than max_length: {} prompts lose {} tokens from their left, {} pairs \
                 are left out; raise max_length",
                file.n_measured, file.n_prompts_cut, file.n_tokens_removed, file.n_dropped
            );
            self.add(WarningCode::ManyTruncated, None, message);
        }
        for lengths in &file.lengths {
            let model = &lengths.model;
            if lengths.n_same_sides > 0 {
                let message = format!(
                    "both completions of {} {name} pairs are the same tokens to {model}: nothing can be learned from them; \
                     take them out",
                    lengths.n_same_sides
                );
                self.add(WarningCode::SameSides, Some(model), message);
            }
            if lengths.n_beyond_context > 0 {
                let message = format!(
                    "{} {name} pairs are longer than the context {model} was made for: its numbers mean little there; lower \
                     max_length",
                    lengths.n_beyond_context
                );
                self.add(WarningCode::BeyondContext, Some(model), message);
            }
        }
    }

    fn of_batches(&mut self, answer: &DryRun, train: &TrainSpec) {
        let (n_pairs, batch_size) = (answer.time.n_pairs, train.hyperparameters.batch_size as u64);
        if n_pairs < batch_size {
            let message =
                format!("{n_pairs} pairs are fewer than one batch of {batch_size}: lower batch_size, or add pairs");
            self.add(WarningCode::FewerPairsThanBatch, None, message);
        } else if !n_pairs.is_multiple_of(batch_size) {
            let rest = n_pairs % batch_size;
            let message = format!(
                "{n_pairs} pairs make batches of {batch_size} and a last one of {rest} in each epoch, whose pairs count for more; \
                 that is no error, and another batch_size divides them"
            );
            self.add(WarningCode::UnevenBatches, None, message);
        }
    }

    fn of_text(&mut self, reference: &ReferenceFitness, base: &ReferenceFitness, has_conversations: bool) {
        let Some(text) = &reference.text else { return };
        let has_base_one = base.text.as_ref().is_some_and(|text| text.has_chat_template);
        if !text.has_chat_template && (has_conversations || has_base_one) {
            let why = if has_conversations { "pairs are conversations" } else { "the base reads prompts through one" };
            let model = &reference.model;
            let message = format!(
                "{model} has no chat template and {why}: it reads prompts in a plain format it may never have seen; take a model \
                 that was made for conversations, or look at POST /v1/models/{model}/preview"
            );
            self.add(WarningCode::NoTemplate, Some(model), message);
        }
    }

    fn of_bos(&mut self, model: &Model<'_>) {
        let Some(local) = &model.local else { return };
        let n_without = local.lengths.iter().flatten().filter(|pair| !pair.starts_with_bos).count();
        if n_without == 0 || local.text.bos.is_none() && local.text.template.is_some() {
            return;
        }
        let id = &model.reference.model;
        let message = match &local.text.bos {
            Some(bos) => format!(
                "{n_without} prompts do not begin with {bos}, which begins texts of {id}: if it was trained with it, the template \
                 or add_bos_token of its tokenizer_config.json is wrong"
            ),
            None => format!(
                "{id} names no token that begins a text and has no template, so nothing stands before a prompt: if it was \
                 trained with one, name bos_token in its tokenizer_config.json"
            ),
        };
        self.add(WarningCode::NoBos, Some(id), message);
    }

    fn of_licence(&mut self, reference: &ReferenceFitness, base: &ReferenceFitness) {
        if reference.text.is_none() {
            return;
        }
        let model = &reference.model;
        let Some(licence) = &reference.licence else {
            let message =
                format!("no file of {model} names its licence: look where it comes from before you pass the result on");
            return self.add(WarningCode::LicenceUnknown, Some(model), message);
        };
        if is_non_commercial(licence) {
            let message =
                format!("the licence of {model}, {licence}, forbids commercial use: take another model for that");
            self.add(WarningCode::LicenceNonCommercial, Some(model), message);
        }
        if base.licence.as_ref().is_some_and(|of_base| !of_base.eq_ignore_ascii_case(licence)) {
            let of_base = base.licence.as_deref().unwrap_or_default();
            let message =
                format!("the licence of {model} is {licence}, the base's {of_base}: the result has to keep to both");
            self.add(WarningCode::LicenceDiffers, Some(model), message);
        }
    }

    fn of_sample(&mut self, reference: &ReferenceFitness, base: Option<&SampleFitness>) {
        let (Some(sample), false) = (&reference.sample, reference.role == ReferenceRole::Base) else { return };
        let (model, n_pairs) = (&reference.model, sample.n_pairs);
        if sample.accuracy < 0.5 {
            let of_base = base.map_or_else(String::new, |base| format!(" (the base {:.0} %)", 100.0 * base.accuracy));
            let message = format!(
                "{model} ranks {:.0} % of {n_pairs} sampled pairs as the data does{of_base}: it may pull the other way; take a model \
                 that knows such text, or weighting vaw or evidence with a validation file",
                100.0 * sample.accuracy
            );
            self.add(WarningCode::LowAccuracy, Some(model), message);
        }
        let Some(scale) = sample.scale else { return };
        if !(1.0 / OTHER_SCALE..=OTHER_SCALE).contains(&scale) {
            let what_follows = match sample.clip_fraction {
                Some(share) if share > 0.0 => format!(
                    "the trust region moves {:.0} % of them on {n_pairs} sampled pairs to its edge; raise epsilon, or take clip none",
                    100.0 * share
                ),
                _ => "the mix of both may be one of them alone; keep clip adaptive".to_owned(),
            };
            let message = format!("the log-probabilities of {model} are {scale:.2} times the base's: {what_follows}");
            self.add(WarningCode::ScaleDiffers, Some(model), message);
        }
    }

    /// The rules that a job's run says in its events, here of the sample.
    fn of_diagnosis(&mut self, findings: &[Diagnosis], answer: &DryRun) {
        for Diagnosis { reference, finding, message } in findings {
            let code = match finding {
                Finding::Harmful | Finding::WorseThanBase => WarningCode::Harmful,
                Finding::NoWeight => WarningCode::NoWeight,
                Finding::AlwaysClipped => WarningCode::AlwaysClipped,
                Finding::SameAsBase => WarningCode::SameAsBase,
                Finding::AlwaysDecides => WarningCode::AlwaysDecides,
            };
            let about = answer.references.iter().find(|fitness| fitness.model.as_str() == reference);
            let n_pairs = about.and_then(|fitness| fitness.sample.as_ref()).map_or(0, |sample| sample.n_pairs);
            self.add(code, about.map(|fitness| &fitness.model), format!("on {n_pairs} sampled pairs: {message}"));
        }
    }

    fn of_costs(&mut self, answer: &DryRun) {
        let mib = |bytes: u64| bytes >> 20;
        let (memory, disk) = (&answer.memory, &answer.disk);
        if let (Some(false), Some(available)) = (memory.fits, memory.available_bytes) {
            let message = format!(
                "about {} MiB of memory are needed and {} MiB are free: lower micro_batch_tokens or max_length, take dtype \
                 bfloat16 or LoRA, or a smaller model; or wait until other work has ended",
                mib(memory.peak_bytes),
                mib(available)
            );
            self.add(WarningCode::TooLittleMemory, None, message);
        }
        if !disk.fits {
            let message = format!(
                "{} checkpoints take {} MiB and {} MiB are free: keep fewer (retention.keep_last), raise \
                 checkpoint_every_n_steps, take LoRA, or free some space",
                disk.n_at_once,
                mib(disk.total_bytes),
                mib(disk.free_bytes)
            );
            self.add(WarningCode::TooLittleDisk, None, message);
        }
    }
}

/// As licences call themselves: `cc-by-nc-4.0`, `non-commercial`, `research-only`.
fn is_non_commercial(licence: &str) -> bool {
    let licence = licence.to_ascii_lowercase();
    let words: Vec<&str> = licence.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    words.iter().any(|word| ["nc", "noncommercial", "research"].contains(word))
        || words.windows(2).any(|two| two == ["non", "commercial"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_licence_that_forbids_commerce_is_known_by_its_name() {
        for licence in
            ["cc-by-nc-4.0", "CC-BY-NC-SA-4.0", "deepseek-noncommercial", "x-non-commercial-2", "apple-amlr-research"]
        {
            assert!(is_non_commercial(licence), "{licence}");
        }
        for licence in ["apache-2.0", "mit", "gemma", "llama3.2", "agpl-3.0", "cc-by-sa-4.0"] {
            assert!(!is_non_commercial(licence), "{licence}");
        }
    }
}
