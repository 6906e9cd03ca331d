//! A tiny random model of every architecture, as transformers and PEFT wrote it, against their log-probabilities and gradients
//! (`scripts/fixtures/make_models.py`), and against itself.

use std::{collections::HashMap, path::PathBuf};

use candle_core::{
    Device, Tensor,
    quantized::{GgmlDType, QTensor, gguf_file},
};
use mrpo::{
    domain::{Dtype, Lora, ModelLocation, TargetModule, TargetModules, WeightsFormat},
    model::{
        Decoder, DropoutKey, FAMILIES, Gradients, LoraShape, Matrices, Parameters, Purpose, Tuning, Weights,
        generate_greedy, inspect, layout::Packed, save_adapter, save_full,
    },
};
use serde::Deserialize;

const NAMES: [&str; 10] =
    ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2", "gpt_neox", "gpt_neox_sequential"];

/// Log-probabilities, in nats: theirs are computed in float64.
const LOGP_TOLERANCE: f32 = 5e-5;
/// Gradients, relative to the largest of their tensor.
const GRADIENT_TOLERANCE: f32 = 5e-5;

#[derive(Deserialize)]
struct Prompts {
    prompts: Vec<Conversation>,
}

#[derive(Deserialize)]
struct Conversation {
    prompt: Vec<u32>,
    completions: Vec<Vec<u32>>,
    coefficients: Vec<f32>,
}

/// One model's files.
struct Fixture {
    name: &'static str,
    directory: PathBuf,
    expected: HashMap<String, Tensor>,
    prompts: Vec<Conversation>,
}

impl Fixture {
    fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|name| {
            let directory = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models").join(name);
            let expected = candle_core::safetensors::load(directory.join("expected.safetensors"), &Device::Cpu);
            let prompts = std::fs::read(directory.join("batch.json")).expect("read");
            let Prompts { prompts } = serde_json::from_slice(&prompts).expect("read");
            Self { name, expected: expected.expect("read"), prompts, directory }
        })
    }

    fn location(&self) -> ModelLocation {
        ModelLocation { format: WeightsFormat::Huggingface, weights: self.directory.clone(), adapters: Vec::new() }
    }

    fn batch(&self) -> Packed {
        let mut batch = Packed::default();
        self.prompts.iter().for_each(|prompt| prompt.push_to(&mut batch));
        batch
    }

    /// dL/dlogp of every scored token.
    fn d_logps(&self) -> Vec<f32> {
        let of_completion = |p: &Conversation| {
            let tokens = p.completions.iter().zip(&p.coefficients).map(|(c, coefficient)| vec![*coefficient; c.len()]);
            tokens.collect::<Vec<_>>().concat()
        };
        self.prompts.iter().flat_map(of_completion).collect()
    }

    fn check_logps(&self, what: &str, ours: &[f32], key: &str) {
        let theirs: Vec<f32> = self.expected[key].to_vec1().expect("read");
        assert_eq!(ours.len(), theirs.len());
        let worst = ours.iter().zip(&theirs).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(worst < LOGP_TOLERANCE, "{}, {what}: log-probabilities differ by {worst}", self.name);
    }

    /// Every parameter's gradient is there, as expected, and no other.
    fn check_gradients(&self, (decoder, parameters): &(Decoder, Parameters), kind: &str) {
        let batch = self.batch();
        let purpose = Purpose::Train(DropoutKey { seed: 1, pass: 0 });
        let forward = decoder.forward(&batch, parameters, purpose).expect("computed");
        let mut gradients = Gradients::new(parameters.len());
        decoder.backward(&batch, forward, &self.d_logps(), parameters, &mut gradients).expect("computed");
        let n_expected = self.expected.keys().filter(|key| key.starts_with(&format!("{kind}/"))).count();
        assert_eq!(parameters.len(), n_expected, "{}, {kind}", self.name);
        for (id, name, _) in parameters.iter() {
            let theirs = self.expected.get(&format!("{kind}/{name}"));
            let theirs = theirs.unwrap_or_else(|| panic!("{}: {kind} has no {name}", self.name));
            let ours = gradients.get(id).unwrap_or_else(|| panic!("{}: {name} has no gradient", self.name));
            // GPT-2's matrices are stored (in, out), and known as (out, in).
            let is_stored_transposed =
                self.name == "gpt2" && kind == "full" && name.contains(".h.") && ours.rank() == 2;
            let theirs = if is_stored_transposed { theirs.t().expect("a matrix") } else { theirs.clone() };
            assert_eq!(ours.dims(), theirs.dims(), "{}: {name}", self.name);
            let difference = relative_difference(ours, &theirs);
            assert!(difference < GRADIENT_TOLERANCE, "{}, {kind}: the gradient of {name}: {difference}", self.name);
        }
    }

    fn lora(&self) -> (Decoder, Parameters) {
        let weights = Weights::load(&self.location(), Dtype::Float32).expect("loaded");
        let targets = weights.config.family.targets();
        let shape = LoraShape { rank: 2, scale: 4.0, dropout: 0.0 };
        let tuning = Tuning::Lora { shape, targets, seed: 3 };
        let (decoder, mut parameters) = Decoder::new(weights, &tuning, Dtype::Float32).expect("built");
        let file = self.directory.join("adapter/adapter_model.safetensors");
        let adapter = candle_core::safetensors::load(file, &Device::Cpu).expect("read");
        let ids: Vec<_> = parameters.iter().map(|(id, name, _)| (id, name.to_owned())).collect();
        assert_eq!(ids.len(), adapter.len(), "{}", self.name);
        for (id, name) in ids {
            let value = adapter.get(&name).unwrap_or_else(|| panic!("{}: PEFT has no {name}", self.name));
            parameters.set(id, value.clone());
        }
        (decoder, parameters)
    }
}

