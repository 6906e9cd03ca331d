//! The signature of a request, as the Standard Webhooks and OpenAI have it: `v1,` and HMAC-SHA256 in base64, of the event's id, the time and the
//! body.

use base64::{Engine, engine::general_purpose::STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::domain::{DueDelivery, WebhookSecret};

/// One signature for each secret, separated by spaces: whoever verifies needs one of them.
pub(super) fn header(due: &DueDelivery, now: i64, body: &str) -> String {
    let signed = format!("{}.{now}.{body}", due.event.id);
    due.secrets.iter().map(|secret| signature(secret, &signed)).collect::<Vec<_>>().join(" ")
}

fn signature(secret: &WebhookSecret, signed: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(&secret.key()).expect("HMAC takes a key of any length");
    mac.update(signed.as_bytes());
    format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the Standard Webhooks' specification.
    #[test]
    fn the_example_of_the_specification_is_signed_as_there() {
        let secret = WebhookSecret::kept("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").expect("a secret");
        let signed = r#"msg_p5jXN8AQM9LWM0D4loKWxJek.1614265330.{"test": 2432232314}"#;
        assert_eq!(signature(&secret, signed), "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }
}
