//! Numbers as files store them.

use candle_core::{
    DType, Tensor,
    quantized::{GgmlDType, QTensor},
};
use half::{bf16, f16};

use crate::{domain::ExportDtype, model::ModelError};

/// Numbers of one block of `Q8_0`.
const BLOCK: usize = 32;

/// The type of a stored tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    F32,
    F16,
    Bf16,
    /// 32 signed bytes and a scale in float16.
    Q8_0,
}

impl Number {
    /// The one of a GGUF file's matrix whose rows have `row` numbers. Rows that no whole blocks fill stay in float16.
    pub(super) fn of_rows(dtype: ExportDtype, row: usize) -> Self {
        match dtype {
            ExportDtype::Float32 => Self::F32,
            ExportDtype::Bfloat16 => Self::Bf16,
            ExportDtype::Q8_0 if row.is_multiple_of(BLOCK) => Self::Q8_0,
            ExportDtype::Float16 | ExportDtype::Q8_0 => Self::F16,
        }
    }

    /// ggml's number for it.
    pub(super) fn ggml(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q8_0 => 8,
            Self::Bf16 => 30,
        }
    }

    /// Size of `n` numbers in bytes.
    pub(super) fn n_bytes(self, n: usize) -> usize {
        match self {
            Self::F32 => 4 * n,
            Self::F16 | Self::Bf16 => 2 * n,
            Self::Q8_0 => n / BLOCK * (BLOCK + 2),
        }
    }

    /// A tensor's numbers, row after row.
    ///
    /// # Errors
    /// If one of them is beyond the type.
    pub(super) fn bytes_of(self, tensor: &Tensor, name: &str) -> Result<Vec<u8>, ModelError> {
        let numbers = tensor.to_dtype(DType::F32)?.flatten_all()?.to_vec1::<f32>()?;
        if self == Self::Q8_0 {
            // Of a part of a tensor candle would quantise the whole: it gets one of its own.
            let tensor = Tensor::from_vec(numbers, tensor.elem_count(), tensor.device())?;
            return Ok(QTensor::quantize(&tensor, GgmlDType::Q8_0)?.data()?.into_owned());
        }
        let mut bytes = Vec::with_capacity(self.n_bytes(numbers.len()));
        match self {
            Self::F16 => {
                for number in numbers {
                    let stored = f16::from_f32(number);
                    if stored.is_infinite() && number.is_finite() {
                        return Err(ModelError::Unsupported(format!(
                            "the weight {name} has a number ({number:e}) that float16 cannot hold: take bfloat16 or float32"
                        )));
                    }
                    bytes.extend(stored.to_le_bytes());
                }
            }
            Self::Bf16 => numbers.iter().for_each(|number| bytes.extend(bf16::from_f32(*number).to_le_bytes())),
            Self::F32 | Self::Q8_0 => numbers.iter().for_each(|number| bytes.extend(number.to_le_bytes())),
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn numbers_have_the_size_they_should_and_a_part_is_a_part() {
        let tensor = Tensor::arange(0f32, 64., &Device::Cpu).expect("made").reshape((2, 32)).expect("made");
        for number in [Number::F32, Number::F16, Number::Bf16, Number::Q8_0] {
            let bytes = number.bytes_of(&tensor, "w").expect("stored");
            assert_eq!(bytes.len(), number.n_bytes(64), "{number:?}");
            let second = tensor.narrow(0, 1, 1).expect("a part");
            let bytes_of_second = number.bytes_of(&second, "w").expect("stored");
            assert_eq!(bytes_of_second, bytes[number.n_bytes(32)..], "{number:?}");
        }
    }

    #[test]
    fn what_float16_cannot_hold_is_refused_by_name() {
        let tensor = Tensor::new(&[1f32, 70_000.], &Device::Cpu).expect("made");
        let error = Number::F16.bytes_of(&tensor, "model.norm.weight").expect_err("refused").to_string();
        assert!(error.contains("model.norm.weight") && error.contains("7e4"), "{error}");
        assert!(Number::Bf16.bytes_of(&tensor, "w").is_ok());
    }
}
