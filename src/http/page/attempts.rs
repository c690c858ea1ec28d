//! How often somebody may try to sign in.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So many failures in a row; then one more every [`REFILL`].
const BURST: u32 = 10;
const REFILL: Duration = Duration::from_secs(15);
/// Addresses that are remembered; when there are more, those that have waited longest go.
const REMEMBERED: usize = 10_000;
/// Failures of all addresses together that are entered into the timeline, a minute.
const TOLD: u32 = 60;
const MINUTE: Duration = Duration::from_secs(60);

/// Failed attempts, by client address.
#[derive(Default)]
pub struct Attempts(Mutex<State>);

#[derive(Default)]
struct State {
    /// When an address will have used up none of its attempts.
    clear_at: HashMap<IpAddr, Instant>,
    telling_since: Option<Instant>,
    told: u32,
}

impl Attempts {
    /// Counts an attempt of this address as a failure, until it is [taken back](Self::take_back);
    /// an error: how long it has to wait. It counts before its token is looked at, or many at one moment would all pass.
    pub(super) fn begin(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(clear_at) = state.clear_at.get(&network(address)) {
            let owed = clear_at.saturating_duration_since(now);
            match owed.checked_sub(REFILL * (BURST - 1)) {
                Some(wait) if !wait.is_zero() => return Err(wait),
                _ => {}
            }
        }
        if state.clear_at.len() >= REMEMBERED {
            state.clear_at.retain(|_, clear_at| *clear_at > now);
        }
        if state.clear_at.len() >= REMEMBERED
            && let Some(soonest) = state.clear_at.iter().min_by_key(|(_, clear_at)| **clear_at)
        {
            let soonest = *soonest.0;
            state.clear_at.remove(&soonest);
        }
        let clear_at = state.clear_at.entry(network(address)).or_insert(now);
        *clear_at = (*clear_at).max(now) + REFILL;
        Ok(())
    }

    /// An attempt of this address was no failure.
    pub(super) fn take_back(&self, address: IpAddr) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(clear_at) = state.clear_at.get_mut(&network(address)) {
            *clear_at = clear_at.checked_sub(REFILL).unwrap_or(*clear_at);
        }
    }

    /// Whether the timeline should hear of one more failure.
    pub(super) fn is_told(&self, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
    fn memory_and_the_timeline_are_bounded() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let mut told = 0;
        for number in 0..(REMEMBERED as u32 + 100) {
            let address = IpAddr::from(number.to_be_bytes());
            let now = now + Duration::from_micros(number.into());
            assert_eq!(attempts.begin(address, now), Ok(()));
            told += u32::from(attempts.is_told(now));
        }
        assert_eq!(told, TOLD);
        assert!(attempts.0.lock().unwrap().clear_at.len() <= REMEMBERED);
        assert!(attempts.is_told(now + MINUTE * 2));
    }
}
