//! Exports of a tiny model of every architecture: read again by ourselves, and beside what llama.cpp's converter wrote.
#![expect(clippy::unwrap_used, reason = "files that cannot be set up fail the test")]

use std::{
    cell::Cell,
    collections::BTreeSet,
    fs::File,
    ops::ControlFlow,
    path::{Path, PathBuf},
    process::Command,
};

use candle_core::{
    Device,
    quantized::{
        GgmlDType,
        gguf_file::{self, Content, Value},
    },
};
use mrpo::{
    domain::{Dtype, ExportDtype, ExportFormat, ModelLocation, WeightsFormat},
    export::{Export, Exported},
    model::{Decoder, ModelError, Purpose, Tuning, Weights, exported_bytes, layout::Packed},
    text::{Codec, tokenizer_keys},
};
use serde_json::json;
use tempfile::TempDir;

const NAMES: [&str; 10] =
    ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2", "gpt_neox", "gpt_neox_sequential"];

/// A fixture with the tokenizer that its GGUF file has, in a directory of its own.
struct Model {
    fixture: PathBuf,
    directory: TempDir,
}

impl Model {
    /// As it is.
    fn new(name: &'static str) -> Self {
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name);
        let directory = TempDir::new().unwrap();
        for file in ["config.json", "model.safetensors"] {
            std::fs::copy(fixture.join(file), directory.path().join(file)).unwrap();
        }
        write_tokenizer(directory.path(), &byte_level());
        Self { fixture, directory }
    }

    /// Without what GGUF has no way to say.
    fn for_gguf(name: &'static str) -> Self {
        let model = Self::new(name);
        match name {
            "mistral" => model.change("sliding_window", serde_json::Value::Null),
            "gemma2" | "gemma3" => model.change("query_pre_attn_scalar", 8.into()),
            _ => {}
        }
        model
    }

    fn change(&self, key: &str, value: serde_json::Value) {
        let path = self.path("config.json");
        let mut config: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        config[key] = value;
        std::fs::write(path, config.to_string()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn location(&self) -> ModelLocation {
        huggingface(self.directory.path())
    }

    fn with_adapter(&self) -> ModelLocation {
        ModelLocation { adapters: vec![self.fixture.join("adapter")], ..self.location() }
    }

    fn batch(&self) -> Packed {
        let json: serde_json::Value =
            serde_json::from_slice(&std::fs::read(self.fixture.join("batch.json")).unwrap()).unwrap();
        let tokens = |value: &serde_json::Value| -> Vec<u32> { serde_json::from_value(value.clone()).unwrap() };
        let mut batch = Packed::default();
        for item in json["prompts"].as_array().unwrap() {
            let completions: Vec<Vec<u32>> = item["completions"].as_array().unwrap().iter().map(tokens).collect();
            batch.push(&tokens(&item["prompt"]), &completions.iter().map(Vec::as_slice).collect::<Vec<_>>());
        }
        batch
    }

    /// The largest difference of a log-probability.
    fn difference(&self, a: &ModelLocation, b: &ModelLocation) -> f32 {
        let logps = |location: &ModelLocation| {
            let weights = Weights::load(location, Dtype::Float32).unwrap();
            let (decoder, parameters) = Decoder::new(weights, &Tuning::Frozen, Dtype::Float32).unwrap();
            decoder.forward(&self.batch(), &parameters, Purpose::Score).unwrap().token_logps
        };
        logps(a).iter().zip(logps(b)).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()))
    }
}

fn byte_level() -> serde_json::Value {
    json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})
}

/// `make_models.py`'s made-up vocabulary: special tokens, characters and one merge.
fn write_tokenizer(directory: &Path, pre_tokenizer: &serde_json::Value) {
    let special = ["<pad>", "<eos>", "<bos>"];
    let characters = ('a'..='z').chain('0'..='9').map(String::from);
    let tokens: Vec<String> = special.map(str::to_owned).into_iter().chain(characters).chain(["ab".into()]).collect();
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        tokens.iter().zip(0..).map(|(token, id)| (token.clone(), id.into())).collect();
    let added = special.iter().zip(0..).map(|(token, id)| {
        json!({"id": id, "content": token, "special": true, "normalized": false, "single_word": false, "lstrip": false,
            "rstrip": false})
    });
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": byte_level(),
        "model": {"type": "BPE", "vocab": vocabulary, "merges": [["a", "b"]]},
    });
    let config = json!({"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"});
    std::fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(directory.join("tokenizer_config.json"), config.to_string()).unwrap();
}

