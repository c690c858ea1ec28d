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
use crate::store::{Role, Store, StoreError, TokenRecord};

use super::error::ApiError;

/// How long a token that was found (or not) is believed without asking the store again.
const BELIEVED: Duration = Duration::from_secs(5);
/// How long a token that was found goes on being believed while the store cannot be asked, so that
/// pushes still reach the journal. A token revoked during an outage is good for so long at most.
const BELIEVED_IN_OUTAGE: Duration = Duration::from_secs(3600);
/// How long the store may take over a token that would be believed without it.
const ASKED_AGAIN: Duration = Duration::from_secs(1);
const REMEMBERED: usize = 4096;

/// Checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    mode: AuthMode,
    store: Arc<dyn Store>,
    known: Arc<Mutex<HashMap<String, Finding>>>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What they may do.
    pub role: Role,
    /// The token's name, if it was given one; nobody is named where everyone is let in.
    pub name: Option<String>,
}

/// What the store knew about a token's hash.
#[derive(Clone)]
struct Finding {
    /// When it was asked last, whether it answered or not.
    asked: Instant,
    /// When it answered last.
    answered: Instant,
    caller: Option<Caller>,
    expires_at: Option<Timestamp>,
}

impl Finding {
    /// Whoever is believed to be asking while the store cannot be asked.
    fn in_outage(&self) -> Option<&Caller> {
        let is_recent = self.answered.elapsed() < BELIEVED_IN_OUTAGE;
        let has_expired = self.expires_at.is_some_and(|end| end <= Timestamp::now());
        self.caller.as_ref().filter(|_| is_recent && !has_expired)
    }
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
    /// 401 without a valid token; 503 when the store cannot be asked about one that was not good
    /// within the last hour.
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
        let known = self.remembered(&hash);
        if let Some(finding) = &known
            && finding.asked.elapsed() < BELIEVED
        {
            return finding.caller.clone().ok_or_else(unknown_token);
        }
        let believed = known.as_ref().and_then(Finding::in_outage).cloned();
        match (self.ask(&hash, believed.is_some()).await, known, believed) {
            (Ok(found), ..) => {
                let now = Instant::now();
                let expires_at = found.as_ref().and_then(|token| token.expires_at);
                let caller = found.map(|token| Caller {
                    role: token.role,
                    name: token.name,
                });
                let finding = Finding {
                    asked: now,
                    answered: now,
                    caller: caller.clone(),
                    expires_at,
                };
                self.remember(hash, finding);
                caller.ok_or_else(unknown_token)
            }
            (
                Err(StoreError::Unavailable(_) | StoreError::Timeout { .. }),
                Some(finding),
                Some(caller),
            ) => {
                let asked = Instant::now();
                self.remember(hash, Finding { asked, ..finding });
                Ok(caller)
            }
            (Err(error), ..) => Err(error.into()),
        }
    }

    /// The hash is looked up, not the token: comparing it byte by byte tells nothing about it.
    async fn ask(&self, hash: &str, in_a_hurry: bool) -> Result<Option<TokenRecord>, StoreError> {
        let asked = self.store.token(hash);
        if !in_a_hurry {
            return asked.await;
        }
        let answer = tokio::time::timeout(ASKED_AGAIN, asked).await;
        answer.unwrap_or(Err(StoreError::Timeout {
            what: "a look at a token",
            after: ASKED_AGAIN,
        }))
    }

    fn remembered(&self, hash: &str) -> Option<Finding> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(hash).cloned()
    }

    fn remember(&self, hash: String, finding: Finding) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= REMEMBERED {
            // Who guesses tokens must not make the good ones forgotten.
            known.retain(|_, finding| finding.caller.is_some());
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(hash, finding);
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
