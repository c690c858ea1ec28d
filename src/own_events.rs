//! What people do with Daybook itself stands on the timeline too: exports, sign-ins, new tokens.
//!
//! These events go straight into the store, not through the writer: whoever does the deed waits
//! until it is entered, and commands do it without a running service.

use std::time::Duration;

use jiff::Timestamp;
use rand::RngCore;
use serde_json::{Map, Value};

use crate::event::{Actor, AuditEvent, Outcome, SourceName, Target, to_millis};
use crate::store::{Commit, Fate, Record, Role, Store, StoreError};

/// The source of these events.
pub const SOURCE: &str = "daybook";
/// How soon a store that is away is asked again.
const ASKED_AGAIN: Duration = Duration::from_secs(2);

/// Something that somebody did with Daybook.
#[derive(Clone, Debug)]
pub struct Deed {
    /// `daybook.<verb>`.
    pub action: &'static str,
    /// How it ended.
    pub outcome: Outcome,
    /// The token's or the operating system user's name; `None`: nobody is named.
    pub who: Option<String>,
    /// From which address, over HTTP.
    pub ip: Option<String>,
    /// In which role: a tenant's deed stands on its timeline.
    pub role: Option<Role>,
    /// To what.
    pub target: Target,
    /// Anything else worth knowing; never a secret.
    pub metadata: Map<String, Value>,
}

impl Deed {
    /// A deed that nobody in particular has done yet.
    pub fn new(action: &'static str, outcome: Outcome) -> Self {
        Self {
            action,
            outcome,
            who: None,
            ip: None,
            role: None,
            target: Target::default(),
            metadata: Map::new(),
        }
    }

    /// The event that says so, done now and with a key of its own.
    pub fn into_event(self) -> AuditEvent {
        let mut key = [0u8; 16];
        rand::rng().fill_bytes(&mut key);
        let tenant_slug = match self.role {
            Some(Role::Tenant(slug)) => Some(slug),
            _ => None,
        };
        AuditEvent {
            at: to_millis(Timestamp::now()),
            source: SourceName::new(SOURCE),
            external_id: format!("{:032x}", u128::from_be_bytes(key)),
            action: self.action.into(),
            outcome: Some(self.outcome),
            actor: Actor {
                name: self.who.map(Into::into),
                ip: self.ip.map(Into::into),
                ..Actor::default()
            },
            target: self.target,
            tenant_slug,
            metadata: self.metadata.into(),
        }
    }
}

/// Enters it; it is durable when this returns.
///
/// # Errors
/// When the store does not take it; it may still have been entered then.
pub async fn enter(store: &dyn Store, deed: Deed) -> Result<(), StoreError> {
    enter_event(store, &deed.into_event()).await
}

/// The same with a deed's event, which may be entered again: its key makes a repeat harmless.
///
/// # Errors
/// As [`enter`].
pub async fn enter_event(store: &dyn Store, event: &AuditEvent) -> Result<(), StoreError> {
    let commit = Commit {
        records: vec![Record::Event {
            event,
            tenant_slug: event.tenant_slug.as_deref(),
        }],
        ..Commit::default()
    };
    let committed = store.commit(&commit).await?;
    match committed.records.into_iter().next() {
        Some(Fate::Rejected(why)) => Err(StoreError::Refused(why)),
        _ => Ok(()),
    }
}

/// Enters what is done and has to be said: again and again while the store is away. The log tells that
/// `what` is not on the timeline, yet or at all.
pub async fn enter_at_last(store: &dyn Store, event: &AuditEvent, what: &str) {
    let mut waits = false;
    loop {
        match enter_event(store, event).await {
            Ok(()) => return,
            Err(error) if error.is_away() => {
                if !waits {
                    tracing::warn!(error = %error, "{what} is not on the timeline yet");
                }
                waits = true;
            }
            Err(error) => {
                tracing::error!(error = %error, "{what} is not on the timeline");
                return;
            }
        }
        tokio::time::sleep(ASKED_AGAIN).await;
    }
}