fn huggingface(weights: &Path) -> ModelLocation {
    ModelLocation { format: WeightsFormat::Huggingface, weights: weights.to_owned(), adapters: Vec::new() }
}

fn gguf(weights: &Path) -> ModelLocation {
    ModelLocation { format: WeightsFormat::Gguf, weights: weights.to_owned(), adapters: Vec::new() }
}

fn write(location: &ModelLocation, format: ExportFormat, dtype: ExportDtype, out: &Path) -> anyhow::Result<Exported> {
    let n_weights = Cell::new(0);
    let exported = Export { location, format, dtype, name: None }.write(out, &mut |n_done, n_total| {
        assert!(n_done == n_weights.get() + 1 && n_done <= n_total, "weight {n_done} of {n_total}");
        n_weights.set(n_done);
        ControlFlow::Continue(())
    })?;
    assert!(n_weights.get() > 0);
    // What is reckoned beforehand is the weights; headers and the tokenizer come on top.
    let n_bytes = exported_bytes(location, format, dtype).unwrap();
    assert!((n_bytes..n_bytes + 20_000).contains(&exported.size_bytes), "{n_bytes}: {exported:?}");
    Ok(exported)
}

fn export_gguf(model: &Model, location: &ModelLocation, dtype: ExportDtype) -> PathBuf {
    let out = model.path(&format!("out/{dtype:?}.gguf"));
    let exported = write(location, ExportFormat::Gguf, dtype, &out).unwrap();
    assert_eq!(exported, Exported { size_bytes: out.metadata().unwrap().len(), lost_window: None });
    out
}

fn content(path: &Path) -> (Content, File) {
    let mut file = File::open(path).unwrap();
    (Content::read(&mut file).unwrap(), file)
}

/// As text, whatever its type: files and lists compare by it.
fn shown(value: &Value) -> String {
    format!("{value:?}")
}

#[test]
fn a_gguf_file_is_the_model_with_its_adapter_merged_in() {
    for name in NAMES {
        let model = Model::for_gguf(name);
        let merged = model.with_adapter();
        let out = export_gguf(&model, &merged, ExportDtype::Float32);
        // GGUF holds 1 + the weights of Gemma's norms, which costs their last bits.
        let tolerance = if name.starts_with("gemma") { 1e-5 } else { 0.0 };
        let difference = model.difference(&merged, &gguf(&out));
        assert!(difference <= tolerance, "{name}: {difference}");
        assert!(model.difference(&model.location(), &gguf(&out)) > 1e-3, "{name}: the adapter counts");
        for (dtype, tolerance) in [(ExportDtype::Float16, 0.04), (ExportDtype::Bfloat16, 0.3), (ExportDtype::Q8_0, 0.3)]
        {
            let out = export_gguf(&model, &merged, dtype);
            let difference = model.difference(&merged, &gguf(&out));
            assert!(difference > 0.0 && difference < tolerance, "{name}, {dtype:?}: {difference}");
        }
    }
}

#[test]
fn a_gguf_file_has_the_tensors_and_the_metadata_of_llama_cpps_converter() {
    for name in NAMES {
        let model = Model::for_gguf(name);
        let (ours, mut our_file) = content(&export_gguf(&model, &model.location(), ExportDtype::Float32));
        let (theirs, mut their_file) = content(&model.fixture.join("model.gguf"));
        for (key, value) in &theirs.metadata {
            let ours = ours.metadata.get(key).unwrap_or_else(|| panic!("{name}: {key} is missing"));
            // The converter makes a title of the directory's name, which a test's has not.
            assert!(key == "general.name" || shown(ours) == shown(value), "{name}, {key}: {ours:?} for {value:?}");
        }
        let names = |content: &Content| content.tensor_infos.keys().cloned().collect::<BTreeSet<_>>();
        assert_eq!(names(&ours), names(&theirs), "{name}");
        for tensor in theirs.tensor_infos.keys() {
            let ours = ours.tensor(&mut our_file, tensor, &Device::Cpu).unwrap();
            let theirs = theirs.tensor(&mut their_file, tensor, &Device::Cpu).unwrap();
            assert_eq!((ours.dtype(), ours.shape()), (theirs.dtype(), theirs.shape()), "{name}: {tensor}");
            assert_eq!(ours.data().unwrap(), theirs.data().unwrap(), "{name}: {tensor}");
        }
    }
}

