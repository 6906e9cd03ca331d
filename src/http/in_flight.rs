//! How many requests are worked on at once: so many in all, and half of them with one key, so that nobody's slow line keeps everybody
//! else out.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{Semaphore, SemaphorePermit};

use crate::domain::{Caller, KeyId};

/// Counts them.
#[derive(Debug)]
pub(super) struct InFlight {
    all: Semaphore,
    /// Only keys that have a request are here.
    with_key: Mutex<HashMap<KeyId, usize>>,
    most_with_key: usize,
}

impl InFlight {
    /// So many in all.
    pub(super) fn new(most: usize) -> Self {
        Self { all: Semaphore::new(most), with_key: Mutex::default(), most_with_key: most.div_ceil(2) }
    }

    /// A place for a request, until it is dropped; none where all are taken.
    pub(super) fn enter(&self) -> Option<SemaphorePermit<'_>> {
        self.all.try_acquire().ok()
    }

    /// A place among those of the caller's key, until it is dropped; none where its half is taken. Nobody's key is not counted: that
    /// is this machine's own.
    pub(super) fn enter_with_key(&self, caller: &Caller) -> Option<PlaceOfKey<'_>> {
        if let Some(key) = &caller.key {
            let mut with_key = self.with_key();
            let n = with_key.entry(key.clone()).or_default();
            if *n >= self.most_with_key {
                return None;
            }
            *n += 1;
        }
        Some(PlaceOfKey { in_flight: self, key: caller.key.clone() })
    }

    fn with_key(&self) -> MutexGuard<'_, HashMap<KeyId, usize>> {
        self.with_key.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request's place among those of its key.
#[derive(Debug)]
pub(super) struct PlaceOfKey<'a> {
    in_flight: &'a InFlight,
    key: Option<KeyId>,
}

impl Drop for PlaceOfKey<'_> {
    fn drop(&mut self) {
        let Some(key) = &self.key else { return };
        let mut with_key = self.in_flight.with_key();
        if let Some(n) = with_key.get_mut(key) {
            *n -= 1;
            if *n == 0 {
                with_key.remove(key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Role, Scope};

    #[test]
    fn a_key_has_half_of_the_places_and_gives_them_back() {
        let in_flight = InFlight::new(4);
        let with = |key: Option<KeyId>| Caller { user: None, key, role: Role::Member, scope: Scope::Write };
        let (one, other, nobodys) = (with(Some(KeyId::new())), with(Some(KeyId::new())), with(None));
        let places: Vec<_> = (0..2).filter_map(|_| in_flight.enter_with_key(&one)).collect();
        assert_eq!(places.len(), 2);
        assert!(in_flight.enter_with_key(&one).is_none());
        assert!(in_flight.enter_with_key(&other).is_some());
        assert!((0..9).all(|_| in_flight.enter_with_key(&nobodys).is_some()));
        drop(places);
        assert!(in_flight.with_key().is_empty());
        assert!(in_flight.enter_with_key(&one).is_some());
        let all: Vec<_> = (0..4).map_while(|_| in_flight.enter()).collect();
        assert_eq!(all.len(), 4);
        assert!(in_flight.enter().is_none());
    }
}