impl Conversation {
    fn push_to(&self, batch: &mut Packed) {
        batch.push(&self.prompt, &self.completions.iter().map(Vec::as_slice).collect::<Vec<_>>());
    }
}

fn numbers(tensor: &Tensor) -> Vec<f32> {
    tensor.flatten_all().and_then(|t| t.to_vec1()).expect("read")
}

fn relative_difference(ours: &Tensor, theirs: &Tensor) -> f32 {
    let (ours, theirs) = (numbers(ours), numbers(&theirs.contiguous().expect("copied")));
    let largest = theirs.iter().fold(0f32, |a, x| a.max(x.abs()));
    assert!(largest > 0.0, "there is something to compare");
    ours.iter().zip(&theirs).fold(0f32, |a, (x, y)| a.max((x - y).abs())) / largest
}

fn frozen(location: &ModelLocation, dtype: Dtype) -> (Decoder, Parameters) {
    let weights = Weights::load(location, dtype).expect("loaded");
    Decoder::new(weights, &Tuning::Frozen, dtype).expect("built")
}

fn logps((decoder, parameters): &(Decoder, Parameters), batch: &Packed) -> Vec<f32> {
    decoder.forward(batch, parameters, Purpose::Score).expect("computed").token_logps
}

#[test]
fn every_architecture_has_a_fixture() {
    let seen: Vec<String> = Fixture::all().map(|f| inspect(&f.location()).expect("inspected").architecture).collect();
    for family in FAMILIES {
        assert!(seen.iter().any(|name| name == family.architecture), "{}", family.architecture);
    }
}

#[test]
fn log_probabilities_are_those_of_transformers() {
    for fixture in Fixture::all() {
        let model = frozen(&fixture.location(), Dtype::Float32);
        fixture.check_logps("float32", &logps(&model, &fixture.batch()), "token_logps");
        let facts = inspect(&fixture.location()).expect("inspected");
        let weights = candle_core::safetensors::load(fixture.directory.join("model.safetensors"), &Device::Cpu);
        let n: usize = weights.expect("read").values().map(Tensor::elem_count).sum();
        assert_eq!(facts.n_parameters, n as u64, "{}", fixture.name);
    }
}

#[test]
fn a_row_of_a_batch_is_the_row_alone_to_the_last_bit() {
    for fixture in Fixture::all() {
        let model = frozen(&fixture.location(), Dtype::Float32);
        let together = logps(&model, &fixture.batch());
        let mut alone = Vec::new();
        for prompt in &fixture.prompts {
            for completion in &prompt.completions {
                let mut batch = Packed::default();
                batch.push(&prompt.prompt, &[completion]);
                alone.extend(logps(&model, &batch));
            }
        }
        assert_eq!(together, alone, "{}", fixture.name);
    }
}

#[test]
fn full_gradients_are_those_of_transformers() {
    for fixture in Fixture::all() {
        let weights = Weights::load(&fixture.location(), Dtype::Float32).expect("loaded");
        let model = Decoder::new(weights, &Tuning::Full, Dtype::Float32).expect("built");
        fixture.check_logps("full", &logps(&model, &fixture.batch()), "token_logps");
        fixture.check_gradients(&model, "full");
    }
}