#[test]
fn a_gguf_file_holds_matrices_in_the_type_asked_for_and_norms_in_float32() {
    let model = Model::for_gguf("llama");
    for (dtype, of_matrices) in [
        (ExportDtype::Float16, GgmlDType::F16),
        (ExportDtype::Bfloat16, GgmlDType::BF16),
        (ExportDtype::Q8_0, GgmlDType::Q8_0),
    ] {
        let (content, _) = content(&export_gguf(&model, &model.location(), dtype));
        let of = |name: &str| content.tensor_infos[name].ggml_dtype;
        assert_eq!(of("blk.0.attn_q.weight"), of_matrices);
        assert_eq!(of("token_embd.weight"), of_matrices);
        assert_eq!(of("blk.0.attn_norm.weight"), GgmlDType::F32);
        // Its rows have 24 numbers, which fill no block of 32.
        let of_short_rows = if dtype == ExportDtype::Q8_0 { GgmlDType::F16 } else { of_matrices };
        assert_eq!(of("blk.0.ffn_down.weight"), of_short_rows);
    }
}

#[test]
fn a_directory_holds_the_same_tensors_the_tokenizer_and_the_configuration() {
    for name in NAMES {
        let model = Model::new(name);
        std::fs::write(model.path("generation_config.json"), r#"{"eos_token_id": [1, 0]}"#).unwrap();
        let out = model.path("out");
        write(&model.location(), ExportFormat::Huggingface, ExportDtype::Float32, &out).unwrap();
        let read = |directory: &Path| {
            candle_core::safetensors::load(directory.join("model.safetensors"), &Device::Cpu).unwrap()
        };
        let (ours, theirs) = (read(&out), read(&model.fixture));
        assert_eq!(ours.keys().collect::<BTreeSet<_>>(), theirs.keys().collect::<BTreeSet<_>>(), "{name}");
        for (tensor, ours) in ours {
            assert_eq!(ours.dims(), theirs[&tensor].dims(), "{name}: {tensor}");
            let numbers = |t: &candle_core::Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            assert_eq!(numbers(&ours), numbers(&theirs[&tensor]), "{name}: {tensor}");
        }
        for file in ["tokenizer.json", "tokenizer_config.json", "generation_config.json"] {
            assert_eq!(std::fs::read(out.join(file)).unwrap(), std::fs::read(model.path(file)).unwrap(), "{name}");
        }
        let config = |directory: &Path| -> serde_json::Map<String, serde_json::Value> {
            let mut config: serde_json::Map<String, serde_json::Value> =
                serde_json::from_slice(&std::fs::read(directory.join("config.json")).unwrap()).unwrap();
            config.remove("dtype");
            config.remove("torch_dtype");
            config
        };
        assert_eq!(config(&out), config(&model.fixture), "{name}");
    }
}

#[test]
fn a_directory_in_sixteen_bits_is_near_and_says_so() {
    for name in NAMES {
        let model = Model::new(name);
        let merged = model.with_adapter();
        for (dtype, in_json, tolerance) in
            [(ExportDtype::Float16, "float16", 0.04), (ExportDtype::Bfloat16, "bfloat16", 0.3)]
        {
            let out = model.path(in_json);
            write(&merged, ExportFormat::Huggingface, dtype, &out).unwrap();
            let config = std::fs::read_to_string(out.join("config.json")).unwrap();
            assert!(config.contains(&format!("\"torch_dtype\": \"{in_json}\"")), "{config}");
            let difference = model.difference(&merged, &huggingface(&out));
            assert!(difference > 0.0 && difference < tolerance, "{name}, {in_json}: {difference}");
        }
    }
}

#[test]
fn a_gguf_file_becomes_a_directory_and_another_gguf_file() {
    for name in NAMES {
        let model = Model::new(name);
        let source = gguf(&model.fixture.join("model.gguf"));
        let directory = model.path("directory");
        write(&source, ExportFormat::Huggingface, ExportDtype::Float32, &directory).unwrap();
        assert_eq!(model.difference(&source, &huggingface(&directory)), 0.0, "{name}");
        let file = export_gguf(&model, &source, ExportDtype::Float32);
        let tolerance = if name.starts_with("gemma") { 1e-5 } else { 0.0 };
        assert!(model.difference(&source, &gguf(&file)) <= tolerance, "{name}");
        let (ours, _) = content(&file);
        let (theirs, _) = content(&source.weights);
        for (key, value) in theirs.metadata.iter().filter(|(key, _)| key.starts_with("tokenizer.")) {
            assert_eq!(shown(&ours.metadata[key]), shown(value), "{name}, {key}");
        }
        assert_eq!(
            Codec::load(&huggingface(&directory)).unwrap().eos_ids(),
            Codec::load(&gguf(&file)).unwrap().eos_ids()
        );
    }
}

#[test]
fn rows_without_a_token_are_filled_up() {
    let model = Model::new("llama");
    let keys = tokenizer_keys(&model.location(), 42).unwrap();
    let list = |key: &str| keys.iter().find(|(k, _)| k == key).unwrap().1.to_vec().unwrap().clone();
    let tokens = list("tokenizer.ggml.tokens");
    assert_eq!((tokens.len(), shown(&tokens[41])), (42, shown(&Value::String("[PAD41]".into()))));
    assert_eq!(shown(&list("tokenizer.ggml.token_type")[41]), shown(&Value::I32(5)));
    let error = tokenizer_keys(&model.location(), 39).unwrap_err().to_string();
    assert!(error.contains("39 rows"), "{error}");
}

/// SentencePiece's BPE as transformers writes it.
fn write_pieces(directory: &Path, normalizer: &serde_json::Value) {
    let special = ["<unk>", "<s>", "</s>"].map(str::to_owned);
    let bytes = (0..=255).map(|byte: u8| format!("<0x{byte:02X}>"));
    let pieces = ["▁", "a", "b", "c", "ab", "▁a", "▁ab", "▁▁", "▁▁▁", "<tag>"].map(str::to_owned);
    let tokens = special.iter().cloned().chain(bytes).chain(pieces);
    let vocabulary: serde_json::Map<String, serde_json::Value> =
        tokens.zip(0..).map(|(token, id)| (token, id.into())).collect();
    let added = special.iter().map(|token| (token.as_str(), true)).chain([("<tag>", false)]).map(|(token, special)| {
        json!({"id": vocabulary[token], "content": token, "special": special, "normalized": false, "single_word": false,
            "lstrip": false, "rstrip": false})
    });
    let merges = [["a", "b"], ["▁", "a"], ["▁a", "b"], ["▁", "ab"], ["▁▁", "▁"], ["▁", "▁▁"], ["▁", "▁"]];
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": normalizer, "pre_tokenizer": null, "post_processor": null,
        "decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}, {"type": "Fuse"}]},
        "model": {"type": "BPE", "byte_fallback": true, "fuse_unk": true, "unk_token": "<unk>", "vocab": vocabulary,
            "merges": merges},
    });
    let config =
        json!({"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": true, "chat_template": "{{ bos_token }}x"});
    std::fs::write(directory.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    std::fs::write(directory.join("tokenizer_config.json"), config.to_string()).unwrap();
}

