//! Who asks: people, the keys they show, and what those allow.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use utoipa::ToSchema;
use uuid::Uuid;

use super::{InvalidId, KeyId};

/// A person's name on this server: letters, digits, `.`, `_`, `-`, `@`, at most 64 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String, example = "ana")]
pub struct UserName(String);

impl UserName {
    /// The longest name.
    pub const MAX_CHARS: usize = 64;

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for UserName {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
        let first_ok = text.starts_with(|c: char| c.is_ascii_alphanumeric());
        if first_ok && text.len() <= Self::MAX_CHARS && text.chars().all(allowed) {
            return Ok(Self(text.to_owned()));
        }
        let expected = "expected a letter or digit, then letters, digits, '.', '_', '-' or '@', at most 64 in all";
        Err(InvalidId::new(text, "user name", expected))
    }
}

impl TryFrom<String> for UserName {
    type Error = InvalidId;
    fn try_from(text: String) -> Result<Self, InvalidId> {
        text.parse()
    }
}

impl From<UserName> for String {
    fn from(name: UserName) -> String {
        name.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How far somebody's word goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Sees and changes what is their own, and sees what is shared.
    Member,
    /// Sees and changes everything, and makes and revokes keys.
    Admin,
}

/// What a key allows of what its role does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// To look, not to change: GET and HEAD.
    Read,
    /// Everything.
    Write,
}

/// A key as it is shown once, to whom it is made for; only its digest is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// What every key starts with, so that scanners of repositories can know one.
    pub const PREFIX: &'static str = "mrpo_";
    /// How much of a key is shown later, to tell keys apart.
    const N_SHOWN: usize = Self::PREFIX.len() + 6;

    /// A new key of 244 random bits.
    #[expect(clippy::new_without_default, reason = "two calls give two keys: not a default value")]
    pub fn new() -> Self {
        Self(format!("{}{}{}", Self::PREFIX, Uuid::new_v4().simple(), Uuid::new_v4().simple()))
    }

    /// A text that somebody shows as their key. Whether it is one only the digest can tell.
    pub fn shown_by_client(text: &str) -> Self {
        Self(text.to_owned())
    }

    /// What is kept of it. No salt and no slow hash: nobody guesses 244 random bits.
    pub fn digest(&self) -> String {
        Sha256::digest(self.0.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// Its beginning, by which its owner knows it.
    pub fn prefix(&self) -> &str {
        &self.0[..Self::N_SHOWN]
    }

    /// The whole of it, for the one time that it is shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// What a new key is to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewKey {
    /// Whose it is.
    pub user: UserName,
    /// What its owner is.
    pub role: Role,
    /// What it allows.
    pub scope: Scope,
    /// When it stops working: Unix time in seconds.
    pub expires_at: Option<i64>,
}

/// A key, without what makes it one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Its id.
    pub id: KeyId,
    /// What it was made to be.
    pub made: NewKey,
    /// Its first characters.
    pub prefix: String,
    /// Unix time in seconds.
    pub created_at: i64,
    /// When it was last shown, to the minute.
    pub last_used_at: Option<i64>,
    /// Since when it does not work any more.
    pub revoked_at: Option<i64>,
}

impl ApiKey {
    /// Whether it opens anything at this time, in Unix seconds.
    pub fn is_valid_at(&self, now: i64) -> bool {
        self.revoked_at.is_none() && self.made.expires_at.is_none_or(|at| now < at)
    }
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Their name; none where nobody is asked for a key.
    pub user: Option<UserName>,
    /// The key they have shown.
    pub key: Option<KeyId>,
    /// How far their word goes.
    pub role: Role,
    /// What their key allows.
    pub scope: Scope,
}

impl Caller {
    /// Whoever reaches a server that asks nobody for a key.
    pub const ANYBODY: Self = Self { user: None, key: None, role: Role::Admin, scope: Scope::Write };

    /// Through whose eyes they see lists.
    pub fn viewer(&self) -> Viewer {
        Viewer(if self.role == Role::Admin { None } else { self.user.clone() })
    }
}

impl From<&ApiKey> for Caller {
    fn from(key: &ApiKey) -> Self {
        let NewKey { user, role, scope, .. } = &key.made;
        Self { user: Some(user.clone()), key: Some(key.id.clone()), role: *role, scope: *scope }
    }
}

/// Through whose eyes a list is seen: a person sees what is their own, what is shared, and what belongs to nobody; none sees all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Viewer(pub Option<UserName>);

impl Viewer {
    /// Their name, if not everything is seen.
    pub fn name(&self) -> Option<&str> {
        self.0.as_ref().map(UserName::as_str)
    }
}

/// To whom something belongs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ownership {
    /// Who made it; nobody, where it was made without a key: then it belongs to the team.
    pub owner: Option<UserName>,
    /// Whether its owner lets the team see and use it.
    pub is_shared: bool,
}

impl Ownership {
    /// Of something that `caller` makes.
    pub fn of(caller: &Caller, is_shared: bool) -> Self {
        Self { owner: caller.user.clone(), is_shared }
    }

    /// Whether they may know that it exists, read it and use it.
    pub fn lets_see(&self, viewer: &Viewer) -> bool {
        self.is_shared || self.owner.is_none() || viewer.0.is_none() || viewer.0 == self.owner
    }

    /// Whether they may change or delete it.
    pub fn lets_change(&self, caller: &Caller) -> bool {
        caller.role == Role::Admin || (self.owner.is_some() && caller.user == self.owner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(name: &str, role: Role) -> Caller {
        let user = Some(name.parse().expect("a name"));
        Caller { user, key: None, role, scope: Scope::Write }
    }

    #[test]
    fn a_secret_is_long_unlike_others_and_not_printed() {
        let (one, other) = (Secret::new(), Secret::new());
        assert_eq!(one.reveal().len(), 69);
        assert_ne!(one.digest(), other.digest());
        assert_eq!(one.digest(), Secret::shown_by_client(one.reveal()).digest());
        assert!(!format!("{one:?}").contains(one.prefix()));
    }

    #[test]
    fn what_belongs_to_others_is_seen_by_admins_or_if_shared() {
        let (ana, bo, root) = (caller("ana", Role::Member), caller("bo", Role::Member), caller("root", Role::Admin));
        let own = Ownership::of(&ana, false);
        assert!(own.lets_see(&ana.viewer()) && own.lets_see(&root.viewer()) && !own.lets_see(&bo.viewer()));
        assert!(own.lets_change(&ana) && own.lets_change(&root) && !own.lets_change(&bo));
        let shared = Ownership { is_shared: true, ..own };
        assert!(shared.lets_see(&bo.viewer()) && !shared.lets_change(&bo));
        let nobodys = Ownership::default();
        assert!(nobodys.lets_see(&bo.viewer()) && !nobodys.lets_change(&bo));
        assert!(nobodys.lets_change(&Caller::ANYBODY));
    }

    #[test]
    fn a_name_is_plain() {
        for good in ["ana", "ana.b@lab", "7"] {
            assert!(good.parse::<UserName>().is_ok(), "{good}");
        }
        for bad in ["", "a b", "../x", "-x", &"x".repeat(65)] {
            assert!(bad.parse::<UserName>().is_err(), "{bad}");
        }
    }
}
