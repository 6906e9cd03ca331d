//! How many requests a key may make: a bucket each, which fills up again at a steady rate.

use std::num::NonZeroU32;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::domain::{Caller, KeyId};

/// The buckets; there are as many as keys.
#[derive(Debug)]
pub(super) struct Rate(Option<DefaultKeyedRateLimiter<KeyId>>);

impl Rate {
    /// So many requests a second, and twice as many at once; without a number, any.
    pub(super) fn new(per_second: Option<NonZeroU32>) -> Self {
        let quota =
            |n: NonZeroU32| Quota::per_second(n).allow_burst(n.saturating_mul(NonZeroU32::MIN.saturating_add(1)));
        Self(per_second.map(|n| RateLimiter::keyed(quota(n))))
    }

    /// Whether one more is in their bucket, and takes it. Nobody's key is not counted: that is this machine's own.
    pub(super) fn allows(&self, caller: &Caller) -> bool {
        match (&self.0, &caller.key) {
            (Some(limiter), Some(key)) => limiter.check_key(key).is_ok(),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{Role, Scope};

    #[test]
    fn each_key_has_a_bucket_of_its_own() {
        let rate = Rate::new(NonZeroU32::new(1));
        let with = |key: Option<KeyId>| Caller { user: None, key, role: Role::Member, scope: Scope::Write };
        let (one, other) = (with(Some(KeyId::new())), with(Some(KeyId::new())));
        assert!(rate.allows(&one) && rate.allows(&one) && !rate.allows(&one));
        assert!(rate.allows(&other));
        let nobodys = with(None);
        assert!((0..9).all(|_| rate.allows(&nobodys)));
        assert!((0..9).all(|_| Rate::new(None).allows(&one)));
    }
}
