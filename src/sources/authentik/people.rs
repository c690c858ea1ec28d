//! Who acted: groups, subject and address of a user, looked up through Authentik's API.
//!
//! No event names a group. What is found is remembered for a while; a look-up that fails leaves
//! the event to the directory of tenants, and never holds the poll up for long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bytestring::ByteString;
use futures_util::StreamExt;
use serde_json::Value;

use super::client::{Client, ClientError};

const REMEMBER: Duration = Duration::from_secs(300);
const REMEMBER_ABSENCE: Duration = Duration::from_secs(60);
const REMEMBER_AT_MOST: usize = 10_000;
const AT_ONCE: usize = 4;
/// All look-ups of one page together.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a refusal nothing is looked up for this long.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);
/// After a failure for this long: a walk of a thousand pages must not wait at each of them.
const FAILED_PAUSE: Duration = Duration::from_secs(15);

/// What Authentik knows of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// Names of the direct groups.
    pub groups: Vec<ByteString>,
    /// What OIDC hands out as the subject.
    pub uid: Option<ByteString>,
    /// Mail address.
    pub email: Option<ByteString>,
}

/// What has been looked up lately.
#[derive(Default)]
pub struct People {
    known: HashMap<i64, (Instant, Option<Person>)>,
    paused_until: Option<Instant>,
    trouble: Option<String>,
}

impl People {
    /// Looks up those of `pks` that are not known, for `PATIENCE` at most.
    pub async fn look_up(&mut self, client: &Client, pks: impl Iterator<Item = i64>) {
        let now = Instant::now();
        if self.paused_until.is_some_and(|until| until > now) {
            return;
        }
        let mut unknown: Vec<i64> = pks.filter(|pk| !self.is_fresh(*pk, now)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return;
        }
        self.make_room(now, unknown.len());
        let answers = futures_util::stream::iter(unknown)
            .map(|pk| async move { (pk, look_up_one(client, pk).await) })
            .buffer_unordered(AT_ONCE);
        let mut answers = std::pin::pin!(answers);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            match tokio::time::timeout_at(deadline, answers.next()).await {
                Ok(Some((pk, Ok(person)))) => self.learn(pk, person),
                Ok(Some((_, Err(error)))) => return self.pause(&error),
                Ok(None) => return,
                Err(_) => {
                    let error = ClientError::Transport("no answer in time".to_owned());
                    return self.pause(&error);
                }
            }
        }
    }

    /// Why nobody is looked up at present.
    pub fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    fn learn(&mut self, pk: i64, person: Option<Person>) {
        self.trouble = None;
        let former = self.known.remove(&pk).and_then(|(_, person)| person);
        // Whoever has been deleted had groups when the events were made.
        self.known.insert(pk, (Instant::now(), person.or(former)));
    }

    /// Events are entered without look-ups for a while rather than late.
    fn pause(&mut self, error: &ClientError) {
        let (pause, trouble) = if error.needs_a_person() {
            let trouble = format!(
                "the token may not look users up ({error}): grant view_user and view_group, or tenants come from the directory alone"
            );
            (REFUSED_PAUSE, trouble)
        } else {
            let trouble = format!(
                "users cannot be looked up ({error}): for now tenants come from the directory alone"
            );
            let asked = error.retry_after().unwrap_or_default();
            (FAILED_PAUSE.max(asked), trouble)
        };
        self.paused_until = Some(Instant::now() + pause);
        if self.trouble.is_none() {
            tracing::warn!(reason = trouble, "look-ups pause");
        }
        self.trouble = Some(trouble);
    }

    /// What is known of a user.
    pub fn get(&self, pk: i64) -> Option<&Person> {
        self.known.get(&pk).and_then(|(_, person)| person.as_ref())
    }

    fn is_fresh(&self, pk: i64, now: Instant) -> bool {
        self.known.get(&pk).is_some_and(|(since, person)| {
            let remember = if person.is_some() {
                REMEMBER
            } else {
                REMEMBER_ABSENCE
            };
            now.duration_since(*since) < remember
        })
    }

    fn make_room(&mut self, now: Instant, more: usize) {
        if self.known.len() + more > REMEMBER_AT_MOST {
            self.known
                .retain(|_, (since, _)| now.duration_since(*since) < REMEMBER);
        }
        if self.known.len() + more > REMEMBER_AT_MOST {
            self.known.clear();
        }
    }
}

/// Asks twice before it gives up on a server that stumbles.
async fn look_up_one(client: &Client, pk: i64) -> Result<Option<Person>, ClientError> {
    let answer = match client.user(pk).await {
        Err(ClientError::ServerError { .. } | ClientError::Transport(_)) => client.user(pk).await?,
        answer => answer?,
    };
    Ok(answer.map(|user| person_of(&user)))
}

fn person_of(user: &Value) -> Person {
    let text = |key: &str| {
        user.get(key)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
            .map(ByteString::from)
    };
    let groups = user
        .get("groups_obj")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|group| group.get("name").and_then(Value::as_str))
        .map(ByteString::from)
        .collect();
    Person {
        groups,
        uid: text("uid"),
        email: text("email"),
    }
}
