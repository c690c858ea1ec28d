//! How often somebody may try to sign in, and export.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::auth::Caller;
use crate::store::Role;

/// So many failures in a row; then one more every [`REFILL`].
const BURST: u32 = 10;
const REFILL: Duration = Duration::from_secs(15);
/// So many sign-ins with one token in a row; then one more every [`TOKEN_REFILL`].
const TOKEN_BURST: u32 = 600;
const TOKEN_REFILL: Duration = Duration::from_millis(500);
/// So many exports of a tenant, or with an operator's token, in a row; then one more every [`EXPORT_REFILL`].
const EXPORT_BURST: u32 = 600;
const EXPORT_REFILL: Duration = Duration::from_secs(1);
/// Of each kind that are remembered; when there are more, those that have waited longest go.
const REMEMBERED: usize = 10_000;
/// Failures of all addresses together that are entered into the timeline, a minute.
const TOLD: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);

/// Failed attempts to sign in, by client address, all of them by token, and exports by tenant or token.
#[derive(Default)]
pub struct Attempts(Mutex<State>);

struct State {
    addresses: Allowance<IpAddr>,
    tokens: Allowance<String>,
    exports: Allowance<String>,
    telling_since: Option<Instant>,
    told: u32,
}

impl Default for State {
    fn default() -> Self {
        Self {
            addresses: Allowance::new(BURST, REFILL),
            tokens: Allowance::new(TOKEN_BURST, TOKEN_REFILL),
            exports: Allowance::new(EXPORT_BURST, EXPORT_REFILL),
            telling_since: None,
            told: 0,
        }
    }
}

/// So many at once for each, and then one more every so often.
struct Allowance<K> {
    burst: u32,
    refill: Duration,
    /// When all that one has used up will be there again.
    clear_at: HashMap<K, Instant>,
}

impl<K: Clone + Eq + Hash> Allowance<K> {
    fn new(burst: u32, refill: Duration) -> Self {
        Self {
            burst,
            refill,
            clear_at: HashMap::new(),
        }
    }

