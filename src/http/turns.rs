//! Turns at what costs the store much: there are few, no tenant gets them all, and tenants together leave
//! some to whoever sees all of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use super::error::ApiError;
use crate::store::Role;

/// Lists, single events and histograms of a tenant under way at once: SQLite does two lists and two histograms, two of
/// all other reads (single events, tokens, cursors, dead letters), and whoever hangs up on a slow one does not end it.
const LISTS_OF_TENANT: usize = 2;
const EVENTS_OF_TENANT: usize = 2;
const HISTOGRAMS_OF_TENANT: usize = 1;
/// How long one waits for its turn before it is answered 503.
const PATIENCE: Duration = Duration::from_secs(10);
const HISTOGRAM_PATIENCE: Duration = Duration::from_secs(30);

/// Turns for all, and how many of them tenants may have, together and each. Cheap to clone.
#[derive(Clone)]
pub struct Turns {
    all: Arc<Semaphore>,
    most: u32,
    tenants: Arc<Semaphore>,
    of_tenants: OfTenants,
}

/// One turn, until it is dropped.
pub struct Turn {
    _one_of_all: OwnedSemaphorePermit,
    _one_of_tenants: Option<OwnedSemaphorePermit>,
    one_of_tenant: Option<OwnedSemaphorePermit>,
}

impl Turn {
    /// The tenant may have another, though this one is not over yet.
    pub fn is_over_for_tenant(&mut self) {
        self.one_of_tenant = None;
    }
}

/// Why there is no turn just now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// All of them are under way, or all that tenants may have together.
    All,
    /// All that the tenant may have.
    OfTenant,
}

impl Turns {
    /// So many at once, and so many of them for one tenant. An eighth, or one, is out of all tenants'
    /// reach, where there is more than one.
    pub fn new(most: u32, of_tenant: usize) -> Self {
        let of_tenants = (most - most.div_ceil(8)).max(1);
        Self {
            all: Arc::new(Semaphore::new(most as usize)),
            most,
            tenants: Arc::new(Semaphore::new(of_tenants as usize)),
            of_tenants: OfTenants::new(of_tenant),
        }
    }

    /// A turn, if there is one.
    ///
    /// # Errors
    /// When there is none.
    pub fn try_take(&self, role: &Role) -> Result<Turn, Taken> {
        let of_tenant = self.of_tenants.of(role);
        let of_tenant = of_tenant.map(Semaphore::try_acquire_owned);
        let of_tenant = of_tenant.transpose().map_err(|_| Taken::OfTenant)?;
        let of_tenants = of_tenant
            .is_some()
            .then(|| Arc::clone(&self.tenants).try_acquire_owned());
        let of_tenants = of_tenants.transpose().map_err(|_| Taken::All)?;
        let of_all = Arc::clone(&self.all).try_acquire_owned();
        Ok(Turn {
            _one_of_all: of_all.map_err(|_| Taken::All)?,
            _one_of_tenants: of_tenants,
            one_of_tenant: of_tenant,
        })
    }

    /// Waits for a turn. Cancel-safe; a tenant that waits for its own keeps nobody else waiting.
    ///
    /// # Errors
    /// Never: turns are not closed.
    pub async fn take(&self, role: &Role) -> Result<Turn, AcquireError> {
        let of_tenant = self.of_tenants.take(role).await?;
        let of_tenants = match &of_tenant {
            Some(_) => Some(Arc::clone(&self.tenants).acquire_owned().await?),
            None => None,
        };
        Ok(Turn {
            _one_of_all: Arc::clone(&self.all).acquire_owned().await?,
            _one_of_tenants: of_tenants,
            one_of_tenant: of_tenant,
        })
    }

    /// Returns when no turn is under way.
    pub async fn are_over(&self) {
        let _all = self.all.acquire_many(self.most).await;
    }
}

/// So many turns for each tenant. Whoever sees all tenants needs none.
#[derive(Clone)]
struct OfTenants {
    most: usize,
    tenants: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

impl OfTenants {
    fn new(most: usize) -> Self {
        Self {
            most,
            tenants: Arc::default(),
        }
    }

    fn of(&self, role: &Role) -> Option<Arc<Semaphore>> {
        let Role::Tenant(slug) = role else {
            return None;
        };
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = tenants
            .entry(slug.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(self.most)));
        Some(Arc::clone(turns))
    }

    async fn take(&self, role: &Role) -> Result<Option<OwnedSemaphorePermit>, AcquireError> {
        match self.of(role) {
            Some(tenant) => tenant.acquire_owned().await.map(Some),
            None => Ok(None),
        }
    }

