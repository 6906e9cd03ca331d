//! What is computed together: heads in stacks, queries in blocks, keys in tiles.

use std::ops::Range;

use super::Matrix;
use crate::{
    domain::Dtype,
    model::{
        layout::{Segment, Sequence},
        ops::{AttentionShape, Heads},
    },
};

/// Rows of stacked queries in a block: nine panels of the product's kernel.
const STACKED_ROWS: usize = 126;
/// Most queries in a block: the scores behind the diagonal are computed for nothing.
const MAX_BLOCK: usize = 70;
/// Keys in a tile.
const TILE: usize = 256;

/// Query heads that are computed together: those of one key and value head. Of a model with one such head, each by itself, so that
/// there is work for several threads. Depends on the model alone, and so do the results.
#[derive(Clone, Copy)]
pub(super) struct Stack {
    pub(super) first: usize,
    pub(super) n: usize,
    pub(super) kv_head: usize,
}

impl Stack {
    pub(super) fn all(heads: Heads) -> impl Iterator<Item = Self> {
        let n = Self::size(heads);
        (0..heads.query).step_by(n).map(move |first| Self { first, n, kv_head: first / heads.group() })
    }

    pub(super) fn size(heads: Heads) -> usize {
        if heads.key_value > 1 { heads.group() } else { 1 }
    }

    /// Queries per block.
    pub(super) fn block(self) -> usize {
        (STACKED_ROWS / self.n).clamp(14, MAX_BLOCK)
    }
}

/// One stack of heads in the joined tensor: where its queries, keys and values start in a row.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) joined: &'a [f32],
    pub(super) width: usize,
    pub(super) size: usize,
    pub(super) n_heads: usize,
    pub(super) query: usize,
    pub(super) key: usize,
    pub(super) value: usize,
    pub(super) scale: f32,
    pub(super) softcap: Option<f32>,
    pub(super) dtype: Dtype,
}

impl<'a> Place<'a> {
    pub(super) fn new(joined: &'a [f32], shape: AttentionShape, stack: Stack) -> Self {
        let AttentionShape { heads, scale, softcap, dtype, .. } = shape;
        Self {
            joined,
            scale,
            softcap,
            dtype,
            width: heads.joined_width(),
            size: heads.size,
            n_heads: stack.n,
            query: stack.first * heads.size,
            key: heads.q_width() + stack.kv_head * heads.size,
            value: heads.q_width() + heads.kv_width() + stack.kv_head * heads.size,
        }
    }

    pub(super) fn rows(self, column: usize, (start, len): (usize, usize)) -> Matrix<'a> {
        // An empty range may start at the very end.
        let from = (start * self.width + column).min(self.joined.len());
        Matrix::new(&self.joined[from..], len, self.size, self.width)
    }
}

/// Stacks some columns of some rows of `from`: head by head, row by row, `size` numbers each.
pub(super) fn stack_rows(from: &[f32], width: usize, column: usize, block: Block, place: Place<'_>, to: &mut Vec<f32>) {
    to.clear();
    for head in 0..place.n_heads {
        for i in 0..block.len {
            let start = (block.first + i) * width + column + head * place.size;
            to.extend_from_slice(&from[start..start + place.size]);
        }
    }
}

/// A block of queries of one segment, and the keys before its last: the whole prefix, then the segment so far.
#[derive(Clone, Copy)]
pub(super) struct Block {
    pub(super) first: usize,
    pub(super) len: usize,
    pub(super) prefix: (usize, usize),
    pub(super) own: (usize, usize),
    /// Keys a query sees at most.
    pub(super) window: usize,
}

impl Block {
    pub(super) fn all(sequence: &Sequence, n_at_once: usize, window: Option<usize>) -> impl Iterator<Item = Self> + '_ {
        let window = window.unwrap_or(usize::MAX);
        sequence.segments.iter().flat_map(move |segment| Self::of(segment, n_at_once, window))
    }

    pub(super) fn of(segment: &Segment, n_at_once: usize, window: usize) -> impl Iterator<Item = Self> + '_ {
        (0..segment.len).step_by(n_at_once).map(move |at| {
            let len = n_at_once.min(segment.len - at);
            Self {
                first: segment.start + at,
                len,
                prefix: (segment.prefix.start, segment.prefix.len()),
                own: (segment.start, at + len),
                window,
            }
        })
    }

    /// Which of the keys query `i` of the block sees: the nearest up to itself.
    pub(super) fn visible(self, i: usize) -> Range<usize> {
        let end = self.prefix.1 + (self.first - self.own.0) + i + 1;
        end.saturating_sub(self.window)..end
    }

    /// The keys the block sees, in tiles. Where these begin does not depend on the window.
    pub(super) fn tiles(self) -> impl Iterator<Item = Tile> {
        let first_seen = self.visible(0).start;
        let parts = [(self.prefix, 0), (self.own, self.prefix.1)];
        let tiles = parts.into_iter().flat_map(|((first, len), before)| {
            (0..len).step_by(TILE).map(move |at| Tile {
                first: first + at,
                len: TILE.min(len - at),
                before: before + at,
            })
        });
        tiles.filter(move |tile| tile.before + tile.len > first_seen)
    }
}

/// Some neighbouring keys.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    pub(super) first: usize,
    pub(super) len: usize,
    /// Keys of the block that come before.
    pub(super) before: usize,
}

impl Tile {
    /// Which of its keys query `i` of the block sees.
    pub(super) fn visible(self, block: Block, i: usize) -> Range<usize> {
        let seen = block.visible(i);
        let end = seen.end.saturating_sub(self.before).min(self.len);
        seen.start.saturating_sub(self.before).min(end)..end
    }

    pub(super) fn keys(self) -> (usize, usize) {
        (self.first, self.len)
    }
}
