//! Where a job stands, and the table of what may become of it.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Where a job stands (OpenAI's words).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum JobStatus {
    /// Its files or models are still being checked.
    ValidatingFiles,
    /// Waits for a device.
    Queued,
    /// A process works on it.
    Running,
    /// Waits for its user.
    Paused,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
    /// Ended by its user.
    Cancelled,
}

/// A change of status that the table does not have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a job that is {from} cannot become {to}")]
pub struct IllegalTransition {
    /// The status it has.
    pub from: JobStatus,
    /// The status it was to get.
    pub to: JobStatus,
}

impl JobStatus {
    /// Every status.
    pub const ALL: [Self; 7] = [
        Self::ValidatingFiles,
        Self::Queued,
        Self::Running,
        Self::Paused,
        Self::Succeeded,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The word on the wire and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ValidatingFiles => "validating_files",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// The status a word stands for.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }

    /// Whether nothing changes any more.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Cancelled)
    }

    /// The table of legal changes: the only place that knows it.
    pub fn can_become(self, to: Self) -> bool {
        match self {
            Self::ValidatingFiles => matches!(to, Self::Queued | Self::Paused | Self::Failed | Self::Cancelled),
            Self::Queued => matches!(to, Self::Running | Self::Paused | Self::Failed | Self::Cancelled),
            // Back to queued: its process died and it waits to be started again from its newest checkpoint.
            Self::Running => {
                matches!(to, Self::Queued | Self::Paused | Self::Succeeded | Self::Failed | Self::Cancelled)
            }
            // Back to validating_files: it was paused before everything it reads had been checked.
            Self::Paused => matches!(to, Self::ValidatingFiles | Self::Queued | Self::Cancelled),
            Self::Succeeded | Self::Failed | Self::Cancelled => false,
        }
    }

    /// The statuses from which `to` may be reached.
    pub fn sources_of(to: Self) -> impl Iterator<Item = Self> {
        Self::ALL.into_iter().filter(move |from| from.can_become(to))
    }
}

impl std::fmt::Display for JobStatus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_final_status_stays() {
        for from in JobStatus::ALL {
            assert_eq!(JobStatus::parse(from.as_str()), Some(from));
            assert!(!(from.is_final() && JobStatus::ALL.iter().any(|to| from.can_become(*to))));
            assert!(!from.can_become(from));
        }
    }
}
