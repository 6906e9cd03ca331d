//! Unpacks gzip and Zstandard while it is read, within a budget.

use std::io::{self, BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::{
    BlockDecodingStrategy, FrameDecoder,
    errors::{FrameDecoderError, ReadFrameHeaderError},
};

use super::{
    budget::Budget,
    refusal::{self, Refusal},
};
use crate::domain::Compression;

const GZIP_MAGIC: &[u8] = b"\x1f\x8b";
const ZSTD_MAGIC: &[u8] = b"\x28\xb5\x2f\xfd";
/// The largest window a Zstandard frame may ask for: `zstd -19` asks for 8 MiB.
const MAX_ZSTD_WINDOW_BYTES: u64 = 32 << 20;
/// How much is unpacked at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// How a file that begins with `head` is packed.
pub(super) fn compression_of(head: &[u8]) -> Option<Compression> {
    if head.starts_with(GZIP_MAGIC) {
        Some(Compression::Gzip)
    } else if head.starts_with(ZSTD_MAGIC) {
        Some(Compression::Zstd)
    } else {
        None
    }
}

/// The content of a packed file of `n_packed` bytes.
pub(super) fn unpack(
    source: impl BufRead + Send + 'static,
    compression: Compression,
    n_packed: u64,
) -> Box<dyn BufRead + Send> {
    let budget = Budget::of(n_packed);
    let capacity = BUFFER_BYTES;
    match compression {
        Compression::Gzip => {
            let decoder = MultiGzDecoder::new(source);
            Box::new(BufReader::with_capacity(capacity, Bounded { decoder, what: "the gzip data", budget }))
        }
        Compression::Zstd => {
            let decoder = ZstdFrames::new(source);
            Box::new(BufReader::with_capacity(capacity, Bounded { decoder, what: "the Zstandard data", budget }))
        }
    }
}

/// A decoder whose errors name the way out and whose output is counted.
struct Bounded<R> {
    decoder: R,
    what: &'static str,
    budget: Budget,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n_bytes = self.decoder.read(buffer).map_err(|e| refusal::of_decoder(e, self.what))?;
        self.budget.spend(n_bytes as u64)?;
        Ok(n_bytes)
    }
}

/// The frames of a Zstandard file one after the other.
pub(super) struct ZstdFrames<R> {
    source: R,
    decoder: FrameDecoder,
    is_in_frame: bool,
}

impl<R: BufRead> ZstdFrames<R> {
    pub(super) fn new(source: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(MAX_ZSTD_WINDOW_BYTES);
        Self { source, decoder, is_in_frame: false }
    }

    /// Begins the next frame that holds data; `false` at the end.
    fn begin_frame(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.reset(&mut self.source) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame { length, .. })) => {
                    let n_skipped = io::copy(&mut (&mut self.source).take(length.into()), &mut io::sink())?;
                    if n_skipped < u64::from(length) {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                }
                Err(FrameDecoderError::WindowSizeTooBig { .. }) => {
                    let message = format!(
                        "the Zstandard data asks for a window above {} MiB: pack it with zstd -19 or less, without --long",
                        MAX_ZSTD_WINDOW_BYTES >> 20
                    );
                    return Err(Refusal::new("window_too_large", message).into());
                }
                Err(e) => return Err(io::Error::other(e)),
            }
        }
        Ok(false)
    }

    fn end_frame(&mut self) -> io::Result<()> {
        self.is_in_frame = false;
        let given = self.decoder.get_checksum_from_data();
        if given.is_some() && given != self.decoder.get_calculated_checksum() {
            return Err(io::Error::other("the checksum is another"));
        }
        Ok(())
    }
}

impl<R: BufRead> Read for ZstdFrames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.is_in_frame {
                if !self.begin_frame()? {
                    return Ok(0);
                }
                self.is_in_frame = true;
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, one).map_err(io::Error::other)?;
            }
            if self.decoder.can_collect() > 0 {
                return self.decoder.read(buffer);
            }
            self.end_frame()?;
        }
    }
}
