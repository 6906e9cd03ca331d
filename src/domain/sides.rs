//! The two sides of a preference.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing of each completion of a pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Sides<T> {
    /// The better completion's.
    pub chosen: T,
    /// The worse completion's.
    pub rejected: T,
}

impl<T> Sides<T> {
    /// `f` of each.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Sides<U> {
        Sides { chosen: f(self.chosen), rejected: f(self.rejected) }
    }
}
