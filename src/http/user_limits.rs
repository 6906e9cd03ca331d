//! What one user may have, asked where something of theirs is about to be made.

use super::{
    App,
    error::{ApiError, ErrorCode},
};
use crate::{
    domain::{Caller, Priority, Role},
    store::JobTerms,
};

/// On what terms they may make a job with this priority.
///
/// # Errors
/// Of members, [`may_give`].
pub(super) fn job_terms(app: &App, caller: &Caller, priority: Option<Priority>) -> Result<JobTerms, ApiError> {
    let priority = priority.unwrap_or_default();
    may_give(caller, priority)?;
    Ok(JobTerms { priority, max_waiting: app.settings().queue.max_waiting_per_user })
}

/// Whether they may give a job this priority.
///
/// # Errors
/// `high` goes before everybody's jobs: members would all give it, and it would mean nothing.
pub(super) fn may_give(caller: &Caller, priority: Priority) -> Result<(), ApiError> {
    if priority < Priority::High || caller.role == Role::Admin {
        return Ok(());
    }
    let message = "the priority 'high' is an admin's to give: use 'normal' or 'low', or ask one";
    Err(ApiError::new(ErrorCode::AdminsOnly, message).param("priority"))
}
