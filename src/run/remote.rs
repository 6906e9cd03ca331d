//! References on other servers: prompts rendered here, scored there, several at once, each score written down when it comes.

use std::{
    rc::Rc,
    sync::{
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use super::{
    codecs::{Codecs, Rows},
    journal::Journal,
    kept_scores::{OfReference, Score},
    prepare::Prepared,
    references::unusable,
    signal,
};
use crate::{
    dataset::Prompt,
    domain::{Failure, FailureCode, ModelId, ModelLocation, Phase, RemoteRecord, RemoteTokenizer, ResolvedReference},
    run_dir::read_json,
    score::remote::{Limits, Remote, RemoteError, between},
    text::{Codec, TextError, plain_prompt},
};

/// Requests at once.
const N_AT_ONCE: usize = 4;
/// Pairs between two words on how far it is.
const N_BETWEEN_WORDS: usize = 8;

/// How prompts become text, and what ends a completion.
pub(super) enum Rendering {
    /// By the template of a registered model.
    Of(Rc<Codec>),
    /// In the plain format of models without one; nothing ends a completion.
    Plain,
}

impl Rendering {
    /// Of a tokenizer, or none.
    pub(super) fn new(
        tokenizer: Option<&RemoteTokenizer>,
        model: &ModelId,
        codecs: &mut Codecs,
    ) -> anyhow::Result<Self> {
        match tokenizer {
            Some(tokenizer) => Ok(Self::Of(codecs.of(&tokenizer.as_reference(model))?)),
            None => Ok(Self::Plain),
        }
    }

    /// The prompt as a template writes it.
    fn prompt(&self, prompt: &Prompt) -> Result<String, TextError> {
        match self {
            Self::Of(codec) => codec.render_prompt(prompt),
            Self::Plain => Ok(plain_prompt(prompt)),
        }
    }

    /// The prompt as it is sent: without the token that begins a text where tokenizers put it there themselves.
    pub(super) fn sent(&self, prompt: &Prompt) -> Result<String, TextError> {
        let text = self.prompt(prompt)?;
        Ok(self.without_bos(&text).to_owned())
    }

    fn without_bos<'a>(&self, text: &'a str) -> &'a str {
        match self {
            Self::Of(codec) => codec.without_bos(text),
            Self::Plain => text,
        }
    }

    fn end(&self) -> String {
        match self {
            Self::Of(codec) => codec.end_text(),
            Self::Plain => String::new(),
        }
    }
}

/// A client of the server. Its key is the environment's, never the spec's.
pub(super) fn client(url: &str, name: &str, model: &ModelId) -> Remote {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u32>().ok()).filter(|n| *n > 0);
    let limits = Limits {
        timeout: Duration::from_secs(number("MRPO_REMOTE_TIMEOUT_SECONDS").unwrap_or(120).into()),
        n_attempts: number("MRPO_REMOTE_ATTEMPTS").unwrap_or(8),
    };
    Remote::new(url, name, key(model), limits)
}

fn key(model: &ModelId) -> Option<String> {
    let own: String =
        model.as_str().chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
    let given = |name: &str| std::env::var(name).ok().filter(|key| !key.is_empty());
    given(&format!("MRPO_REMOTE_KEY_{own}")).or_else(|| given("MRPO_REMOTE_KEY"))
}

/// A server's error as the end of a run.
pub(super) fn failed(model: &ModelId, error: &RemoteError) -> Failure {
    let code = match error {
        RemoteError::Unfit(_) => FailureCode::UnsupportedModel,
        RemoteError::Unavailable(_) | RemoteError::Stopped => FailureCode::RemoteUnavailable,
    };
    Failure::new(code, format!("the remote model {model}: {error}"))
}

/// Scores what is missing of the pairs. Returns the names of the rows, or nothing if asked to stop.
pub(super) fn compute_missing(
    reference: &ResolvedReference,
    codecs: &mut Codecs,
    pairs: &[&Prepared],
    kept: &mut OfReference<'_>,
    journal: &mut Journal,
) -> anyhow::Result<Option<Rows>> {
    let record: RemoteRecord = read_json(&reference.location.weights)?;
    let rendering = Rendering::new(record.tokenizer.as_ref(), &reference.model, codecs)?;
    let rows = rows_of(reference, codecs, pairs)?;
    let mut asks = Vec::new();
    for (pair, digests) in pairs.iter().zip(rows.iter()) {
        if digests.iter().any(|digest| !kept.is_known(digest)) {
            asks.push(Ask::new(pair, digests, &rendering, kept).map_err(|e| unusable(reference, &e))?);
        }
    }
    if asks.is_empty() {
        return Ok(Some(rows));
    }
    let remote = client(&record.url, &record.model, &reference.model);
    let name = reference.model.as_str();
    let mut n_done = 0;
    journal.progress(Phase::ScoringReferences, 0, asks.len(), Some(name))?;
    let is_done = answers(&asks, &remote, &record, |ask, answer| {
        match answer {
            Answer::Score(digest, score) => kept.add(digest, ask.line, score)?,
            Answer::Done => {
                n_done += 1;
                if n_done % N_BETWEEN_WORDS == 0 || n_done == asks.len() {
                    journal.progress(Phase::ScoringReferences, n_done, asks.len(), Some(name))?;
                }
            }
            Answer::Failed(RemoteError::Stopped) => {}
            Answer::Failed(error) => {
                let Failure { code, message } = failed(&reference.model, &error);
                return Err(Failure::new(code, format!("{message} (line {})", ask.line)).into());
            }
        }
        Ok(())
    })?;
    kept.sync()?;
    Ok(is_done.then_some(rows))
}

