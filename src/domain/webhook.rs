//! Webhooks: addresses that are told when a job has ended, and the secrets that sign what they are told.

use std::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{HttpAddress, Ownership, WebhookEventType, WebhookId};

/// A webhook, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    /// Its id.
    pub id: WebhookId,
    /// What its owner calls it.
    pub name: String,
    /// Where what it is told is sent.
    pub url: HttpAddress,
    /// What it is told of.
    pub event_types: Vec<WebhookEventType>,
    /// The end of its secret, to tell secrets apart.
    pub secret_hint: String,
    /// Since when it is told nothing, and why.
    pub disabled: Option<Disabled>,
    /// Unix time in seconds.
    pub created_at: i64,
    /// When it, or its secret, was last changed: Unix time in seconds.
    pub updated_at: i64,
    /// Whose it is. It is told of the jobs that its owner sees as their own, as shared or as nobody's.
    pub ownership: Ownership,
}

impl Webhook {
    /// How many one person may have.
    pub const MAX_PER_OWNER: u64 = 20;
}

/// That a webhook is told nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disabled {
    /// Unix time in seconds.
    pub at: i64,
    /// In words.
    pub reason: String,
}

/// What is to be different about a webhook; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct WebhookChange {
    /// Its name.
    pub name: Option<String>,
    /// Its address.
    pub url: Option<HttpAddress>,
    /// What it is told of.
    pub event_types: Option<Vec<WebhookEventType>>,
    /// Whether it is told nothing.
    pub is_disabled: Option<bool>,
}

/// What signs the requests to a webhook. Unlike a person's key it is kept as it is, because the server signs with it.
#[derive(Clone, PartialEq, Eq)]
pub struct WebhookSecret(String);

impl WebhookSecret {
    /// What every secret starts with, as in the Standard Webhooks.
    pub const PREFIX: &'static str = "whsec_";
    /// How many of its last characters are shown later.
    const N_SHOWN: usize = 4;

    /// A new secret of 256 random bits.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn new() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes)?;
        Ok(Self(format!("{}{}", Self::PREFIX, STANDARD.encode(bytes))))
    }

    /// One that was kept; nothing, if it is none.
    pub fn kept(text: &str) -> Option<Self> {
        let is_one = text.strip_prefix(Self::PREFIX).is_some_and(|rest| STANDARD.decode(rest).is_ok());
        is_one.then(|| Self(text.to_owned()))
    }

    /// The whole of it: for the row that keeps it, and for the one time that it is shown.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// Its end, by which its owner knows it.
    pub fn hint(&self) -> String {
        format!("{}…{}", Self::PREFIX, &self.0[self.0.len() - Self::N_SHOWN..])
    }

    /// The bytes that sign.
    pub fn key(&self) -> Vec<u8> {
        STANDARD.decode(&self.0[Self::PREFIX.len()..]).expect("a secret is base64 after its prefix")
    }
}

impl fmt::Debug for WebhookSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("WebhookSecret(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_random_kept_as_it_is_and_never_printed() {
        let secret = WebhookSecret::new().expect("random numbers");
        assert_ne!(secret, WebhookSecret::new().expect("random numbers"));
        assert_eq!(secret.key().len(), 32);
        assert_eq!(WebhookSecret::kept(secret.reveal()), Some(secret.clone()));
        assert_eq!(WebhookSecret::kept("whsec_?"), None);
        assert!(!format!("{secret:?}").contains(secret.reveal()));
        assert!(secret.reveal().ends_with(secret.hint().rsplit('…').next().expect("an end")));
    }
}
