//! What is wrong with an input: every problem, not only the first.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// One thing wrong with an input.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// Line of the file, counted from 1; absent where the input is a request body.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub line: Option<u64>,
    /// Where in the line or body, as a JSON pointer (RFC 6901).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pointer: Option<String>,
    /// The kind of problem, for programs.
    pub code: String,
    /// What is wrong and the way out, for people.
    pub message: String,
}

/// A list of problems, kept short: the first [`Problems::MAX_KEPT`], and how many there were.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct Problems {
    /// How many problems there were in all.
    pub n_total: u64,
    /// The first of them, in order.
    pub first: Vec<Problem>,
}

impl Problems {
    /// How many problems are kept.
    pub const MAX_KEPT: usize = 100;

    /// Records one more.
    pub fn push(&mut self, problem: Problem) {
        self.n_total += 1;
        if self.first.len() < Self::MAX_KEPT {
            self.first.push(problem);
        }
    }

    /// Records a problem of a request body.
    pub fn at(&mut self, pointer: impl Into<String>, code: &str, message: impl Into<String>) {
        self.push(Problem {
            line: None,
            pointer: Some(pointer.into()),
            code: code.to_owned(),
            message: message.into(),
        });
    }

    /// Whether nothing was wrong.
    pub fn is_empty(&self) -> bool {
        self.n_total == 0
    }
}
