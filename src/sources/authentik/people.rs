//! Who acted: groups, subject and address of a user, looked up through Authentik's API.
//!
//! No event names a group. What is found is remembered for a while; a look-up that fails leaves
//! the event to the directory of tenants, and never holds the poll up for long.

use std::collections::HashMap;
use std::time::{Duration, Instant};

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

/// What Authentik knows of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Person {
    /// Names of the direct groups.
    pub groups: Vec<String>,
    /// What OIDC hands out as the subject.
    pub uid: Option<String>,
    /// Mail address.
    pub email: Option<String>,
}

/// What has been looked up lately.
#[derive(Default)]
pub struct People {
    known: HashMap<i64, (Instant, Option<Person>)>,
    refused_until: Option<Instant>,
}

impl People {
    /// Looks up those of `pks` that are not known. Returns a refusal in words, once per pause.
    pub async fn look_up(
        &mut self,
        client: &Client,
        pks: impl Iterator<Item = i64>,
    ) -> Option<String> {
        let now = Instant::now();
        if self.refused_until.is_some_and(|until| until > now) {
            return None;
        }
        let mut unknown: Vec<i64> = pks.filter(|pk| !self.is_fresh(*pk, now)).collect();
        unknown.sort_unstable();
        unknown.dedup();
        if unknown.is_empty() {
            return None;
        }
        self.make_room(now, unknown.len());
        let answers = futures_util::stream::iter(unknown)
            .map(|pk| async move { (pk, look_up_one(client, pk).await) })
            .buffer_unordered(AT_ONCE);
        let mut answers = std::pin::pin!(answers);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Ok(Some((pk, answer))) = tokio::time::timeout_at(deadline, answers.next()).await {
            match answer {
                Ok(person) => {
                    self.known.insert(pk, (Instant::now(), person));
                }
                Err(error @ ClientError::Refused { .. }) => {
                    self.refused_until = Some(Instant::now() + REFUSED_PAUSE);
                    return Some(format!(
                        "the token may not look users up ({error}): grant view_user and view_group, or tenants come from the directory alone"
                    ));
                }
                Err(error) => tracing::warn!(error = %error, "a user could not be looked up"),
            }
        }
        None
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
            .map(str::to_owned)
    };
    let groups = user
        .get("groups_obj")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|group| group.get("name").and_then(Value::as_str))
        .map(str::to_owned)
        .collect();
    Person {
        groups,
        uid: text("uid"),
        email: text("email"),
    }
}
