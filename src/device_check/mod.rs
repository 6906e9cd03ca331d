//! `mrpo check-device`: whether a device computes what the processor does, how fast each part is, and how fast a step.
//!
//! For the first hour with a machine: everything a bug report or a table of figures needs, from one binary, without a network.

mod operations;
mod speed;
mod training;

use candle_core::{Device, Result, Tensor};
use serde::Serialize;

use crate::{domain::Dtype, model::device};

/// Something that was found out.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "finding", rename_all = "snake_case")]
pub enum Finding {
    /// What is checked, and by whom.
    Device {
        /// `cpu`, or the GPU's name.
        name: String,
        /// Bytes of its memory; absent on the processor.
        memory_bytes: Option<usize>,
        /// Threads of the processor.
        n_threads: usize,
        /// Version of this program.
        version: &'static str,
    },
    /// A computation compared with the processor's, in float32, of the same numbers.
    Accuracy {
        /// What was computed.
        operation: String,
        /// In which type.
        dtype: Dtype,
        /// The largest difference, relative to the largest number. Absent if it could not be computed or is not a number.
        difference: Option<f64>,
        /// What the difference may be.
        limit: f64,
        /// Why it could not be computed.
        error: Option<String>,
    },
    /// Whether the same training, done twice, gives the same bytes.
    Determinism {
        /// In which type.
        dtype: Dtype,
        /// Whether it does.
        is_same: bool,
    },
    /// The speed of a product x·Wᵀ.
    Product {
        /// Rows of x, its columns, rows of W.
        shape: [usize; 3],
        /// In which type.
        dtype: Dtype,
        /// Microseconds.
        microseconds: f64,
        /// Multiplications and additions, in 10¹² per second.
        tflop_per_second: f64,
    },
    /// The speed of attention, forward and backward.
    Attention {
        /// Tokens of each sequence.
        n_tokens: usize,
        /// Number of sequences.
        n_sequences: usize,
        /// In which type.
        dtype: Dtype,
        /// Milliseconds.
        milliseconds: f64,
        /// Multiplications and additions, in 10¹² per second; two products forward, five backward, below the diagonal.
        tflop_per_second: f64,
    },
    /// The speed of training: pairs of a prompt of 256 tokens and two completions of 128.
    Step {
        /// The shape, by the name of a model that has it.
        model: &'static str,
        /// `lora` (rank 8 on q and v) or `full`.
        tuning: &'static str,
        /// In which type.
        dtype: Dtype,
        /// Tokens of a step.
        n_tokens: usize,
        /// Milliseconds of a step: forward, backward, optimizer.
        milliseconds: f64,
        /// Tokens per second.
        tokens_per_second: f64,
        /// Tokens per second of the forward pass alone, as references are scored.
        scored_tokens_per_second: f64,
        /// The most memory that was used, in bytes; absent on the processor.
        memory_bytes: Option<usize>,
    },
    /// Where the time of such a step goes.
    Operations {
        /// The shape.
        model: &'static str,
        /// The table of `mrpo run --op-times`.
        table: String,
    },
    /// Something that was not measured.
    LeftOut {
        /// What, and why.
        what: String,
    },
}

impl Finding {
    /// Whether it is as it should be.
    pub fn is_good(&self) -> bool {
        match self {
            Self::Accuracy { difference, limit, .. } => difference.is_some_and(|d| d <= *limit),
            Self::Determinism { is_same, .. } => *is_same,
            _ => true,
        }
    }
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = if self.is_good() { "ok   " } else { "WRONG" };
        match self {
            Self::Device { name, memory_bytes, n_threads, version } => {
                let memory = memory_bytes.map_or(String::new(), |bytes| format!(", {} MiB", bytes >> 20));
                write!(f, "{name}{memory}; {n_threads} threads; mrpo {version}")
            }
            Self::Accuracy { operation, dtype, difference, limit, error } => {
                let found = match (difference, error) {
                    (Some(difference), _) => format!("{difference:.1e} (limit {limit:.0e})"),
                    (None, Some(error)) => error.clone(),
                    (None, None) => "not a number".to_owned(),
                };
                write!(f, "{mark} {:<9} {operation:<44} {found}", name(*dtype))
            }
            Self::Determinism { dtype, is_same } => {
                let found = if *is_same { "the same bytes" } else { "different bytes" };
                write!(f, "{mark} {:<9} {:<44} {found}", name(*dtype), "three steps of training, twice")
            }
            Self::Product { shape: [m, k, n], dtype, microseconds, tflop_per_second } => write!(
                f,
                "{:<9} product {:<36} {microseconds:>10.1} us {tflop_per_second:>8.2} TFLOP/s",
                name(*dtype),
                format!("{m} x {k} x {n}")
            ),
            Self::Attention { n_tokens, n_sequences, dtype, milliseconds, tflop_per_second } => write!(
                f,
                "{:<9} attention {:<34} {milliseconds:>10.3} ms {tflop_per_second:>8.2} TFLOP/s",
                name(*dtype),
                format!("{n_sequences} x {n_tokens} tokens")
            ),
            Self::Step {
                model,
                tuning,
                dtype,
                n_tokens,
                milliseconds,
                tokens_per_second,
                scored_tokens_per_second,
                memory_bytes,
            } => {
                let memory = memory_bytes.map_or(String::new(), |bytes| format!(", {} MiB", bytes >> 20));
                write!(
                    f,
                    "{:<9} step {:<39} {milliseconds:>10.1} ms {tokens_per_second:>8.0} tokens/s, scoring {scored_tokens_per_second:.0}{memory}",
                    name(*dtype),
                    format!("{model}, {tuning}, {n_tokens} tokens")
                )
            }
            Self::Operations { model, table } => write!(f, "Where a step of {model} goes:\n{table}"),
            Self::LeftOut { what } => write!(f, "left out: {what}"),
        }
    }
}