#[test]
fn lora_gradients_are_those_of_peft() {
    for fixture in Fixture::all() {
        let model = fixture.lora();
        fixture.check_logps("LoRA", &logps(&model, &fixture.batch()), "lora_token_logps");
        fixture.check_gradients(&model, "lora");
    }
}

#[test]
fn an_adapter_of_peft_is_merged() {
    for fixture in Fixture::all() {
        let location = ModelLocation { adapters: vec![fixture.directory.join("adapter")], ..fixture.location() };
        let model = frozen(&location, Dtype::Float32);
        fixture.check_logps("merged", &logps(&model, &fixture.batch()), "lora_token_logps");
    }
}

#[test]
fn a_gguf_file_of_llama_cpp_is_the_same_model() {
    for fixture in Fixture::all() {
        let weights = fixture.directory.join("model.gguf");
        let location = ModelLocation { format: WeightsFormat::Gguf, weights, adapters: Vec::new() };
        let found = inspect(&location).expect("inspected");
        assert_eq!(found.n_parameters, inspect(&fixture.location()).expect("inspected").n_parameters);
        let model = frozen(&location, Dtype::Float32);
        fixture.check_logps("GGUF", &logps(&model, &fixture.batch()), "gguf_token_logps");
        // What is saved of it is read again as the same model.
        let saved = tempfile::tempdir().expect("set up");
        let weights = Weights::load(&location, Dtype::Float32).expect("loaded");
        let (decoder, parameters) = Decoder::new(weights, &Tuning::Full, Dtype::Float32).expect("built");
        save_full(saved.path(), &parameters, decoder.config()).expect("saved");
        let location = ModelLocation { weights: saved.path().to_owned(), ..fixture.location() };
        let again = frozen(&location, Dtype::Float32);
        fixture.check_logps("saved", &logps(&again, &fixture.batch()), "gguf_token_logps");
    }
}

/// The Llama's GGUF file with all matrices in Q8_0 whose rows are whole blocks.
fn quantised_gguf(directory: &std::path::Path) -> ModelLocation {
    let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/models/llama/model.gguf");
    let mut reader = std::fs::File::open(source).expect("opened");
    let content = gguf_file::Content::read(&mut reader).expect("read");
    let mut tensors = Vec::new();
    for (name, info) in &content.tensor_infos {
        let tensor = content.tensor(&mut reader, name, &Device::Cpu).expect("read");
        let dims = info.shape.dims();
        let fits = dims.len() == 2 && dims[1] % GgmlDType::Q8_0.block_size() == 0;
        let dense = tensor.dequantize(&Device::Cpu).expect("computed");
        let kind = if fits { GgmlDType::Q8_0 } else { GgmlDType::F32 };
        tensors.push((name.as_str(), QTensor::quantize(&dense, kind).expect("computed")));
    }
    assert!(tensors.iter().filter(|(_, tensor)| tensor.dtype() == GgmlDType::Q8_0).count() > 10);
    let metadata: Vec<_> = content.metadata.iter().map(|(key, value)| (key.as_str(), value)).collect();
    let tensors: Vec<_> = tensors.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let weights = directory.join("q8_0.gguf");
    let mut file = std::fs::File::create(&weights).expect("made");
    gguf_file::write(&mut file, &metadata, &tensors).expect("written");
    ModelLocation { format: WeightsFormat::Gguf, weights, adapters: Vec::new() }
}

#[test]
fn matrices_that_stay_quantised_give_the_same_bits() {
    let directory = tempfile::tempdir().expect("set up");
    let location = quantised_gguf(directory.path());
    let fixture = Fixture::all().next().expect("the first is Llama");
    let shape = LoraShape { rank: 2, scale: 4.0, dropout: 0.0 };
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        for targets in [vec![], vec![TargetModule::QProj, TargetModule::DownProj]] {
            let tuning = Tuning::Lora { shape, targets, seed: 3 };
            let [dense, quantised] = [Matrices::Dense, Matrices::AsStored].map(|matrices| {
                let weights = Weights::load_as(&location, dtype, matrices).expect("loaded");
                let (decoder, parameters) = Decoder::new(weights, &tuning, dtype).expect("built");
                let purpose = Purpose::Train(DropoutKey { seed: 1, pass: 0 });
                let batch = fixture.batch();
                let forward = decoder.forward(&batch, &parameters, purpose).expect("computed");
                let logps = forward.token_logps.clone();
                let mut gradients = Gradients::new(parameters.len());
                decoder.backward(&batch, forward, &fixture.d_logps(), &parameters, &mut gradients).expect("computed");
                let gradients = parameters.iter().map(|(id, _, _)| numbers(gradients.get(id).expect("there")));
                (logps, gradients.collect::<Vec<_>>())
            });
            assert_eq!(dense, quantised);
            let exact: Vec<f32> = fixture.expected["gguf_token_logps"].to_vec1().expect("read");
            let worst = exact.iter().zip(&dense.0).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
            assert!(worst > 0.0 && worst < 0.25, "{worst}");
        }
    }
}