    /// Whether there is one to use; an error: how long until then.
    fn has_one(&self, whose: &K, now: Instant) -> Result<(), Duration> {
        let clear_at = self.clear_at.get(whose).copied().unwrap_or(now);
        let owed = clear_at.saturating_duration_since(now);
        match owed.checked_sub(self.refill * (self.burst - 1)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    fn use_one(&mut self, whose: K, now: Instant) -> Result<(), Duration> {
        self.has_one(&whose, now)?;
        if self.clear_at.len() >= REMEMBERED {
            self.clear_at.retain(|_, clear_at| *clear_at > now);
        }
        if self.clear_at.len() >= REMEMBERED
            && let Some((soonest, _)) = self.clear_at.iter().min_by_key(|(_, clear_at)| **clear_at)
        {
            let soonest = soonest.clone();
            self.clear_at.remove(&soonest);
        }
        let clear_at = self.clear_at.entry(whose).or_insert(now);
        *clear_at = (*clear_at).max(now) + self.refill;
        Ok(())
    }

    fn take_back(&mut self, whose: &K) {
        if let Some(clear_at) = self.clear_at.get_mut(whose) {
            *clear_at = clear_at.checked_sub(self.refill).unwrap_or(*clear_at);
        }
    }
}

impl Attempts {
    /// Counts an attempt of this address as a failure, until it is [taken back](Self::take_back);
    /// an error: how long it has to wait. It counts before its token is looked at, or many at one moment would all pass.
    pub(super) fn begin(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.state().addresses.use_one(network(address), now)
    }

    /// Whether this address may try with what is no guess, and does not count; an error: as of [`Self::begin`].
    pub(super) fn may_begin(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        self.state().addresses.has_one(&network(address), now)
    }

    /// An attempt of this address was no failure.
    pub(super) fn take_back(&self, address: IpAddr) {
        self.state().addresses.take_back(&network(address));
    }

    /// Counts an attempt with the token of this id, good or not; an error: how long to wait.
    pub(super) fn begin_with(&self, token: String, now: Instant) -> Result<(), Duration> {
        self.state().tokens.use_one(token, now)
    }

    /// Counts an export; an error: how long to wait. Where nobody is asked for a token all are one.
    pub(super) fn begin_export(&self, caller: &Caller, now: Instant) -> Result<(), Duration> {
        let whose = match &caller.role {
            Role::Tenant(slug) => format!("tenant:{slug}"),
            Role::Operator | Role::Recorder(_) => caller.token.clone().unwrap_or_default(),
        };
        self.state().exports.use_one(whose, now)
    }

    /// Whether the timeline should hear of one more failure.
    pub(super) fn is_told(&self, now: Instant) -> bool {
        let mut state = self.state();
        if state
            .telling_since
            .is_none_or(|since| now.saturating_duration_since(since) >= MINUTE)
        {
            state.telling_since = Some(now);
            state.told = 0;
        }
        state.told += 1;
        state.told <= TOLD
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One client may have a whole /64 of IPv6 addresses.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let mut octets = address.octets();
            octets[8..].fill(0);
            IpAddr::from(octets)
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_one_at_a_time() {
        let attempts = Attempts::default();
        let start = Instant::now();
        let (guesser, other) = ("2001:db8::1".parse().unwrap(), "192.0.2.7".parse().unwrap());
        for _ in 0..BURST {
            assert_eq!(attempts.begin(guesser, start), Ok(()));
        }
        assert_eq!(attempts.begin(guesser, start), Err(REFILL));
        // So do its neighbours; nobody else does.
        assert!(
            attempts
                .begin("2001:db8::2".parse().unwrap(), start)
                .is_err()
        );
        assert_eq!(attempts.begin(other, start), Ok(()));
        let later = start + REFILL;
        assert_eq!(attempts.begin(guesser, later), Ok(()));
        assert_eq!(attempts.begin(guesser, later), Err(REFILL));
    }

    #[test]
    fn what_succeeds_costs_no_attempt() {
        let attempts = Attempts::default();
        let (start, address) = (Instant::now(), "192.0.2.7".parse().unwrap());
        for _ in 0..3 * BURST {
            assert_eq!(attempts.begin(address, start), Ok(()));
            attempts.take_back(address);
        }
        // Nor does it forgive one.
        for _ in 0..BURST {
            assert_eq!(attempts.begin(address, start), Ok(()));
        }
        assert_eq!(attempts.begin(address, start), Err(REFILL));
        attempts.take_back(address);
        assert_eq!(attempts.begin(address, start), Ok(()));
        assert_eq!(attempts.begin(address, start), Err(REFILL));
    }

    #[test]
    fn a_token_signs_in_so_often_from_wherever_it_comes() {
        let attempts = Attempts::default();
        let start = Instant::now();
        let begin = |token: &str, now| attempts.begin_with(token.to_owned(), now);
        for _ in 0..TOKEN_BURST {
            assert_eq!(begin("a", start), Ok(()));
        }
        assert_eq!(begin("a", start), Err(TOKEN_REFILL));
        assert_eq!(begin("b", start), Ok(()));
        assert_eq!(begin("a", start + TOKEN_REFILL), Ok(()));
        assert_eq!(begin("a", start + TOKEN_REFILL), Err(TOKEN_REFILL));
    }

    #[test]
    fn a_tenant_exports_so_often_with_whichever_token() {
        let attempts = Attempts::default();
        let start = Instant::now();
        let begin = |role: &Role, token: Option<&str>, now| {
            let caller = Caller {
                role: role.clone(),
                name: None,
                token: token.map(str::to_owned),
            };
            attempts.begin_export(&caller, now)
        };
        let [acme, globex] = ["acme", "globex"].map(|slug| Role::Tenant(slug.to_owned()));
        let operator = Role::Operator;
        for number in 0..EXPORT_BURST {
            assert_eq!(begin(&acme, Some(&number.to_string()), start), Ok(()));
            assert_eq!(begin(&operator, Some("a"), start), Ok(()));
            assert_eq!(begin(&operator, None, start), Ok(()));
        }
        assert_eq!(begin(&globex, Some("1"), start), Ok(()));
        assert_eq!(begin(&operator, Some("b"), start), Ok(()));
        for (role, token) in [
            (&acme, Some("c")),
            (&operator, Some("a")),
            (&operator, None),
        ] {
            assert_eq!(begin(role, token, start), Err(EXPORT_REFILL));
            assert_eq!(begin(role, token, start + EXPORT_REFILL), Ok(()));
        }
    }

    #[test]
    fn memory_and_the_timeline_are_bounded() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let mut told = 0;
        for number in 0..(REMEMBERED as u32 + 100) {
            let address = IpAddr::from(number.to_be_bytes());
            let now = now + Duration::from_micros(number.into());
            assert_eq!(attempts.begin(address, now), Ok(()));
            assert_eq!(attempts.begin_with(number.to_string(), now), Ok(()));
            told += u32::from(attempts.is_told(now));
        }
        assert_eq!(told, TOLD);
        assert!(attempts.state().addresses.clear_at.len() <= REMEMBERED);
        assert!(attempts.state().tokens.clear_at.len() <= REMEMBERED);
        assert!(attempts.is_told(now + MINUTE * 2));
    }
}
