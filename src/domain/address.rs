//! Addresses of other servers, and which of them the operator lets this one call.

use std::{fmt, str::FromStr};

/// `http(s)://HOST[:PORT]/PATH`: no user, no password, no query. It is sent as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAddress(String);

impl HttpAddress {
    /// The longest one, in characters.
    const MAX_CHARS: usize = 2000;

    /// One that somebody gives: beyond what reading a kept one asks, its port must be one, so that what is kept stays readable.
    ///
    /// # Errors
    /// If it is none, with the cause in words.
    pub fn given(url: &str) -> Result<Self, InvalidAddress> {
        let address: Self = url.parse()?;
        if !has_host_and_port(address.authority()) {
            return Err(InvalidAddress(HOST_AND_PORT));
        }
        Ok(address)
    }

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
        let refuse = |why| Err(InvalidAddress(why));
        if url.len() > Self::MAX_CHARS {
            return refuse("an address has at most 2000 characters");
        }
        let Some(address) = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://")) else {
            return refuse("an address begins with http:// or https://");
        };
        if address.contains('?') {
            return refuse("an address has no query (`?…`): leave it out");
        }
        if address.contains('#') {
            return refuse("an address has no fragment (`#…`): leave it out");
        }
        let (authority, path) = address.split_once('/').unwrap_or((address, ""));
        if authority.contains('@') {
            return refuse(
                "an address has no user and no password (`…@`): they would stand in answers and in the database",
            );
        }
        if authority.is_empty() || authority.starts_with(':') {
            return refuse("an address names a host: http://HOST[:PORT]/PATH");
        }
        if !authority.chars().all(is_of_authority) {
            return refuse(
                "a host has letters, digits, `.`, `-` and `_`; a name with others is written in its ASCII form (xn--…)",
            );
        }
        if !is_encoded(path) {
            return refuse("a path has letters, digits and `/._-~:`; everything else is percent-encoded, as %20");
        }
        // A dot can be written as %2e too.
        if path.to_ascii_lowercase().replace("%2e", ".").contains("..") {
            return refuse("a path has no `..`: give the address that it leads to");
        }
        Ok(Self(url.to_owned()))
    }
}

/// What is wrong with an authority of legal characters.
const HOST_AND_PORT: &str =
    "after the host there is nothing, or `:` and a port from 1 to 65535; an IPv6 address stands in brackets";

fn is_of_authority(c: char) -> bool {
    c.is_ascii_alphanumeric() || ".-_:[]".contains(c)
}

/// Whether it is `HOST[:PORT]`, a host that is an IPv6 address in brackets.
fn has_host_and_port(authority: &str) -> bool {
    let (host, rest) = match authority.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inside, rest)) => (inside, rest),
        None => authority.split_at(authority.find(':').unwrap_or(authority.len())),
    };
    let is_host = !host.is_empty() && !host.contains(['[', ']']);
    is_host && (rest.is_empty() || rest.strip_prefix(':').is_some_and(|port| port.parse::<u16>().is_ok_and(|n| n > 0)))
}

/// Whether every character of a path is one that may stand there as it is, or is `%` before two hexadecimal digits.
fn is_encoded(path: &str) -> bool {
    let mut pieces = path.split('%');
    let is_plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-~:".contains(c));
    pieces.next().is_none_or(is_plain)
        && pieces.all(|piece| {
            piece.get(..2).is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit())) && is_plain(&piece[2..])
        })
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

    /// One entry as an operator writes it: it would else allow nothing, and say nothing. An empty one is none.
    ///
    /// # Errors
    /// If it is not `HOST[:PORT]`, with the form in words.
    pub fn entry(text: &str) -> Result<String, String> {
        let entry = text.trim();
        if entry.is_empty() || (entry.chars().all(is_of_authority) && has_host_and_port(entry)) {
            return Ok(entry.to_owned());
        }
        Err("expected HOST or HOST:PORT, as hooks.example.org or 10.0.0.7:9000: no http://, no path, an IPv6 address in brackets".to_owned())
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
        for text in [
            "http://127.0.0.1:8000/v1",
            "https://hooks.example.org/team/T0-1/",
            "http://[::1]:8000",
            "http://my_box/~a/b:c/%C3%A4",
        ] {
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
            "http://a/%2E./v1",
            "http://a b/v1",
            "http://a/%4",
            "http://a/%4\u{e9}",
            &format!("http://a/{}", "x".repeat(2000)),
        ] {
            assert!(text.parse::<HttpAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_wrong_with_an_address_is_said() {
        for (text, word) in [
            ("http://a?x=1", "query"),
            ("http://a/x#y", "fragment"),
            ("http://u:p@a/", "password"),
            ("http://b\u{fc}ro/", "xn--"),
            ("http://a/b c", "percent-encoded"),
            ("http://a/b/../c", "`..`"),
            ("http://a:80001/v1", "65535"),
            ("http://a:/v1", "65535"),
            ("http://fe80::1/v1", "brackets"),
        ] {
            let InvalidAddress(why) = HttpAddress::given(text).expect_err(text);
            assert!(why.contains(word), "{text}: {why}");
        }
        assert!(HttpAddress::given("https://[::1]:65535/v1").is_ok());
    }

    #[test]
    fn an_entry_that_would_allow_nothing_is_refused() {
        for entry in ["a.b", " a:80", "[::1]:8000", "[::1]", "my_box", ""] {
            assert_eq!(AllowedHosts::entry(entry).as_deref(), Ok(entry.trim()));
        }
        for entry in ["http://a.b", "a.b/x", "a:80001", "::1", "*", "a b"] {
            assert!(AllowedHosts::entry(entry).expect_err(entry).contains("HOST:PORT"));
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
