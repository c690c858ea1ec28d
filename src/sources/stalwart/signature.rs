//! `X-Signature`: padded base64 of HMAC-SHA256 over the exact bytes of the body.
//!
//! Several keys are accepted, so that a key can be changed on one side after the other: Stalwart
//! takes a new one only at its restart.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::config::Secret;

/// Whether any of the keys has signed these bytes. The comparison takes the same time wherever
/// the difference is.
pub fn is_valid(keys: &[Secret], signature: &[u8], body: &[u8]) -> bool {
    let Ok(signature) = STANDARD.decode(signature.trim_ascii()) else {
        return false;
    };
    let mut valid = false;
    for key in keys {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose().as_bytes()) else {
            continue;
        };
        mac.update(body);
        valid |= mac.verify_slice(&signature).is_ok();
    }
    valid
}
