//! The files of a dry run: their pairs as the job would read them, measured in every model's tokens.

use std::collections::HashSet;

use super::{
    super::prepare::{Part, Prepared, Taken, check, encode, take},
    lengths::{PairLength, measure, summary},
    models::Model,
};
use crate::{
    dataset::{PreferencePair, Prompt},
    domain::{DatasetOutlook, Failure, FileOutlook, TrainSpec},
    text::{Codec, FitReport},
};

/// Most pairs of a file that are laid out in tokens; the first ones.
const MAX_MEASURED: usize = 10_000;

/// A job's files.
pub(super) struct Data {
    pub(super) training: File,
    pub(super) validation: Option<File>,
    n_overlapping: usize,
}

/// One file.
pub(super) struct File {
    part: Part,
    /// Pairs that the method takes.
    pub(super) n_pairs: usize,
    n_left_out: usize,
    pub(super) n_measured: usize,
    /// Whether a prompt is a conversation, not a text.
    pub(super) has_conversations: bool,
    /// The measured ones, until they are encoded.
    pairs: Vec<PreferencePair>,
    /// Those that would be used.
    pub(super) prepared: Vec<Prepared>,
    pub(super) report: FitReport,
    /// Why the job would end here.
    pub(super) failure: Option<Failure>,
}

impl Data {
    /// Reads the files and measures their pairs in the tokens of all models that run here.
    pub(super) fn read(train: &TrainSpec, models: &mut [Model<'_>]) -> Result<Self, Failure> {
        let training = take(Part::Training, train)?.expect("every job has a training file");
        let validation = take(Part::Validation, train)?;
        let n_overlapping = validation.as_ref().map_or(0, |validation| overlap(&training.pairs, &validation.pairs));
        let training = File::new(Part::Training, training);
        let validation = validation.map(|taken| File::new(Part::Validation, taken));
        let data = Self { training, validation, n_overlapping };
        data.measure(train.hyperparameters.max_length, models)?;
        Ok(data)
    }

    fn measure(&self, max_length: usize, models: &mut [Model<'_>]) -> Result<(), Failure> {
        let mut of_base: Vec<PairLength> = Vec::new();
        for model in models {
            let (id, Some(local)) = (&model.reference.model, model.local.as_mut()) else { continue };
            for (file, lengths) in self.files().zip(&mut local.lengths) {
                let measured = measure(&local.codec, &file.pairs, file.part, max_length);
                *lengths =
                    measured.map_err(|Failure { code, message }| Failure::new(code, format!("{id}: {message}")))?;
            }
            if of_base.is_empty() {
                of_base.clone_from(&local.lengths[0]);
            }
            let n_other = of_base.iter().zip(&local.lengths[0]).filter(|(a, b)| a.n_of_sides != b.n_of_sides).count();
            local.other_count_share = n_other as f64 / of_base.len().max(1) as f64;
        }
        Ok(())
    }

    /// Cuts the measured pairs as the job would, in the base's tokens.
    pub(super) fn encode(&mut self, train: &TrainSpec, codec: &Codec) -> Result<(), Failure> {
        for file in [Some(&mut self.training), self.validation.as_mut()].into_iter().flatten() {
            let pairs = std::mem::take(&mut file.pairs);
            (file.prepared, file.report) = encode(pairs, file.part, codec, train)?;
            let checked = check(file.part, &file.report, &file.prepared, (&train.method, file.n_left_out));
            file.failure = checked.err();
        }
        Ok(())
    }

    /// Training file, validation file.
    pub(super) fn files(&self) -> impl Iterator<Item = &File> {
        [Some(&self.training), self.validation.as_ref()].into_iter().flatten()
    }

    /// The pairs that would be used, in the order the job scores them in.
    pub(super) fn prepared(&self) -> impl Iterator<Item = &Prepared> {
        self.files().flat_map(|file| &file.prepared)
    }

    /// What is answered of them.
    pub(super) fn outlook(&self, models: &[Model<'_>]) -> DatasetOutlook {
        DatasetOutlook {
            training: self.training.outlook(models),
            validation: self.validation.as_ref().map(|file| file.outlook(models)),
            n_overlapping: self.n_overlapping as u64,
        }
    }
}

impl File {
    fn new(part: Part, taken: Taken) -> Self {
        let Taken { mut pairs, n_left_out } = taken;
        let n_pairs = pairs.len();
        let has_conversations = pairs.iter().any(|pair| matches!(pair.prompt, Prompt::Messages(_)));
        pairs.truncate(MAX_MEASURED);
        Self {
            part,
            n_pairs,
            n_left_out,
            n_measured: pairs.len(),
            has_conversations,
            pairs,
            prepared: Vec::new(),
            report: FitReport::default(),
            failure: None,
        }
    }

    /// What a sum over the measured pairs is of all.
    pub(super) fn of_all(&self, n: usize) -> u64 {
        (n as f64 * self.n_pairs as f64 / self.n_measured.max(1) as f64).round() as u64
    }

    fn outlook(&self, models: &[Model<'_>]) -> FileOutlook {
        let lengths = models.iter().filter_map(|model| {
            let local = model.local.as_ref()?;
            let of_file = &local.lengths[usize::from(self.part == Part::Validation)];
            summary(&model.reference.model, of_file, local.facts.max_position_embeddings)
        });
        let report = &self.report;
        FileOutlook {
            n_pairs: self.n_pairs as u64,
            n_left_out: self.n_left_out as u64,
            n_measured: self.n_measured as u64,
            n_prompts_cut: report.n_prompts_cut as u64,
            n_tokens_removed: report.n_tokens_removed as u64,
            n_dropped: report.n_dropped as u64,
            n_refused: report.n_refused as u64,
            lengths: lengths.collect(),
        }
    }
}

/// How many of the second file's pairs stand in the first.
fn overlap(first: &[PreferencePair], second: &[PreferencePair]) -> usize {
    fn words(pair: &PreferencePair) -> (&Prompt, &str, &str) {
        (&pair.prompt, &pair.chosen, &pair.rejected)
    }
    let seen: HashSet<_> = first.iter().map(words).collect();
    second.iter().filter(|pair| seen.contains(&words(pair))).count()
}
