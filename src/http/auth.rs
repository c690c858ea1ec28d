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

/// Checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    mode: AuthMode,
    store: Arc<dyn Store>,
    known: Arc<Mutex<HashMap<String, Finding>>>,
}

/// When the store was asked about a token's hash, and what it knew.
type Finding = (Instant, Option<Caller>);

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What they may do.
    pub role: Role,
    /// The token's name, if it was given one; nobody is named where everyone is let in.
    pub name: Option<String>,
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

    /// Whoever sent these headers.
    ///
    /// # Errors
    /// 401 without a valid token; 503 when the store cannot be asked.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.mode == AuthMode::None {
            return Ok(Caller {
                role: Role::Operator,
                name: None,
            });
        }
        let token = bearer(headers)
            .ok_or_else(|| ApiError::unauthorized("send Authorization: Bearer TOKEN"))?;
        let hash = hash_token(token);
        if let Some(caller) = self.remembered(&hash) {
            return caller.ok_or_else(unknown_token);
        }
        // The hash is looked up, not the token: comparing it byte by byte tells nothing about it.
        let found = self.store.token(&hash).await?;
        let caller = found.map(|token| Caller {
            role: token.role,
            name: token.name,
        });
        self.remember(hash, caller.clone());
        caller.ok_or_else(unknown_token)
    }

    fn remembered(&self, hash: &str) -> Option<Option<Caller>> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let (since, caller) = known.get(hash)?;
        (since.elapsed() < BELIEVED).then(|| caller.clone())
    }

    fn remember(&self, hash: String, caller: Option<Caller>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(hash, (Instant::now(), caller));
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
