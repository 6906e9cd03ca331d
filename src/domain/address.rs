//! Addresses of other servers, and which of them the operator lets this one call.

use std::{fmt, str::FromStr};

/// `http(s)://HOST[:PORT]/PATH`: no user, no password, no query, nothing percent-encoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAddress(String);

impl HttpAddress {
    /// The longest one, in characters.
    const MAX_CHARS: usize = 2000;

    /// The address as it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Host and port as they stand in the address.
    pub fn authority(&self) -> &str {
        let rest = self.0.split_once("://").map_or("", |(_, rest)| rest);
        rest.split('/').next().unwrap_or_default()
    }
}

impl FromStr for HttpAddress {
    type Err = InvalidAddress;

    fn from_str(url: &str) -> Result<Self, InvalidAddress> {
        if url.len() > Self::MAX_CHARS {
            return Err(InvalidAddress("the address has at most 2000 characters"));
        }
        let address = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let address = address.ok_or(InvalidAddress("the address begins with http:// or https://"))?;
        let (authority, path) = address.split_once('/').unwrap_or((address, ""));
        // No user or password (they would stand in the database and in answers), no query, nothing percent-encoded.
        let is_authority = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
        if authority.is_empty() || authority.starts_with(':') || !authority.chars().all(is_authority) {
            return Err(InvalidAddress("the address is http://HOST[:PORT]/PATH, without a user or a password"));
        }
        if !path.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) || path.contains("..") {
            return Err(InvalidAddress("the address is http://HOST[:PORT]/PATH, without a query"));
        }
        Ok(Self(url.to_owned()))
    }
}

impl fmt::Display for HttpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is no address that can be called, in words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidAddress(pub &'static str);

/// The servers that may be called: `HOST` for every port of it, `HOST:PORT` for one. Whoever may give an address could else make this
/// server call any that it reaches.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AllowedHosts(Vec<String>);

impl AllowedHosts {
    /// The flag that names servers with references.
    pub const REMOTE_FLAG: &'static str = "--allow-remote";
    /// The flag that names servers with webhooks.
    pub const WEBHOOK_FLAG: &'static str = "--allow-webhook";

    /// From what an operator wrote.
    pub fn new(hosts: impl IntoIterator<Item = String>) -> Self {
        Self(hosts.into_iter().map(|host| host.trim().to_ascii_lowercase()).filter(|host| !host.is_empty()).collect())
    }

    /// Whether the operator has allowed this one. The name counts as it is written; what it resolves to is the operator's care.
    pub fn allow(&self, address: &HttpAddress) -> bool {
        let authority = address.authority().to_ascii_lowercase();
        let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let (host, with_port) = if has_port {
            (authority.rsplit_once(':').map_or("", |(host, _)| host).to_owned(), authority)
        } else {
            let port = if address.as_str().starts_with("https:") { 443 } else { 80 };
            (authority.clone(), format!("{authority}:{port}"))
        };
        self.0.iter().any(|allowed| *allowed == host || *allowed == with_port)
    }

    /// What to say where one is not allowed: `flag` is how an operator allows it.
    pub fn refusal(address: &HttpAddress, flag: &str) -> String {
        let authority = address.authority();
        format!(
            "this server may not call {authority}: its operator allows servers by name, mrpo serve {flag} {authority}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> HttpAddress {
        text.parse().expect(text)
    }

    #[test]
    fn an_address_is_plain_and_written_as_it_was_read() {
        for text in ["http://127.0.0.1:8000/v1", "https://hooks.example.org/team/T0-1/", "http://[::1]:8000"] {
            assert_eq!(address(text).to_string(), text);
        }
        for text in [
            "file:///etc/passwd",
            "ftp://a/v1",
            "http://user:secret@a/v1",
            "http://a/v1?key=secret",
            "http://a/v1#x",
            "http:///v1",
            "http://:80/v1",
            "http://a/../v1",
            "http://a/%2e%2e/v1",
            "http://a b/v1",
            &format!("http://a/{}", "x".repeat(2000)),
        ] {
            assert!(text.parse::<HttpAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn only_what_is_allowed_is_called() {
        let allowed = AllowedHosts::new(["Models.example.org".into(), "127.0.0.1:8000".into(), "b:443".into()]);
        for text in ["http://models.EXAMPLE.org:1/v1", "http://127.0.0.1:8000/v1", "https://b/v1"] {
            assert!(allowed.allow(&address(text)), "{text}");
        }
        let others = ["http://127.0.0.1/v1", "http://127.0.0.1:80001/v1", "http://b/v1", "http://example.org/v1"];
        for text in others.into_iter().chain(["http://models.example.org.evil.net/v1", "http://[::1]:8000/v1"]) {
            assert!(!allowed.allow(&address(text)), "{text}");
        }
        assert!(!AllowedHosts::default().allow(&address("http://127.0.0.1:8000/v1")));
    }
}
