//! TLS: a certificate and its key, read once at the start.

use std::{path::Path, sync::Arc};

use anyhow::{Context, Result, anyhow};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
    },
};

/// What speaks TLS on accepted connections: TLS 1.2 and 1.3, no client certificates, HTTP/1.1.
///
/// # Errors
/// If a file cannot be read, has nothing of its kind in PEM, or the key is not the certificate's.
pub fn tls(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .and_then(|chain: Vec<_>| if chain.is_empty() { Err(pem::Error::NoItemsFound) } else { Ok(chain) })
        .map_err(|e| refused(e, certificate, "certificate"))?;
    let secret = PrivateKeyDer::from_pem_file(key).map_err(|e| refused(e, key, "private key"))?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, secret)
        .with_context(|| format!("{} and {} do not belong together", certificate.display(), key.display()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// What cannot be read is another matter than what is something else.
fn refused(error: pem::Error, file: &Path, kind: &str) -> anyhow::Error {
    match error {
        pem::Error::Io(e) => anyhow::Error::new(e).context(format!("{} cannot be read", file.display())),
        // Its text is the library's own, and may show what stands in the file.
        _ => anyhow!("{} is no {kind} in PEM (-----BEGIN …-----)", file.display()),
    }
}

/// When a certificate in PEM ends, in Unix seconds; of a chain the first, which is the server's own. None where that cannot be read.
pub fn certificate_expires_at(certificate: &Path) -> Option<i64> {
    let certificate = CertificateDer::pem_file_iter(certificate).ok()?.next()?.ok()?;
    not_after(&certificate)
}

/// The end of the validity, X.509's fifth field (RFC 5280, section 4.1).
fn not_after(der: &[u8]) -> Option<i64> {
    const VERSION: u8 = 0xa0;
    let (_, certificate, _) = element(der)?;
    let (_, mut fields, _) = element(certificate)?;
    if *fields.first()? == VERSION {
        (_, _, fields) = element(fields)?;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        (_, _, fields) = element(fields)?;
    }
    let (_, validity, _) = element(fields)?;
    let (_, _, rest) = element(validity)?;
    let (tag, time, _) = element(rest)?;
    unix_time(tag, std::str::from_utf8(time).ok()?)
}

/// The first element of DER: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = der.split_first()?;
    let (first, rest) = rest.split_first()?;
    let (length, rest) = match usize::from(*first) {
        short @ ..0x80 => (short, rest),
        long => {
            let (bytes, rest) = rest.split_at_checked(long - 0x80).filter(|(bytes, _)| bytes.len() <= 4)?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((*tag, content, rest))
}

/// `YYMMDDHHMMSSZ` (`UTCTime`) or `YYYYMMDDHHMMSSZ` (`GeneralizedTime`).
fn unix_time(tag: u8, text: &str) -> Option<i64> {
    const UTC_TIME: u8 = 0x17;
    let text =
        if tag == UTC_TIME { format!("{}{text}", if text < "50" { "20" } else { "19" }) } else { text.to_owned() };
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    // Days since 1970 in the proleptic Gregorian calendar, years begun in March (Howard Hinnant, days_from_civil).
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let day_of_era = year.rem_euclid(400) * 365 + year.rem_euclid(400) / 4 - year.rem_euclid(400) / 100
        + (153 * month + 2) / 5
        + day
        - 1;
    let days = year.div_euclid(400) * 146_097 + day_of_era - 719_468;
    Some(((days * 24 + number(8, 10)?) * 60 + number(10, 12)?) * 60 + number(12, 14)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_told_apart_from_what_is_something_else() {
        let dir = tempfile::tempdir().expect("temp dir");
        let (absent, other) = (dir.path().join("absent"), dir.path().join("other"));
        std::fs::write(&other, "no PEM").expect("written");
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls");
        let (certificate, key) = (fixtures.join("certificate.pem"), fixtures.join("key.pem"));
        for (certificate, key, text) in [
            (&absent, &key, "absent cannot be read"),
            (&other, &key, "other is no certificate in PEM"),
            (&certificate, &absent, "absent cannot be read"),
            (&certificate, &other, "other is no private key in PEM"),
        ] {
            let refused = tls(certificate, key).err().expect("refused").to_string();
            assert!(refused.contains(text), "{refused}");
        }
        assert!(tls(&certificate, &key).is_ok());
    }

    #[test]
    fn the_end_of_a_certificate_is_read() {
        // date -u -d '2049-12-31 23:59:59' +%s
        assert_eq!(unix_time(0x17, "491231235959Z"), Some(2_524_607_999));
        assert_eq!(unix_time(0x18, "20240229000000Z"), Some(1_709_164_800));
        assert_eq!(unix_time(0x17, "990101"), None);
        let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls/certificate.pem");
        assert!(certificate_expires_at(&fixture).is_some());
        assert_eq!(not_after(&[0x30, 0x84, 0xff, 0xff, 0xff, 0xff]), None);
    }
}
