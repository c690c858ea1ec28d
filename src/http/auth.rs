//! Who may read and send: bearer tokens and the page's sessions, of which only hashes are known.
//!
//! A session is a token record of its own that ends by itself, and with the token that opened it.
//! Its id is hashed under another name than a token, so that neither is ever taken for the other.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, header};
use jiff::{SignedDuration, Timestamp};
use rand::RngCore;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::config::AuthMode;
use crate::own_events::Deed;
use crate::store::{Role, Store, StoreError, TokenRecord};

use super::error::ApiError;

/// How long a token that was found (or not) is believed without asking the store again.
const BELIEVED: Duration = Duration::from_secs(5);
/// How long a token that was found goes on being believed while the store cannot be asked, so that
/// pushes still reach the journal. A token revoked during an outage is good for so long at most.
const BELIEVED_IN_OUTAGE: Duration = Duration::from_secs(3600);
/// How long is waited for what the store says of a token that would be believed without it, or that
/// is shown beside such a session.
const ASKED_AGAIN: Duration = Duration::from_secs(1);
/// So many such tokens it is asked about at once: the writer needs the same connections.
const MOST_ASKED_AGAIN: usize = 4;
const REMEMBERED: usize = 4096;

/// The cookie that holds a session's id.
pub const SESSION_COOKIE: &str = "daybook_session";
/// The same under TLS: of this name a browser takes none that another host or plain HTTP sets.
pub const HOST_SESSION_COOKIE: &str = "__Host-daybook_session";
/// So many sessions of a request are looked up: over plain HTTP a neighbouring site may set some too.
const MOST_SESSIONS: usize = 4;
/// How long a session lasts, unless its token ends sooner.
pub const SESSION: SignedDuration = SignedDuration::from_hours(12);

/// Checks tokens. Cheap to clone.
#[derive(Clone)]
pub struct Authenticator {
    mode: AuthMode,
    store: Arc<dyn Store>,
    known: Arc<Mutex<HashMap<String, Finding>>>,
    turns: Arc<Semaphore>,
}

/// Who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// What they may do.
    pub role: Role,
    /// The token's name, if it was given one; nobody is named where everyone is let in.
    pub name: Option<String>,
    /// The [short id](token_id) of the token, also of the one that opened a session.
    pub token: Option<String>,
}

impl Caller {
    fn of(record: TokenRecord) -> Self {
        let hash = record.opened_by.as_ref().unwrap_or(&record.hash);
        Self {
            token: Some(token_id(hash)),
            role: record.role,
            name: record.name,
        }
    }

    /// Says on a deed who did it.
    pub fn sign(&self, deed: &mut Deed) {
        let role = match &self.role {
            Role::Operator => "operator".to_owned(),
            Role::Recorder(_) => "recorder".to_owned(),
            Role::Tenant(slug) => format!("tenant:{slug}"),
        };
        deed.who.clone_from(&self.name);
        deed.role = Some(self.role.clone());
        deed.metadata.insert("role".to_owned(), json!(role));
        if let Some(token) = &self.token {
            deed.metadata.insert("tokenId".to_owned(), json!(token));
        }
    }
}

/// A session of the page.
pub struct Session {
    /// What the cookie holds; a secret.
    pub id: String,
    /// Whose it is.
    pub caller: Caller,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What somebody shows. It is looked up by its hash: comparing it byte by byte tells nothing about it.
struct Shown {
    hash: String,
    is_session: bool,
}

impl Shown {
    fn token(token: &str) -> Self {
        Self {
            hash: hash_token(token),
            is_session: false,
        }
    }

    fn session(id: &str) -> Self {
        Self {
            hash: hash_session(id),
            is_session: true,
        }
    }
}

/// What the store knew about a token's hash.
#[derive(Clone)]
struct Finding {
    /// When it was asked last, whether it answered or not.
    asked: Instant,
    /// As of when its last answer holds: when it was asked for it.
    as_of: Instant,
    caller: Option<Caller>,
    expires_at: Option<Timestamp>,
}

impl Finding {
    /// Whoever is believed to be asking while the store cannot be asked.
    fn in_outage(&self) -> Option<&Caller> {
        let is_recent = self.as_of.elapsed() < BELIEVED_IN_OUTAGE;
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
            turns: Arc::new(Semaphore::new(MOST_ASKED_AGAIN)),
        }
    }