#[test]
fn pieces_get_scores_in_the_order_of_their_merges() {
    let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
    let prepend = json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "▁"}, replace]});
    for (normalizer, has_prefix) in [(replace.clone(), false), (prepend, true)] {
        let directory = TempDir::new().unwrap();
        write_pieces(directory.path(), &normalizer);
        let n_rows = 3 + 256 + 10;
        let keys = tokenizer_keys(&huggingface(directory.path()), n_rows).unwrap();
        let get = |key: &str| &keys.iter().find(|(k, _)| k == &format!("tokenizer.{key}")).unwrap().1;
        assert_eq!(shown(get("ggml.model")), shown(&Value::String("llama".into())));
        assert_eq!(get("ggml.add_space_prefix").to_bool().unwrap(), has_prefix);
        assert!(get("ggml.add_bos_token").to_bool().unwrap());
        assert_eq!(get("chat_template").to_string().unwrap(), "{{ bos_token }}x");
        let kinds: Vec<i32> =
            get("ggml.token_type").to_vec().unwrap().iter().map(|kind| kind.to_i32().unwrap()).collect();
        assert_eq!((&kinds[..4], &kinds[n_rows - 2..]), ([2, 3, 3, 6].as_slice(), [1, 4].as_slice()));
        let scores = get("ggml.scores").to_vec().unwrap();
        let score = |at: usize| scores[3 + 256 + at].to_f32().unwrap();
        // ab, ▁a, ▁ab; ▁▁▁ before ▁▁, whose merge comes after both of its own.
        assert_eq!([4, 5, 6, 8, 7].map(score), [0.0, -1.0, -2.0, -3.0, -4.0]);
        assert!(score(0) < -4.0, "characters come last");

        // A file of the keys alone.
        let file = directory.path().join("pieces.gguf");
        let pairs: Vec<(&str, &Value)> = keys.iter().map(|(key, value)| (key.as_str(), value)).collect();
        gguf_file::write(&mut File::create(&file).unwrap(), &pairs, &[]).unwrap();
        let (ours, theirs) = (Codec::load(&gguf(&file)).unwrap(), Codec::load(&huggingface(directory.path())).unwrap());
        for text in ["ab a  b", "abc   é\n", "a<tag>ab", "</s>"] {
            assert_eq!(ours.encode_completion(text).unwrap(), theirs.encode_completion(text).unwrap(), "{text}");
        }
    }
}

