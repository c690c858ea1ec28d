//! Who acted: groups, subject and address of a user, looked up through Authentik's API.
//!
//! No event names a group. What is found is remembered for a while, or until an event tells that a
//! user or a group was changed; events of before that are told by what was known until then, unless
//! older pages wait, which may tell of earlier changes. A look-up that fails leaves the event to the
//! directory of tenants, and for good: what stands is not altered. So whoever reads what is old waits
//! and asks again, a few times; what is new is never held up for long.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use bytestring::ByteString;
use futures_util::StreamExt;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use super::client::{Client, ClientError, HTML_PAGE};
use crate::event::{TenantHints, to_millis};

/// Authentik tells of a change of groups before it makes it.
const CHANGING: Duration = Duration::from_secs(5);

const REMEMBER: Duration = Duration::from_secs(300);
const REMEMBER_ABSENCE: Duration = Duration::from_secs(60);
const REMEMBER_AT_MOST: usize = 10_000;
const AT_ONCE: usize = 4;
/// All look-ups of one page together.
const PATIENCE: Duration = Duration::from_secs(10);
/// After a refusal nothing is looked up for this long.
const REFUSED_PAUSE: Duration = Duration::from_secs(300);
/// After a failure for this long.
const FAILED_PAUSE: Duration = Duration::from_secs(15);
/// After the first one that may be about a single user for this long only: new events do not wait.
const DOUBT_PAUSE: Duration = Duration::from_secs(1);
/// After so many failures in a row nobody is waited for: a walk of a thousand pages must not wait at
/// each of them.
const TRIES: u32 = 5;
/// One page waits for its people for so long at most: then the first to be told are forgotten.
pub(crate) const WAIT: Duration = REMEMBER;
/// Where so many users in a row cannot be told, the server fails and not one of them.
const SEVERAL: usize = 3;

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
    /// When the newest change was made that an event told.
    changed: Option<Instant>,
    former: Former,
    /// The users, up to `SEVERAL`, whom the server failed to tell since it told anybody.
    untold: HashSet<i64>,
    trouble: Option<Trouble>,
    /// When look-ups failed or were slow last, forgotten or not.
    failed: Option<Instant>,
}

/// What was known before the newest changes, those that one page told.
#[derive(Default)]
struct Former {
    /// When the first of them was made, by the server's clock.
    until: Option<Timestamp>,
    /// When the newest one before them was.
    changed: Option<Instant>,
    /// Who was asked for again because of them.
    people: HashMap<i64, Person>,
}

/// Why nobody is looked up for a while.
struct Trouble {
    error: ClientError,
    /// Until then nobody is asked for; after the next try that did not end it, the time of that
    /// try.
    until: Instant,
    /// In a row: since anybody could be looked up.
    failures: u32,
}

impl People {
    /// Looks up those of `pks` that are not known, the first ones first, for `PATIENCE` at most. After
    /// how long the rest can be asked for again, if that is worth waiting for.
    pub async fn look_up(&mut self, client: &Client, pks: &[i64]) -> Option<Duration> {
        let now = Instant::now();
        let mut met = HashSet::new();
        let unknown: Vec<i64> = pks
            .iter()
            .copied()
            .filter(|pk| !self.is_fresh(*pk, now) && met.insert(*pk))
            .collect();
        if unknown.is_empty() {
            return None;
        }
        let pauses = |trouble: &Trouble| trouble.until > now;
        if !self.trouble.as_ref().is_some_and(pauses) {
            self.make_room(now, pks, unknown.len());
            if let Some(trouble) = &mut self.trouble {
                trouble.until = now;
            }
            match self.ask_for(client, unknown).await {
                Ok(true) => {}
                Ok(false) => {
                    self.note_slowness();
                    return Some(Duration::ZERO);
                }
                Err(error) => self.pause(error),
            }
        }
        let trouble = self.trouble.as_ref()?;
        let is_worth_it = !lacks_right(&trouble.error) && trouble.failures < TRIES;
        is_worth_it.then(|| trouble.until.saturating_duration_since(Instant::now()))
    }

