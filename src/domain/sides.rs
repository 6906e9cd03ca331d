//! Two values of one kind: of the chosen completion and of the rejected one.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A value per side of a preference pair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Sides<T> {
    /// Of the chosen completion.
    pub chosen: T,
    /// Of the rejected completion.
    pub rejected: T,
}

impl<T> Sides<T> {
    /// The same of both.
    pub fn map<U>(self, mut f: impl FnMut(T) -> U) -> Sides<U> {
        Sides { chosen: f(self.chosen), rejected: f(self.rejected) }
    }

    /// What two of them make, side by side.
    pub fn with<U, V>(self, other: Sides<U>, mut f: impl FnMut(T, U) -> V) -> Sides<V> {
        Sides { chosen: f(self.chosen, other.chosen), rejected: f(self.rejected, other.rejected) }
    }
}

impl Sides<f64> {
    /// Chosen less rejected.
    pub fn margin(self) -> f64 {
        self.chosen - self.rejected
    }
}