/// Real vocabularies, from GGUF to `tokenizer.json` and back; needs the folder that `ggml_vocabs.rs` does.
#[test]
fn published_vocabularies_come_back() {
    let Some(folder) = std::env::var_os("MRPO_GGML_VOCABS") else {
        eprintln!("skipped: MRPO_GGML_VOCABS names no folder");
        return;
    };
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut n_same = 0;
    for file in files.filter(|path| path.extension().is_some_and(|e| e == "gguf")) {
        let Ok(codec) = Codec::load(&gguf(&file)) else { continue };
        let directory = TempDir::new().unwrap();
        codec.save(directory.path()).unwrap();
        let (theirs, _) = content(&file);
        let n_rows = theirs.metadata["tokenizer.ggml.tokens"].to_vec().unwrap().len();
        let keys = tokenizer_keys(&huggingface(directory.path()), n_rows)
            .unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        for key in ["tokens", "merges", "bos_token_id", "eos_token_id"] {
            let key = format!("tokenizer.ggml.{key}");
            let ours = keys.iter().find(|(k, _)| *k == key).map(|(_, value)| shown(value));
            assert!(ours.is_none() || ours == theirs.metadata.get(&key).map(shown), "{}: {key}", file.display());
        }
        n_same += 1;
    }
    assert!(n_same > 10, "{n_same} vocabularies");
}

