//! Which models read text alike: what of a model's files decides its [`Codec`](super::Codec).

use sha2::{Digest, Sha256};

use super::{error::TextError, huggingface};
use crate::domain::{ModelLocation, WeightsFormat};

/// Two models with the same fingerprint have codecs that do the same. Much cheaper than a codec; it may differ where codecs do
/// not.
///
/// Of a Hugging Face directory it is over the content of the text's files, wherever they lie; of a GGUF file, whose text stands
/// among its tensors, it is the path.
pub fn text_fingerprint(location: &ModelLocation) -> Result<[u8; 32], TextError> {
    let mut hash = Sha256::new();
    match location.format {
        WeightsFormat::Scores | WeightsFormat::Remote => {
            return Err(TextError::Invalid(WeightsFormat::NOT_A_MODEL.into()));
        }
        WeightsFormat::Gguf => {
            hash.update(b"gguf\0");
            hash.update(location.weights.as_os_str().as_encoded_bytes());
        }
        WeightsFormat::Huggingface => {
            for part in huggingface::parts_of_text(&location.weights)? {
                hash.update((part.len() as u64).to_le_bytes());
                hash.update(part);
            }
        }
    }
    Ok(hash.finalize().into())
}