    /// Whether anybody is asked for a token.
    pub fn mode(&self) -> AuthMode {
        self.mode
    }

    /// Whoever sent these headers, by token or, for what only reads, by the page's session where no token is good.
    ///
    /// # Errors
    /// 401 without a valid token or session; 503 when the store cannot be asked.
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.mode == AuthMode::None {
            return self.sender(headers).await;
        }
        let is_believed = |shown: &Shown| self.believed(&shown.hash).is_some();
        let sessions = session_ids(headers).into_iter().map(Shown::session);
        let mut sessions: Vec<Shown> = sessions.collect();
        // Whoever would be believed without the store need not wait for what it says of others.
        sessions.sort_by_cached_key(|session| !is_believed(session));
        let is_one_believed = sessions.first().is_some_and(is_believed);
        // One that a proxy has added may be none of ours.
        let token = bearer(headers).map(Shown::token);
        let (mut refused, mut failed) = (None, None);
        for shown in token.into_iter().chain(sessions) {
            // The store would tell nothing of it either.
            if failed.is_some() && !is_believed(&shown) {
                break;
            }
            let is_hurried = is_one_believed && !shown.is_session;
            match self.known_as(shown, is_hurried).await {
                Err(error) if error.is_refusal() => refused = Some(error),
                Err(error) => failed = Some(error),
                answer => return answer,
            }
        }
        match failed.or(refused) {
            Some(error) => Err(error),
            None => self.sender(headers).await,
        }
    }

    /// Whoever sent these headers, by token alone: a browser must not be made to change anything.
    ///
    /// # Errors
    /// 401 without a valid token; 503 when the store cannot be asked about one that was not good
    /// within the last hour.
    pub async fn sender(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        if self.mode == AuthMode::None {
            return Ok(Caller {
                role: Role::Operator,
                name: None,
                token: None,
            });
        }
        let token = bearer(headers)
            .ok_or_else(|| ApiError::unauthorized("send Authorization: Bearer TOKEN"))?;
        self.known_as(Shown::token(token), false).await
    }

    /// Whether [`credentials`] that were a caller's still are. A store that cannot be asked just now is
    /// no reason to send anybody away.
    pub async fn still_knows(&self, caller: &Caller, credentials: &HeaderMap) -> bool {
        let asked = self.caller(credentials).await;
        asked.map_or_else(|error| !error.is_refusal(), |now| now == *caller)
    }

    async fn known_as(&self, shown: Shown, is_hurried: bool) -> Result<Caller, ApiError> {
        let hash = shown.hash.clone();
        let known = self.remembered(&hash);
        if let Some(finding) = &known
            && finding.asked.elapsed() < BELIEVED
        {
            return finding.caller.clone().ok_or_else(unknown_token);
        }
        let believed = known.and_then(|known| Some((known.asked, known.in_outage()?.clone())));
        let Some((asked, caller)) = believed else {
            let asked = self.ask(shown);
            // Without a turn: whoever makes up many must not take those of what is believed.
            let found = match is_hurried {
                true => tokio::time::timeout(ASKED_AGAIN, asked).await,
                false => Ok(asked.await),
            };
            let found = found.unwrap_or_else(|_| Err(late()))?;
            return found.ok_or_else(unknown_token);
        };
        // One asks for all: what is remembered is believed meanwhile, a late answer, too.
        let begun = Instant::now();
        if !self.move_asked(&hash, asked, begun) {
            return Ok(caller);
        }
        match self.ask_in_a_hurry(shown).await {
            Ok(found) => found.ok_or_else(unknown_token),
            // Whatever the writer waits for: what is let in meanwhile waits in the journal.
            Err(error) if error.is_away() => Ok(caller),
            Err(error) => {
                self.move_asked(&hash, begun, asked);
                Err(error.into())
            }
        }
    }

    /// Whether this is a reader's token that was good within the last hour: whoever shows it does not guess.
    pub fn is_known_reader(&self, token: &str) -> bool {
        let caller = self.believed(&hash_token(token));
        may_be_token(token) && caller.is_some_and(|caller| tenant_scope(&caller.role).is_ok())
    }

    /// Makes a session for the bearer of a token.
    ///
    /// # Errors
    /// 401 for an unknown token, 403 for one that reads nothing; 503 when the store does not answer.
    pub async fn open_session(&self, token: &str) -> Result<Session, ApiError> {
        if !may_be_token(token) {
            return Err(unknown_token());
        }
        let shown = Shown::token(token);
        let begun = Instant::now();
        let found = self.look_up(&shown).await?;
        self.answered(shown.hash, begun, found.clone());
        let token = found.ok_or_else(unknown_token)?;
        tenant_scope(&token.role)?;
        let now = Timestamp::now();
        let longest = now.checked_add(SESSION).unwrap_or(now);
        let expires_at = token.expires_at.map_or(longest, |end| end.min(longest));
        let (id, mut record) = new_token(token.role, token.name, Some(expires_at));
        record.hash = hash_session(&id);
        record.opened_by = Some(token.hash);
        self.store.insert_token(&record).await?;
        Ok(Session {
            id,
            caller: Caller::of(record),
            expires_at,
        })
    }

    /// Ends a session that was made in vain.
    ///
    /// # Errors
    /// 503 when the store does not answer.
    pub async fn forget_session(&self, id: &str) -> Result<(), ApiError> {
        self.store.delete_token(&hash_session(id)).await?;
        Ok(())
    }

    /// Ends one of the [`session_ids`]; whose it was, if it was a session.
    ///
    /// # Errors
    /// 503 when the store does not answer: the session may still be there.
    pub async fn close_session(&self, id: &str) -> Result<Option<Caller>, ApiError> {
        let hash = hash_session(id);
        let found = self.store.token(&hash).await?;
        // A stranger's cookies hold anything: they must not keep the writer busy.
        if found.is_some() {
            self.store.delete_token(&hash).await?;
        }
        // Whoever asked before now may have found it still.
        self.answered(hash, Instant::now(), None);
        Ok(found.map(Caller::of))
    }

    /// Asks the store, and remembers its answer.
    async fn ask(&self, shown: Shown) -> Result<Option<Caller>, StoreError> {
        let begun = Instant::now();
        let found = self.look_up(&shown).await?;
        Ok(self.answered(shown.hash, begun, found))
    }

    /// The same for a second, the wait for a turn included. A later answer is remembered all the same:
    /// with a store that is only slow a revoked token must not pass for long.
    async fn ask_in_a_hurry(&self, shown: Shown) -> Result<Option<Caller>, StoreError> {
        let asked = async {
            let turn = Arc::clone(&self.turns).acquire_owned().await;
            let own = self.clone();
            let asked = tokio::spawn(async move {
                let _until_answered = turn;
                own.ask(shown).await
            });
            asked.await
        };
        match tokio::time::timeout(ASKED_AGAIN, asked).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => Err(StoreError::Other(error.to_string())),
            Err(_) => Err(late()),
        }
    }

    async fn look_up(&self, shown: &Shown) -> Result<Option<TokenRecord>, StoreError> {
        let found = self.store.token(&shown.hash).await?;
        if !shown.is_session {
            return Ok(found.filter(|token| token.opened_by.is_none()));
        }
        let Some(session) = found else {
            return Ok(None);
        };
        // One that an older version opened does not say by what, and is none.
        let Some(opened_by) = &session.opened_by else {
            return Ok(None);
        };
        let token = self.store.token(opened_by).await?;
        let may_as_much = token.is_some_and(|token| token.role == session.role);
        Ok(may_as_much.then_some(session))
    }

    /// Who would be believed to show this while the store cannot be asked.
    fn believed(&self, hash: &str) -> Option<Caller> {
        let finding = self.remembered(hash)?;
        finding.in_outage().cloned()
    }

    /// Remembers what the store has just said, unless something newer is; whose it is.
    fn answered(&self, hash: String, as_of: Instant, found: Option<TokenRecord>) -> Option<Caller> {
        let expires_at = found.as_ref().and_then(|token| token.expires_at);
        let finding = Finding {
            asked: Instant::now(),
            as_of,
            caller: found.map(Caller::of),
            expires_at,
        };
        self.remember(hash, finding)
    }

    /// Says when the store was asked last, unless somebody else has said so since; whether it did.
    fn move_asked(&self, hash: &str, from: Instant, to: Instant) -> bool {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let finding = known.get_mut(hash);
        let Some(finding) = finding.filter(|finding| finding.asked == from) else {
            return false;
        };
        finding.asked = to;
        true
    }

    fn remembered(&self, hash: &str) -> Option<Finding> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(hash).cloned()
    }

    fn remember(&self, hash: String, finding: Finding) -> Option<Caller> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let newer = known.get(&hash).filter(|known| known.as_of > finding.as_of);
        if let Some(newer) = newer {
            return newer.caller.clone();
        }
        if known.len() >= REMEMBERED {
            // Who guesses tokens must not make the good ones forgotten.
            known.retain(|_, finding| finding.caller.is_some());
        }
        if known.len() >= REMEMBERED {
            known.clear();
        }
        let caller = finding.caller.clone();
        known.insert(hash, finding);
        caller
    }
}