    /// Whether all were told; some were in any case.
    async fn ask_for(&mut self, client: &Client, unknown: Vec<i64>) -> Result<bool, ClientError> {
        let answers = futures_util::stream::iter(unknown)
            .map(|pk| async move { (pk, Instant::now(), look_up_one(client, pk).await) })
            .buffer_unordered(AT_ONCE);
        let mut answers = std::pin::pin!(answers);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        let untold_before = self.untold.clone();
        let mut untold = Vec::new();
        let mut is_anybody_told = false;
        loop {
            match tokio::time::timeout_at(deadline, answers.next()).await {
                Ok(Some((pk, asked, Ok(person)))) => {
                    is_anybody_told = true;
                    self.untold.clear();
                    if let Some(trouble) = &mut self.trouble {
                        trouble.failures = 0;
                    }
                    self.learn(pk, asked, person);
                }
                Ok(Some((pk, _, Err(error)))) if self.is_about_one(pk, &error) => {
                    untold.push((pk, error));
                }
                Ok(Some((.., Err(error)))) => return Err(error),
                Ok(None) => break,
                // It is slow, or there are many.
                Err(_) if is_anybody_told => return Ok(false),
                Err(_) => return Err(ClientError::Late),
            }
        }
        let is_new = |(pk, _): &&(i64, ClientError)| !untold_before.contains(pk);
        if !is_anybody_told
            && self.given_up().is_none()
            && let Some((_, error)) = untold.iter().find(is_new)
        {
            // It may be the server that fails: if these fail once more, it is they.
            return Err(error.clone());
        }
        for (pk, _) in untold {
            self.learn(pk, Instant::now(), None);
        }
        if self.untold.len() < SEVERAL {
            self.trouble = None;
        }
        Ok(true)
    }

    /// Whether a failure is taken for this user's alone, so that the others are asked for.
    fn is_about_one(&mut self, pk: i64, error: &ClientError) -> bool {
        let may_be = may_be_about_one(error);
        if may_be && self.untold.len() < SEVERAL {
            self.untold.insert(pk);
        }
        may_be && (self.untold.len() < SEVERAL || self.given_up().is_some())
    }

    /// Takes in that a page tells of users or groups that were changed, from `first` to `last` by the
    /// server's clock: who was looked up before is asked for again. What is known of them stays, for
    /// they may have been deleted.
    pub fn note_changes(&mut self, first: Timestamp, last: Timestamp, now: Timestamp) {
        // In the future by the server's own clock: just now.
        let ago = Duration::try_from(now.duration_since(last)).unwrap_or_default();
        let changed = Instant::now().checked_sub(ago);
        // As events tell their time.
        let first = Some(to_millis(first));
        // The same page may be read again, and older ones of the same poll come after it.
        if changed > self.changed && first != self.former.until {
            self.former = Former {
                until: first,
                changed: self.changed,
                people: HashMap::new(),
            };
        } else {
            self.former.until = self.former.until.min(first);
        }
        self.changed = self.changed.max(changed);
    }

    /// Takes in that older pages wait, which may tell of earlier changes: events are told by what is
    /// known now.
    pub fn forget_former(&mut self) {
        self.former.people.clear();
    }

    /// Why users cannot be looked up at present.
    pub fn trouble(&self) -> Option<String> {
        let error = &self.trouble.as_ref()?.error;
        Some(if lacks_right(error) {
            format!(
                "the token may not look users up ({error}): grant view_user and view_group, or tenants come from the directory alone"
            )
        } else {
            format!(
                "users cannot be looked up ({}): for now tenants come from the directory alone, and older events wait for a while",
                error.beside_the_list()
            )
        })
    }

    /// Nobody pauses for it, but new events do not wait either.
    fn note_slowness(&mut self) {
        let is_new = self.is_new_failure();
        if self.trouble.is_some() {
            return;
        }
        self.trouble = Some(Trouble {
            error: ClientError::Late,
            until: Instant::now(),
            failures: 0,
        });
        if is_new {
            tracing::warn!(reason = self.trouble(), "look-ups are slow");
        }
    }

    /// Whether it is an incident of its own: a server that fails all the time is forgotten between
    /// two users who have to be looked up.
    fn is_new_failure(&mut self) -> bool {
        let last = self.failed.replace(Instant::now());
        last.is_none_or(|last| last.elapsed() >= REMEMBER)
    }

    /// Once a poll that began then has ended, forgets a trouble that was over before and was not met in
    /// it: on a quiet server nobody is looked up who could end it. A lack of right waits for a person.
    pub fn poll_ended(&mut self, began: Instant) {
        self.trouble
            .take_if(|trouble| trouble.until < began && !lacks_right(&trouble.error));
    }

    /// With another token everybody may be looked up at once.
    pub fn begin_anew(&mut self) {
        self.trouble = None;
        self.failed = None;
        self.untold.clear();
    }

    /// Why nobody is waited for any more, although it may pass.
    pub fn given_up(&self) -> Option<&ClientError> {
        let Trouble {
            error, failures, ..
        } = self.trouble.as_ref()?;
        (*failures >= TRIES && !lacks_right(error)).then_some(error)
    }