#[test]
fn what_is_saved_is_what_transformers_and_peft_wrote() {
    for fixture in Fixture::all() {
        let saved = tempfile::tempdir().expect("set up");
        let weights = Weights::load(&fixture.location(), Dtype::Float32).expect("loaded");
        let (decoder, parameters) = Decoder::new(weights, &Tuning::Full, Dtype::Float32).expect("built");
        save_full(saved.path(), &parameters, decoder.config()).expect("saved");
        let same = |ours: PathBuf, theirs: PathBuf| {
            let read = |file| candle_core::safetensors::load(file, &Device::Cpu).expect("read");
            let (ours, theirs) = (read(ours), read(theirs));
            assert_eq!(ours.len(), theirs.len(), "{}", fixture.name);
            for (name, ours) in ours {
                assert_eq!(ours.dims(), theirs[&name].dims(), "{}: {name}", fixture.name);
                assert_eq!(numbers(&ours), numbers(&theirs[&name]), "{}: {name}", fixture.name);
            }
        };
        same(saved.path().join("model.safetensors"), fixture.directory.join("model.safetensors"));

        let (decoder, parameters) = fixture.lora();
        let target_modules = TargetModules::default();
        let lora = Lora { rank: 2, alpha: 8.0, dropout: 0.0, target_modules };
        save_adapter(saved.path(), &parameters, decoder.config(), (&lora, "base")).expect("saved");
        let adapter = fixture.directory.join("adapter");
        same(saved.path().join("adapter_model.safetensors"), adapter.join("adapter_model.safetensors"));
        let read = |path: PathBuf| {
            let config: serde_json::Value = serde_json::from_slice(&std::fs::read(path).expect("read")).expect("read");
            let mut targets: Vec<TargetModule> =
                serde_json::from_value(config["target_modules"].clone()).expect("read");
            targets.sort();
            (config["r"].clone(), config["fan_in_fan_out"].clone(), config["lora_alpha"].as_f64(), targets)
        };
        let (ours, theirs) = (saved.path().join("adapter_config.json"), adapter.join("adapter_config.json"));
        assert_eq!(read(ours), read(theirs), "{}", fixture.name);
    }
}

#[test]
fn sampling_takes_the_likeliest_token() {
    for fixture in Fixture::all() {
        let model = frozen(&fixture.location(), Dtype::Float32);
        let mut text = fixture.prompts[0].prompt.clone();
        let sampled = generate_greedy(&model.0, &model.1, &text, &[], 8).expect("sampled");
        let next: Vec<f32> = fixture.expected["next_logits"].to_vec1().expect("read");
        let likeliest = |numbers: &[f32]| {
            (0..numbers.len()).max_by(|a, b| numbers[*a].total_cmp(&numbers[*b])).expect("some") as u32
        };
        assert_eq!(sampled[0], likeliest(&next), "{}", fixture.name);
        let vocabulary: Vec<[u32; 1]> = (0..next.len() as u32).map(|token| [token]).collect();
        let each: Vec<&[u32]> = vocabulary.iter().map(<[u32; 1]>::as_slice).collect();
        for token in sampled {
            let mut batch = Packed::default();
            batch.push(&text, &each);
            assert_eq!(token, likeliest(&logps(&model, &batch)), "{} after {text:?}", fixture.name);
            text.push(token);
        }
    }
}

/// Factors keep eight bits.
#[test]
fn bfloat16_is_near() {
    for fixture in Fixture::all() {
        let exact = logps(&frozen(&fixture.location(), Dtype::Float32), &fixture.batch());
        let rounded = logps(&frozen(&fixture.location(), Dtype::Bfloat16), &fixture.batch());
        let worst = exact.iter().zip(&rounded).fold(0f32, |worst, (a, b)| worst.max((a - b).abs()));
        assert!(worst > 0.0 && worst < 0.25, "{}: {worst}", fixture.name);
    }
}