#[test]
fn what_gguf_cannot_say_is_refused_by_name_and_a_lost_window_is_told() {
    let refused = |model: &Model| {
        let out = model.path("out.gguf");
        let error = write(&model.location(), ExportFormat::Gguf, ExportDtype::Float16, &out).unwrap_err();
        let names: Vec<_> =
            std::fs::read_dir(model.directory.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert!(names.iter().all(|name| !name.to_string_lossy().starts_with("out")), "{names:?}");
        error.to_string()
    };
    assert!(refused(&Model::new("gemma2")).contains("scale of its attention"));
    let model = Model::for_gguf("gpt2");
    model.change("activation_function", "gelu".into());
    assert!(refused(&model).contains("activation"));
    let model = Model::for_gguf("qwen3");
    let llama3 = json!({"rope_type": "llama3", "rope_theta": 500.0, "factor": 4.0, "low_freq_factor": 1.0,
        "high_freq_factor": 4.0, "original_max_position_embeddings": 32});
    model.change("rope_parameters", llama3);
    assert!(refused(&model).contains("llama3"));
    let model = Model::for_gguf("llama");
    write_tokenizer(model.directory.path(), &json!({"type": "WhitespaceSplit"}));
    assert!(refused(&model).contains("tokenizer.ggml.pre"));

    let mistral = Model::new("mistral");
    let exported =
        write(&mistral.location(), ExportFormat::Gguf, ExportDtype::Float32, &mistral.path("out.gguf")).unwrap();
    assert_eq!(exported.lost_window, Some(5));
}

#[test]
fn an_export_that_is_not_wanted_any_more_leaves_nothing() {
    let model = Model::for_gguf("llama");
    for (format, out) in [(ExportFormat::Gguf, "out.gguf"), (ExportFormat::Huggingface, "out")] {
        let location = model.location();
        let export = Export { location: &location, format, dtype: ExportDtype::Float16, name: None };
        let until_the_third = &mut |n_done: usize, _: usize| {
            if n_done < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        let error = export.write(&model.path(out), until_the_third).unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(ModelError::Interrupted)), "{error}");
        assert!(!model.path(out).exists() && !model.path(&format!("{out}.writing")).exists());
    }
}

#[test]
fn biases_of_a_llama_come_back() {
    let model = Model::for_gguf("llama");
    model.change("attention_bias", true.into());
    model.change("mlp_bias", true.into());
    let mut tensors = candle_core::safetensors::load(model.fixture.join("model.safetensors"), &Device::Cpu).unwrap();
    let matrices: Vec<String> = tensors.keys().filter(|name| name.contains("proj")).cloned().collect();
    for name in matrices {
        // A row's sum will do.
        let bias = tensors[&name].sum(1).unwrap();
        tensors.insert(name.replace(".weight", ".bias"), bias);
    }
    candle_core::safetensors::save(&tensors, model.path("model.safetensors")).unwrap();
    let out = export_gguf(&model, &model.location(), ExportDtype::Float32);
    assert_eq!(model.difference(&model.location(), &gguf(&out)), 0.0);
}

#[test]
fn the_command_exports_and_leaves_nothing_half_written() {
    let model = Model::for_gguf("llama");
    let mrpo = |limit: &str, arguments: &[&str]| {
        let script = "trap '' XFSZ; ulimit -f $1; shift; exec \"$0\" export \"$@\"";
        let mut command = Command::new("sh");
        command.args(["-c", script, env!("CARGO_BIN_EXE_mrpo"), limit]).args(arguments);
        let output = command.output().unwrap();
        (output.status.success(), String::from_utf8(output.stderr).unwrap())
    };
    let (source, adapter) = (model.directory.path().to_str().unwrap(), model.fixture.join("adapter"));
    let (adapter, out) = (adapter.to_str().unwrap(), model.path("out.gguf"));
    let arguments =
        [source, "--adapter", adapter, "--format", "gguf", "--dtype", "float32", "--out", out.to_str().unwrap()];

    let (is_done, message) = mrpo("20", &arguments);
    assert!(!is_done && message.contains("no room"), "{message}");
    assert!(!out.exists() && !model.path("out.gguf.writing").exists());
    let (is_done, message) = mrpo("unlimited", &arguments);
    assert!(is_done, "{message}");
    assert_eq!(model.difference(&model.with_adapter(), &gguf(&out)), 0.0);
    let (is_done, message) = mrpo("unlimited", &arguments);
    assert!(!is_done && message.contains("is there already"), "{message}");

    let elsewhere = model.path("again").to_str().unwrap().to_owned();
    let refused = |arguments: &[&str], word: &str| {
        let (is_done, message) = mrpo("unlimited", &[arguments, &["--out", &elsewhere]].concat());
        assert!(!is_done && message.contains(word), "{message}");
    };
    refused(&[adapter, "--format", "gguf"], "--adapter");
    refused(&[source, "--format", "gguf", "--adapter", source], "not an adapter");
    refused(&[source, "--format", "huggingface", "--dtype", "q8_0"], "q8_0");
}