/// The names of the pairs' rows in its rendering.
pub(super) fn rows_of(reference: &ResolvedReference, codecs: &mut Codecs, pairs: &[&Prepared]) -> anyhow::Result<Rows> {
    let record: RemoteRecord = read_json(&reference.location.weights)?;
    Ok(match &record.tokenizer {
        Some(tokenizer) => codecs.rows_of(&tokenizer.as_reference(&reference.model), pairs)?.1,
        None => Rc::new(pairs.iter().map(|pair| pair.row_digests_in(&plain_prompt(&pair.pair.prompt))).collect()),
    })
}

/// A prompt and those of its completions whose scores are missing, as text.
struct Ask {
    line: u64,
    prompt: String,
    /// The row's name, and prompt and completion together.
    wholes: Vec<(String, String)>,
}

impl Ask {
    fn new(
        pair: &Prepared,
        digests: &[String],
        rendering: &Rendering,
        kept: &OfReference<'_>,
    ) -> Result<Self, TextError> {
        let prompt = pair.cut(&rendering.sent(&pair.pair.prompt)?).to_owned();
        let end = rendering.end();
        let missing = digests.iter().zip(pair.completions()).filter(|(digest, _)| !kept.is_known(digest));
        let wholes = missing.map(|(digest, text)| (digest.clone(), format!("{prompt}{text}{end}"))).collect();
        Ok(Self { line: pair.pair.line, prompt, wholes })
    }
}

/// What comes of an ask, one thing after the other.
enum Answer<'a> {
    Score(&'a str, Score),
    Done,
    Failed(RemoteError),
}

/// Asks the server, some asks at once; `each` is given the answers in this thread, as they come. Returns whether all have been
/// answered; its first error ends the others.
fn answers(
    asks: &[Ask],
    remote: &Remote,
    record: &RemoteRecord,
    mut each: impl FnMut(&Ask, Answer<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<bool> {
    let (next, ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    let should_stop = || ended.load(Ordering::Relaxed) || signal::stop_requested();
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        for _ in 0..N_AT_ONCE.min(asks.len()) {
            let (sender, next, should_stop) = (sender.clone(), &next, &should_stop);
            scope.spawn(move || {
                while let Some(ask) = asks.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let last = match answer(ask, remote, record, should_stop, &sender) {
                        Ok(()) => Answer::Done,
                        Err(error) => Answer::Failed(error),
                    };
                    let is_over = matches!(last, Answer::Failed(_));
                    if sender.send((ask, last)).is_err() || is_over {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let (mut n_done, mut result) = (0, Ok(()));
        for (ask, answer) in receiver {
            n_done += usize::from(matches!(answer, Answer::Done));
            // What has been answered is written down also after an error.
            let noted = each(ask, answer);
            if let (Ok(()), Err(_)) = (&result, &noted) {
                ended.store(true, Ordering::Relaxed);
                result = noted;
            }
        }
        result.map(|()| n_done == asks.len())
    })
}

fn answer<'a>(
    ask: &'a Ask,
    remote: &Remote,
    record: &RemoteRecord,
    should_stop: &dyn Fn() -> bool,
    sender: &mpsc::Sender<(&'a Ask, Answer<'a>)>,
) -> Result<(), RemoteError> {
    let prompt = remote.tokens(&ask.prompt, record.dialect, should_stop)?;
    for (digest, text) in &ask.wholes {
        let whole = remote.tokens(text, record.dialect, should_stop)?;
        let (logp, n_tokens) = between(&prompt, &whole).map_err(RemoteError::Unfit)?;
        // Nobody listens any more where the run has ended: the next request tells.
        let _ = sender.send((ask, Answer::Score(digest, Score { logp, n_tokens })));
    }
    Ok(())
}

impl RemoteTokenizer {
    /// As what a codec is loaded from.
    fn as_reference(&self, model: &ModelId) -> ResolvedReference {
        let Self { digest, location } = self;
        let location: ModelLocation = location.clone();
        ResolvedReference { model: model.clone(), digest: digest.clone(), location, weight: None }
    }
}
