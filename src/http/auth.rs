//! Who may read and send: bearer tokens, of which only hashes are known.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, header};
use jiff::Timestamp;
use rand::RngCore;
use sha2::{Digest, Sha256};

use crate::config::AuthMode;
use crate::store::{Role, Store, TokenRecord};

use super::error::ApiError;

/// How long a token that was found (or not) is believed without asking the store again.
const BELIEVED: Duration = Duration::from_secs(5);
const REMEMBERED: usize = 4096;

/// When the store was asked, and what it said.
type Known = (Instant, Option<Role>);

/// Checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    mode: AuthMode,
    store: Arc<dyn Store>,
    known: Arc<Mutex<HashMap<String, Known>>>,
}

impl Authenticator {
    /// Checks against the store's tokens, or lets everyone in.
    pub fn new(mode: AuthMode, store: Arc<dyn Store>) -> Self {
        Self {
            mode,
            store,
            known: Arc::default(),
        }
    }

    /// The role of whoever sent these headers.
    ///
    /// # Errors
    /// 401 without a valid token; 503 when the store cannot be asked.
    pub async fn role(&self, headers: &HeaderMap) -> Result<Role, ApiError> {
        if self.mode == AuthMode::None {
            return Ok(Role::Operator);
        }
        let token = bearer(headers)
            .ok_or_else(|| ApiError::unauthorized("send Authorization: Bearer TOKEN"))?;
        let hash = hash_token(token);
        if let Some(role) = self.remembered(&hash) {
            return role.ok_or_else(unknown_token);
        }
        // The hash is looked up, not the token: comparing it byte by byte tells nothing about it.
        let found = self.store.token(&hash).await?;
        let role = found.map(|token| token.role);
        self.remember(hash, role.clone());
        role.ok_or_else(unknown_token)
    }

    fn remembered(&self, hash: &str) -> Option<Option<Role>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, role) = known.get(hash)?;
        (since.elapsed() < BELIEVED).then(|| role.clone())
    }

    fn remember(&self, hash: String, role: Option<Role>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(hash, (Instant::now(), role));
    }
}

fn unknown_token() -> ApiError {
    ApiError::unauthorized("token is unknown or has expired")
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

/// The tenant that a role is confined to; `None`: not confined.
///
/// # Errors
/// 403 for a role that reads nothing.
pub fn tenant_scope(role: &Role) -> Result<Option<&str>, ApiError> {
    match role {
        Role::Operator => Ok(None),
        Role::Tenant(slug) => Ok(Some(slug)),
        Role::Recorder(_) => Err(ApiError::forbidden("a recorder's token reads nothing")),
    }
}

/// SHA-256, lower-case hexadecimal: what the store keeps of a token.
pub fn hash_token(token: &str) -> String {
    let mut hex = String::with_capacity(64);
    for byte in Sha256::digest(token.as_bytes()) {
        // Writing into a string cannot fail.
        let _infallible = write!(hex, "{byte:02x}");
    }
    hex
}

/// Makes a token of 256 random bits and its record.
pub fn new_token(
    role: Role,
    name: Option<String>,
    expires_at: Option<Timestamp>,
) -> (String, TokenRecord) {
    let mut bytes = [0u8; 32];
    rand::rng().fill_bytes(&mut bytes);
    let mut token = String::from("dbk_");
    for byte in bytes {
        let _infallible = write!(token, "{byte:02x}");
    }
    let record = TokenRecord {
        hash: hash_token(&token),
        role,
        name,
        created_at: Timestamp::now(),
        expires_at,
    };
    (token, record)
}