fn unknown_token() -> ApiError {
    ApiError::unauthorized("token is unknown or has expired")
}

fn late() -> StoreError {
    StoreError::Timeout {
        what: "a look at a token",
        after: ASKED_AGAIN,
    }
}

/// The headers that say who asks, to be asked again later.
pub fn credentials(headers: &HeaderMap) -> HeaderMap {
    let mut kept = HeaderMap::new();
    for name in [header::AUTHORIZATION, header::COOKIE] {
        for value in headers.get_all(&name) {
            kept.append(&name, value.clone());
        }
    }
    kept
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    (scheme.eq_ignore_ascii_case("bearer") && may_be_token(token)).then_some(token)
}

/// What has a blank in it may be what a session's hash is made of.
fn may_be_token(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_whitespace)
}

/// What the cookies hold as ids of sessions, whether or not they are any.
pub fn session_ids(headers: &HeaderMap) -> Vec<&str> {
    cookies(headers)
        .filter_map(|cookie| str::from_utf8(cookie).ok()?.split_once('='))
        .filter(|(name, value)| {
            matches!(*name, SESSION_COOKIE | HOST_SESSION_COOKIE) && !value.is_empty()
        })
        .map(|(_, value)| value)
        .take(MOST_SESSIONS)
        .collect()
}

/// Drops all cookies but a session's that no other host can have set.
pub fn keep_host_session(headers: &mut HeaderMap) {
    let is_kept = |cookie: &[u8]| {
        let value = cookie.strip_prefix(HOST_SESSION_COOKIE.as_bytes());
        value.is_some_and(|value| value.starts_with(b"="))
    };
    let kept: Vec<HeaderValue> = cookies(headers)
        .filter(|cookie| is_kept(cookie))
        .filter_map(|cookie| HeaderValue::from_bytes(cookie).ok())
        .collect();
    headers.remove(header::COOKIE);
    for cookie in kept {
        headers.append(header::COOKIE, cookie);
    }
}

/// Each `name=value`; those of other sites may hold any bytes.
fn cookies(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(header::COOKIE)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b';'))
        .map(<[u8]>::trim_ascii)
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

/// What tells one token from another on the timeline: the first digits of its hash, useless to whoever
/// wants to use it.
pub fn token_id(hash: &str) -> String {
    hash.chars().take(12).collect()
}

fn hash_session(id: &str) -> String {
    hash_token(&format!("session {id}"))
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
        opened_by: None,
    };
    (token, record)
}