    fn learn(&mut self, pk: i64, asked: Instant, person: Option<Person>) {
        let former = self.known.remove(&pk);
        let was_fresh = former.as_ref().is_some_and(|(since, _)| {
            is_current(*since, self.former.changed) && asked.duration_since(*since) < REMEMBER
        });
        let former = former.and_then(|(_, person)| person);
        match &former {
            // Only the newest changes made it be asked for again.
            Some(former) if was_fresh => {
                let kept = self.former.people.entry(pk);
                kept.or_insert_with(|| former.clone());
            }
            _ => {
                self.former.people.remove(&pk);
            }
        }
        // Whoever has been deleted had groups when the events were made.
        self.known.insert(pk, (asked, person.or(former)));
    }

    fn pause(&mut self, error: ClientError) {
        let is_new = self.is_new_failure();
        let former = self.trouble.take();
        let failures = former.as_ref().map_or(0, |former| former.failures);
        let pause = if lacks_right(&error) {
            REFUSED_PAUSE
        } else if failures == 0 && may_be_about_one(&error) {
            DOUBT_PAUSE
        } else {
            FAILED_PAUSE.max(error.retry_after().unwrap_or_default())
        };
        self.trouble = Some(Trouble {
            error,
            until: Instant::now() + pause,
            failures: failures + 1,
        });
        if former.is_none() && is_new {
            tracing::warn!(reason = self.trouble(), "look-ups pause");
        }
    }

    /// Adds what is known of the users of an event that was made then. The acting one comes first: of
    /// several values of a signal the first that is a tenant's counts. Until it is known whether the
    /// acting one has a tenant, the impersonated one does not count.
    pub fn tell(
        &self,
        [acting, impersonated]: [Option<i64>; 2],
        at: Timestamp,
        hints: &mut TenantHints,
    ) {
        let is_told = acting.is_none_or(|pk| self.known.contains_key(&pk));
        let impersonated = impersonated.filter(|_| is_told);
        let users = acting.into_iter().chain(impersonated);
        for person in users.filter_map(|pk| self.known_at(pk, at)) {
            hints.groups.extend(person.groups.iter().cloned());
            hints.subjects.extend(person.uid.clone());
            hints.emails.extend(person.email.clone());
        }
    }

    fn known_at(&self, pk: i64, at: Timestamp) -> Option<&Person> {
        let former = self.former.people.get(&pk);
        former
            .filter(|_| Some(at) < self.former.until)
            .or_else(|| self.get(pk))
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
            is_current(*since, self.changed) && now.duration_since(*since) < remember
        })
    }

    /// Whoever the page that is read tells of stays.
    fn make_room(&mut self, now: Instant, page: &[i64], more: usize) {
        if self.known.len() + more <= REMEMBER_AT_MOST {
            return;
        }
        let page: HashSet<&i64> = page.iter().collect();
        self.known
            .retain(|pk, (since, _)| page.contains(pk) || now.duration_since(*since) < REMEMBER);
        if self.known.len() + more > REMEMBER_AT_MOST {
            self.known.retain(|pk, _| page.contains(pk));
        }
    }
}

/// Whether what was looked up then tells of that change.
fn is_current(since: Instant, changed: Option<Instant>) -> bool {
    changed.is_none_or(|changed| since > changed + CHANGING)
}

#[derive(Deserialize)]
struct Change {
    action: String,
    context: ChangeContext,
}

#[derive(Deserialize)]
struct ChangeContext {
    model: ChangedModel,
}

#[derive(Deserialize)]
struct ChangedModel {
    model_name: String,
}

/// Whether an event tells that a user or a group was changed. Membership is a change of either.
pub(super) fn changes_people(event: &RawValue) -> bool {
    serde_json::from_str::<Change>(event.get()).is_ok_and(|change| {
        change.action.starts_with("model_")
            && ["group", "user"].contains(&change.context.model.model_name.as_str())
    })
}

/// Whether the token may not look users up, as authentik says and no page of a proxy's. It read events a moment ago; one
/// that is dead since passes.
fn lacks_right(error: &ClientError) -> bool {
    // authentik says so in these words, whatever its language is.
    let is_dead = |detail: &str| detail.contains("Token invalid");
    matches!(error, ClientError::Refused { status: 403, detail } if !is_dead(detail) && detail != HTML_PAGE)
}

/// Whether it may be for what is known of one user. A server that wants to be left alone says so of
/// itself.
fn may_be_about_one(error: &ClientError) -> bool {
    use ClientError::{ServerError, TooLong, Unreadable};
    matches!(error, ServerError { .. } | TooLong | Unreadable(_)) && error.retry_after().is_none()
}

/// Asks twice before it gives up on a server that stumbles.
async fn look_up_one(client: &Client, pk: i64) -> Result<Option<Person>, ClientError> {
    let answer = match client.user(pk).await {
        Err(ClientError::ServerError { .. } | ClientError::Late | ClientError::Transport(_)) => {
            client.user(pk).await?
        }
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

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
#[path = "people_tests.rs"]
mod tests;