    async fn take_within(&self, role: &Role, patience: Duration) -> Result<QueryTurn, ApiError> {
        match tokio::time::timeout(patience, self.take(role)).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(ApiError::unavailable(
                "too many queries of this tenant are under way",
            )),
        }
    }
}

/// Turns at queries. One whose client has gone runs on, so a tenant may have few. Cheap to clone.
#[derive(Clone)]
pub struct Queries {
    lists: OfTenants,
    events: OfTenants,
    histograms: OfTenants,
}

/// One turn, until it is dropped.
pub type QueryTurn = Option<OwnedSemaphorePermit>;

impl Default for Queries {
    fn default() -> Self {
        Self {
            lists: OfTenants::new(LISTS_OF_TENANT),
            events: OfTenants::new(EVENTS_OF_TENANT),
            histograms: OfTenants::new(HISTOGRAMS_OF_TENANT),
        }
    }
}

impl Queries {
    /// Waits for a turn at a list. Cancel-safe.
    ///
    /// # Errors
    /// 503 when that takes too long.
    pub async fn list(&self, role: &Role) -> Result<QueryTurn, ApiError> {
        self.lists.take_within(role, PATIENCE).await
    }

    /// Waits for a turn at a single event, which may be large. Cancel-safe.
    ///
    /// # Errors
    /// 503 when that takes too long.
    pub async fn event(&self, role: &Role) -> Result<QueryTurn, ApiError> {
        self.events.take_within(role, PATIENCE).await
    }

    /// Waits for a turn at a histogram. Cancel-safe.
    ///
    /// # Errors
    /// 503 when that takes too long.
    pub async fn histogram(&self, role: &Role) -> Result<QueryTurn, ApiError> {
        self.histograms.take_within(role, HISTOGRAM_PATIENCE).await
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use axum::http::StatusCode;
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_tenant_leaves_turns_to_others() {
        let turns = Turns::new(4, 2);
        let [acme, globex] = ["acme", "globex"].map(|slug| Role::Tenant(slug.to_owned()));
        let mut first = turns.try_take(&acme).unwrap();
        let second = turns.take(&acme).await.unwrap();
        assert_eq!(turns.try_take(&acme).err(), Some(Taken::OfTenant));
        let third = turns.try_take(&globex).unwrap();
        // The last is for whoever sees all tenants.
        assert_eq!(turns.try_take(&globex).err(), Some(Taken::All));
        assert!(turns.take(&globex).now_or_never().is_none());
        let fourth = turns.try_take(&Role::Operator).unwrap();
        assert_eq!(turns.try_take(&Role::Operator).err(), Some(Taken::All));
        drop(second);
        // So is what tenants leave.
        let fifth = turns.take(&Role::Operator).await.unwrap();
        assert_eq!(turns.try_take(&acme).err(), Some(Taken::All));
        drop(fifth);
        first.is_over_for_tenant();
        let fifth = turns.try_take(&acme).unwrap();
        let sixth = turns.try_take(&acme).err();
        assert_eq!(sixth, Some(Taken::All), "the first is under way still");
        drop((first, third, fourth, fifth));
        turns.are_over().await;
        assert!(Turns::new(1, 1).try_take(&acme).is_ok());
    }

    #[tokio::test]
    async fn a_tenants_queries_wait_for_each_other_and_for_nobody_else() {
        let queries = Queries::default();
        let [acme, globex] = ["acme", "globex"].map(|slug| Role::Tenant(slug.to_owned()));
        let histogram = queries.histogram(&acme).await.unwrap();
        let mut next = Box::pin(queries.histogram(&acme));
        assert!(next.as_mut().now_or_never().is_none());
        // A page's list does not wait for its bars, nor an event for either.
        let mut held = Vec::new();
        for _ in 0..LISTS_OF_TENANT {
            held.push(queries.list(&acme).await.unwrap());
        }
        assert!(queries.list(&acme).now_or_never().is_none());
        for _ in 0..EVENTS_OF_TENANT {
            held.push(queries.event(&acme).await.unwrap());
        }
        assert!(queries.event(&acme).now_or_never().is_none());
        let refused = queries.lists.take_within(&acme, Duration::ZERO).await;
        let status = refused.err().map(|error| error.status());
        assert_eq!(status, Some(StatusCode::SERVICE_UNAVAILABLE));
        for other in [globex, Role::Operator, Role::Operator] {
            held.push(queries.list(&other).now_or_never().unwrap().unwrap());
            held.push(queries.event(&other).now_or_never().unwrap().unwrap());
            held.push(queries.histogram(&other).now_or_never().unwrap().unwrap());
        }
        drop(histogram);
        assert!(next.await.unwrap().is_some());
        drop(held);
        assert!(queries.list(&acme).await.unwrap().is_some());
        assert!(queries.event(&acme).await.unwrap().is_some());
    }
}
