//! An inspection: a question that takes a model's tokenizer or its weights, answered.

use super::{dry_run::dry_run, journal::Journal};
use crate::{
    dataset::{PairReader, PreferencePair},
    domain::{Failure, FailureCode, InspectSpec, Preview, PreviewSpec, PreviewToken, RunEvent},
    run_dir::RunDir,
    text::{Codec, Fit, TextError, fit},
};

/// Executes the run. Returns its last event.
pub(super) fn inspect(run: &RunDir, spec: &InspectSpec, journal: &mut Journal) -> anyhow::Result<RunEvent> {
    let result = match spec {
        InspectSpec::Preview(spec) => serde_json::to_string(&preview(spec)?)?,
        InspectSpec::DryRun(spec) => serde_json::to_string(&dry_run(run, spec, journal)?)?,
    };
    journal.say(RunEvent::Inspected { result })?;
    Ok(RunEvent::Succeeded { model: None, n_trained_tokens: 0 })
}

fn preview(spec: &PreviewSpec) -> anyhow::Result<Preview> {
    let pair = read_pair(&spec.pair)?;
    let codec = Codec::load(&spec.location)
        .map_err(|e| Failure::new(FailureCode::InvalidModel, format!("the model {}: {e}", spec.model)))?;
    let of_pair = |e: TextError| Failure::new(FailureCode::InvalidDataset, format!("the pair: {e}"));
    let encoded = codec.encode_pair(&pair).map_err(of_pair)?;
    let whole = encoded.clone();
    let n_tokens = encoded.n_longest();
    let (encoded, n_tokens_removed, too_long) = match fit(encoded, spec.max_length, spec.truncation) {
        Fit::Whole(encoded) => (encoded, 0, None),
        Fit::PromptCut { pair, n_tokens_removed, .. } => (pair, n_tokens_removed, None),
        Fit::Dropped(why) => (whole, 0, Some(format!("left out: {why}"))),
        Fit::Refused(why) => (whole, 0, Some(format!("refused: {why}"))),
    };
    let spans = encoded.in_spans.as_ref();
    Ok(Preview {
        has_chat_template: codec.has_template(),
        rendered_prompt: codec.render_prompt(&pair.prompt).map_err(of_pair)?,
        prompt: tokens(&codec, &encoded.prompt, false, None)?,
        chosen: tokens(&codec, &encoded.chosen, true, spans.map(|s| s.chosen.as_slice()))?,
        rejected: tokens(&codec, &encoded.rejected, true, spans.map(|s| s.rejected.as_slice()))?,
        n_tokens,
        n_tokens_removed,
        too_long,
    })
}

/// Reads the pair as the line of a file it would be; whoever asked has checked it.
fn read_pair(line: &str) -> anyhow::Result<PreferencePair> {
    let row = PairReader::new(line.as_bytes(), None).read()?;
    let pair = row.and_then(|row| row.pair.ok());
    Ok(pair.ok_or_else(|| Failure::new(FailureCode::InvalidSpec, "the pair cannot be read"))?)
}

fn tokens(
    codec: &Codec,
    ids: &[u32],
    is_scored: bool,
    in_spans: Option<&[bool]>,
) -> Result<Vec<PreviewToken>, TextError> {
    let token = |(i, id): (usize, &u32)| {
        let (piece, text) = codec.token(*id)?;
        Ok(PreviewToken { id: *id, piece, text, is_scored, is_in_span: in_spans.map(|touched| touched[i]) })
    };
    ids.iter().enumerate().map(token).collect()
}
