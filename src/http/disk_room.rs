//! Room on the disk, asked for before something is put there: what one user may have, and what the server keeps free.
//!
//! A body that is on its way in has its room from its first byte to its row, so that bodies that arrive at once cannot pass a limit that
//! each of them alone would keep. What the server keeps free is asked of what all of them have still to write.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use axum::http::HeaderMap;

use super::{
    App,
    error::{ApiError, ErrorCode},
    extract::content_length,
    form::FORM_BYTES,
};
use crate::{
    domain::{Caller, UserName},
    store::unix_now,
};

/// Bodies on their way in.
#[derive(Debug, Default)]
pub(super) struct Arriving(Arc<Mutex<Bodies>>);

#[derive(Debug, Default)]
struct Bodies {
    /// What everybody's have still to write, in bytes.
    unwritten: u64,
    /// Their bytes, by whose they will be.
    of_owners: HashMap<UserName, u64>,
}

/// Room that somebody has; it is given back with this. Without a limit it is all there is.
#[derive(Debug)]
pub(super) struct Room {
    arriving: Arc<Mutex<Bodies>>,
    limit: Option<(UserName, u64)>,
    bytes: u64,
    /// What of it is announced and not yet written.
    unwritten: u64,
}

impl Room {
    /// Room for so many bytes of `caller`.
    ///
    /// # Errors
    /// When the disk is low, or they have had their share.
    pub(super) async fn ask(app: &App, caller: &Caller, bytes: u64) -> Result<Self, ApiError> {
        let mut room = Self::none(app, caller);
        room.announce(app, bytes)?;
        room.resize(app, bytes).await?;
        Ok(room)
    }

    /// Room on the disk alone for so many bytes: of somebody whose share they count against already, or nobody.
    ///
    /// # Errors
    /// When the disk is low, or would be with them.
    pub(super) fn on_disk(app: &App, bytes: u64) -> Result<Self, ApiError> {
        let mut room = Self { arriving: app.arriving().0.clone(), limit: None, bytes: 0, unwritten: 0 };
        room.announce(app, bytes)?;
        Ok(room)
    }

    /// Room for a form with a file: what its head announces, or, where it announces nothing, all that is left.
    ///
    /// # Errors
    /// As of [`Room::ask`].
    pub(super) async fn for_form(app: &App, caller: &Caller, headers: &HeaderMap) -> Result<Self, ApiError> {
        match content_length(headers) {
            // Boundaries are none of the file; how large it is tells its last byte.
            Some(bytes) => Self::ask(app, caller, bytes.saturating_sub(FORM_BYTES).max(1)).await,
            None => {
                let mut room = Self::none(app, caller);
                room.announce(app, 1)?;
                if let Some((owner, max)) = room.limit.clone() {
                    let left = max.saturating_sub(room.others(&owner).saturating_add(taken(app, &owner).await?));
                    room.resize(app, left.max(1)).await?;
                }
                Ok(room)
            }
        }
    }

    /// The most a body may have that announced nothing: its room, or `max_bytes` where that is less.
    pub(super) fn at_most(&self, headers: &HeaderMap, max_bytes: u64) -> u64 {
        match &self.limit {
            Some(_) if content_length(headers).is_none() => self.bytes.min(max_bytes),
            _ => max_bytes,
        }
    }

    /// Takes so many bytes of room instead of those it has.
    ///
    /// # Errors
    /// When that is more than somebody may have, with what they have and the way out.
    pub(super) async fn resize(&mut self, app: &App, bytes: u64) -> Result<(), ApiError> {
        let Some((owner, max)) = self.limit.clone() else { return Ok(()) };
        // Noted before the rows are summed: whatever has arrived meanwhile stands in one of them.
        let others = self.note(&owner, bytes);
        let taken = taken(app, &owner).await?.saturating_add(others);
        if taken.saturating_add(bytes) <= max {
            return Ok(());
        }
        let message = format!(
            "your files, checkpoints and exports, with what is being uploaded, take {taken} bytes of the {max} that one user may have, \
             and this needs at least {bytes} more: delete some you no longer need (GET /v1/files, GET /v1/models/{{model}}/exports), then \
             send it again"
        );
        Err(ApiError::new(ErrorCode::DiskLimit, message))
    }

    fn none(app: &App, caller: &Caller) -> Self {
        let max = app.settings().queue.max_disk_bytes_per_user;
        let limit = caller.user.clone().zip(max);
        Self { arriving: app.arriving().0.clone(), limit, bytes: 0, unwritten: 0 }
    }

    /// Notes that so many bytes will be written, if the disk has them beside what others have announced.
    fn announce(&mut self, app: &App, bytes: u64) -> Result<(), ApiError> {
        let all = {
            let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
            arriving.unwritten = arriving.unwritten.saturating_add(bytes);
            self.unwritten = self.unwritten.saturating_add(bytes);
            arriving.unwritten
        };
        let disk = &app.settings().disk;
        if disk.is_low_at(disk.free_bytes().saturating_sub(all)) {
            return Err(ApiError::disk_low(disk.reserve_bytes()));
        }
        Ok(())
    }

    /// Notes that so many of its bytes have been written: the disk itself tells of them from now on.
    pub(super) fn written(&mut self, bytes: u64) {
        let bytes = bytes.min(self.unwritten);
        self.unwritten -= bytes;
        let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        arriving.unwritten = arriving.unwritten.saturating_sub(bytes);
    }

    /// What else of theirs is on its way in.
    fn others(&self, owner: &UserName) -> u64 {
        let arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        arriving.of_owners.get(owner).copied().unwrap_or(0).saturating_sub(self.bytes)
    }

    /// Takes so many bytes of room instead of those it has; what else of theirs is on its way in.
    fn note(&mut self, owner: &UserName, bytes: u64) -> u64 {
        let mut arriving = self.arriving.lock().unwrap_or_else(PoisonError::into_inner);
        let owners = &mut arriving.of_owners;
        let others = owners.get(owner).copied().unwrap_or(0).saturating_sub(self.bytes);
        match others.saturating_add(bytes) {
            0 => owners.remove(owner),
            all => owners.insert(owner.clone(), all),
        };
        self.bytes = bytes;
        others
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.written(self.unwritten);
        if let Some((owner, _)) = self.limit.take() {
            self.note(&owner, 0);
        }
    }
}

/// Refuses to put more on disk for somebody who has had their share.
///
/// # Errors
/// With what they have and the way out.
pub(super) async fn check_share(app: &App, caller: &Caller) -> Result<(), ApiError> {
    Room::none(app, caller).resize(app, 1).await
}

/// Refuses to put so many bytes on a disk that would then be low.
///
/// # Errors
/// With what is kept free and the way out.
pub(super) fn check_free(app: &App, more_bytes: u64) -> Result<(), ApiError> {
    Room::on_disk(app, more_bytes).map(drop)
}

async fn taken(app: &App, owner: &UserName) -> Result<u64, ApiError> {
    let announced = app.store().announced_bytes(owner, unix_now()).await?;
    Ok(app.store().disk_bytes(owner).await?.saturating_add(announced))
}
