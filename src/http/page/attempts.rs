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
    /// Whether this address may try now; else how long it has to wait.
    pub(super) fn may_try(&self, address: IpAddr, now: Instant) -> Result<(), Duration> {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(clear_at) = state.clear_at.get(&network(address)) else {
            return Ok(());
        };
        let owed = clear_at.saturating_duration_since(now);
        match owed.checked_sub(REFILL * (BURST - 1)) {
            Some(wait) if !wait.is_zero() => Err(wait),
            _ => Ok(()),
        }
    }

    /// Counts a failure; whether the timeline should hear of it.
    pub(super) fn failed(&self, address: IpAddr, now: Instant) -> bool {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
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
            assert_eq!(attempts.may_try(guesser, start), Ok(()));
            assert!(attempts.failed(guesser, start));
        }
        assert_eq!(attempts.may_try(guesser, start), Err(REFILL));
        // So do its neighbours; nobody else does.
        assert!(
            attempts
                .may_try("2001:db8::2".parse().unwrap(), start)
                .is_err()
        );
        assert_eq!(attempts.may_try(other, start), Ok(()));
        let later = start + REFILL;
        assert_eq!(attempts.may_try(guesser, later), Ok(()));
        attempts.failed(guesser, later);
        assert_eq!(attempts.may_try(guesser, later), Err(REFILL));
    }

    #[test]
    fn memory_and_the_timeline_are_bounded() {
        let attempts = Attempts::default();
        let now = Instant::now();
        let mut told = 0;
        for number in 0..(REMEMBERED as u32 + 100) {
            let address = IpAddr::from(number.to_be_bytes());
            told += u32::from(attempts.failed(address, now + Duration::from_micros(number.into())));
        }
        assert_eq!(told, TOLD);
        assert!(attempts.0.lock().unwrap().clear_at.len() <= REMEMBERED);
        assert!(attempts.failed(IpAddr::from([9, 9, 9, 9]), now + MINUTE * 2));
    }
}
