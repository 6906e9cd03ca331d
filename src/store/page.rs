//! One page of a list.

use super::Result;

/// One page of a list.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// What stands on it, in the list's order.
    pub items: Vec<T>,
    /// Whether more come after it.
    pub has_more: bool,
}

impl<T> Page<T> {
    /// How many rows to ask for so that `has_more` is known: one more than are wanted.
    pub(super) fn n_rows(limit: usize) -> i64 {
        i64::try_from(limit).unwrap_or(i64::MAX - 1) + 1
    }

    /// Cuts what [`Page::n_rows`] rows gave down to a page.
    pub(super) fn cut(items: impl Iterator<Item = Result<T>>, limit: usize) -> Result<Self> {
        let mut items = items.collect::<Result<Vec<T>>>()?;
        let has_more = items.len() > limit;
        items.truncate(limit);
        Ok(Self { items, has_more })
    }
}
