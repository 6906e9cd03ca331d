//! Unpacks one page to the size it says, and not a byte more.

use std::io::{self, Read};

use flate2::bufread::MultiGzDecoder;
use parquet::basic::CompressionCodec;

use super::damaged;
use crate::dataset::rows::{
    refusal::{Refusal, of_decoder},
    unpack::ZstdFrames,
};

/// The `n_unpacked` bytes of a page; the first `n_bare` of them are not packed.
pub(super) fn unpack(
    codec: CompressionCodec,
    packed: Vec<u8>,
    n_bare: usize,
    n_unpacked: usize,
) -> io::Result<Vec<u8>> {
    if codec == CompressionCodec::UNCOMPRESSED {
        return Ok(packed);
    }
    if n_bare > packed.len() || n_bare > n_unpacked {
        return Err(damaged().into());
    }
    let (bare, body) = packed.split_at(n_bare);
    let n_body = n_unpacked - n_bare;
    let mut page = Vec::with_capacity(n_unpacked);
    page.extend_from_slice(bare);
    if n_body == 0 {
        return Ok(page);
    }
    match codec {
        CompressionCodec::SNAPPY => {
            if snap::raw::decompress_len(body).ok() != Some(n_body) {
                return Err(damaged().into());
            }
            page.resize(n_unpacked, 0);
            snap::raw::Decoder::new().decompress(body, &mut page[n_bare..]).map_err(|_| damaged())?;
        }
        CompressionCodec::LZ4_RAW => {
            page.resize(n_unpacked, 0);
            let n_written = lz4_flex::block::decompress_into(body, &mut page[n_bare..]).map_err(|_| damaged())?;
            if n_written != n_body {
                return Err(damaged().into());
            }
        }
        CompressionCodec::GZIP => read(MultiGzDecoder::new(body), n_body, &mut page)?,
        CompressionCodec::ZSTD => read(ZstdFrames::new(body), n_body, &mut page)?,
        other => {
            let message = format!(
                "Parquet pages packed with {other:?} are not read: write it with snappy, gzip, zstd or lz4_raw"
            );
            return Err(Refusal::new("unsupported_compression", message).into());
        }
    }
    Ok(page)
}

/// Exactly `n_bytes` of a decoder.
fn read(decoder: impl Read, n_bytes: usize, page: &mut Vec<u8>) -> io::Result<()> {
    let what = "the Parquet file";
    let n_read = decoder.take(n_bytes as u64 + 1).read_to_end(page).map_err(|e| of_decoder(e, what))?;
    if n_read == n_bytes { Ok(()) } else { Err(damaged().into()) }
}