fn name(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::Float32 => "float32",
        Dtype::Bfloat16 => "bfloat16",
    }
}

/// Checks `cpu`, `cuda` or `cuda:N`, and measures unless `only_accuracy`. Findings go to `tell` as they are made.
///
/// # Errors
/// If the device cannot be used at all. A wrong result is a finding.
pub fn check(device: &str, only_accuracy: bool, tell: &mut dyn FnMut(&Finding)) -> Result<()> {
    let device = device::open(device)?;
    let memory = device::memory(&device)?;
    tell(&Finding::Device {
        name: device::name(&device)?,
        memory_bytes: memory.map(|memory| memory.all),
        n_threads: rayon::current_num_threads(),
        version: env!("CARGO_PKG_VERSION"),
    });
    for dtype in [Dtype::Float32, Dtype::Bfloat16] {
        operations::check(&device, dtype, tell)?;
        training::check(&device, dtype, tell)?;
    }
    if !only_accuracy {
        speed::measure(&device, tell)?;
    }
    Ok(())
}

/// Results by name.
type Outputs = Vec<(String, Tensor)>;

/// Compares outputs, by name, with the processor's.
fn compare(
    (operation, dtype, limit): (&str, Dtype, f64),
    found: Result<Outputs>,
    expected: &[(String, Tensor)],
    tell: &mut dyn FnMut(&Finding),
) {
    let finding = |operation: String, difference: Result<Option<f64>>| {
        let (difference, error) = match difference {
            Ok(difference) => (difference, None),
            Err(error) => (None, Some(error.to_string())),
        };
        Finding::Accuracy { operation, dtype, difference, limit, error }
    };
    match found {
        Ok(found) => {
            for ((output, found), (_, expected)) in found.iter().zip(expected) {
                tell(&finding(format!("{operation}: {output}"), difference(found, expected)));
            }
            if found.len() != expected.len() {
                tell(&finding(operation.to_owned(), Err(candle_core::Error::Msg("outputs are missing".to_owned()))));
            }
        }
        Err(error) => tell(&finding(operation.to_owned(), Err(error))),
    }
}

/// The largest difference relative to the largest number expected; `None` where one is not a number.
fn difference(found: &Tensor, expected: &Tensor) -> Result<Option<f64>> {
    if found.dims() != expected.dims() {
        candle_core::bail!("the shape is {:?}, and should be {:?}", found.dims(), expected.dims())
    }
    let numbers = |tensor: &Tensor| {
        tensor.to_device(&Device::Cpu)?.to_dtype(candle_core::DType::F32)?.flatten_all()?.to_vec1::<f32>()
    };
    let (found, expected) = (numbers(found)?, numbers(expected)?);
    if found.iter().chain(&expected).any(|x| !x.is_finite()) {
        return Ok(None);
    }
    let largest = expected.iter().fold(0f32, |largest, x| largest.max(x.abs())).max(f32::MIN_POSITIVE);
    let difference = found.iter().zip(&expected).fold(0f32, |largest, (x, y)| largest.max((x - y).abs()));
    Ok(Some(f64::from(difference) / f64::from(largest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processor_passes_its_own_check() {
        let mut findings = Vec::new();
        check("cpu", true, &mut |finding| findings.push(finding.clone())).expect("checked");
        let wrong: Vec<String> = findings.iter().filter(|f| !f.is_good()).map(ToString::to_string).collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
        let compared = |dtype| {
            findings.iter().filter(move |f| matches!(f, Finding::Accuracy { dtype: of, .. } if *of == dtype)).count()
        };
        assert!(compared(Dtype::Bfloat16) > 60, "{}", compared(Dtype::Bfloat16));
        assert_eq!(compared(Dtype::Bfloat16), compared(Dtype::Float32));
        let differs = |f: &&Finding| matches!(f, Finding::Accuracy { difference: Some(d), .. } if *d > 0.0);
        assert!(findings.iter().filter(differs).count() > 30, "bfloat16 rounds");
    }

    #[test]
    fn what_is_wrong_is_found() {
        let tensor = |values: &[f32]| Tensor::new(values, &Device::Cpu).expect("made");
        let expected = [("y".to_owned(), tensor(&[1.0, -4.0]))];
        let cases: [(Result<Outputs>, &str); 6] = [
            (Ok(vec![("y".to_owned(), tensor(&[1.0, -4.0]))]), "ok "),
            (Ok(vec![("y".to_owned(), tensor(&[1.5, -4.0]))]), "1.2e-1 (limit 1e-1)"),
            (Ok(vec![("y".to_owned(), tensor(&[f32::NAN, -4.0]))]), "not a number"),
            (Ok(vec![("y".to_owned(), tensor(&[1.0]))]), "shape"),
            (Ok(Vec::new()), "missing"),
            (Err(candle_core::Error::Msg("no such kernel".to_owned())), "no such kernel"),
        ];
        for (n, (found, says)) in cases.into_iter().enumerate() {
            let mut told = Vec::new();
            compare(("sum", Dtype::Float32, 0.1), found, &expected, &mut |f| told.push((f.is_good(), f.to_string())));
            assert_eq!(told.len(), 1);
            assert_eq!(told[0].0, n == 0, "{}", told[0].1);
            assert!(told[0].1.contains(says), "{} says {says}", told[0].1);
        }
        assert!(!Finding::Determinism { dtype: Dtype::Float32, is_same: false }.is_good());
    }
}
