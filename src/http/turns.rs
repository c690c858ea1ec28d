//! Turns at what costs the store much: there are few, and no tenant gets them all.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};

use crate::store::Role;

/// Turns for all, and how many of them a tenant may have. Cheap to clone.
#[derive(Clone)]
pub struct Turns {
    all: Arc<Semaphore>,
    most: u32,
    of_tenant: usize,
    tenants: Arc<Mutex<HashMap<String, Arc<Semaphore>>>>,
}

/// One turn, until it is dropped.
pub struct Turn {
    _one_of_all: OwnedSemaphorePermit,
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
    /// All of them are under way.
    All,
    /// All that the tenant may have.
    OfTenant,
}

impl Turns {
    /// So many at once, and so many of them for one tenant.
    pub fn new(most: u32, of_tenant: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(most as usize)),
            most,
            of_tenant,
            tenants: Arc::default(),
        }
    }

    /// A turn, if there is one.
    ///
    /// # Errors
    /// When there is none.
    pub fn try_take(&self, role: &Role) -> Result<Turn, Taken> {
        let of_tenant = self.tenant(role).map(Semaphore::try_acquire_owned);
        let of_tenant = of_tenant.transpose().map_err(|_| Taken::OfTenant)?;
        let of_all = Arc::clone(&self.all).try_acquire_owned();
        Ok(Turn {
            _one_of_all: of_all.map_err(|_| Taken::All)?,
            one_of_tenant: of_tenant,
        })
    }

    /// Waits for a turn. Cancel-safe; a tenant that waits for its own keeps nobody else waiting.
    ///
    /// # Errors
    /// Never: turns are not closed.
    pub async fn take(&self, role: &Role) -> Result<Turn, AcquireError> {
        let of_tenant = match self.tenant(role) {
            Some(tenant) => Some(tenant.acquire_owned().await?),
            None => None,
        };
        Ok(Turn {
            _one_of_all: Arc::clone(&self.all).acquire_owned().await?,
            one_of_tenant: of_tenant,
        })
    }

    /// Returns when no turn is under way.
    pub async fn are_over(&self) {
        let _all = self.all.acquire_many(self.most).await;
    }

    fn tenant(&self, role: &Role) -> Option<Arc<Semaphore>> {
        let Role::Tenant(slug) = role else {
            return None;
        };
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = tenants
            .entry(slug.clone())
            .or_insert_with(|| Arc::new(Semaphore::new(self.of_tenant)));
        Some(Arc::clone(turns))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_tenant_leaves_turns_to_others() {
        let turns = Turns::new(3, 2);
        let [acme, globex] = ["acme", "globex"].map(|slug| Role::Tenant(slug.to_owned()));
        let mut first = turns.try_take(&acme).unwrap();
        let second = turns.take(&acme).await.unwrap();
        assert_eq!(turns.try_take(&acme).err(), Some(Taken::OfTenant));
        let third = turns.try_take(&globex).unwrap();
        assert_eq!(turns.try_take(&globex).err(), Some(Taken::All));
        assert_eq!(turns.try_take(&Role::Operator).err(), Some(Taken::All));
        drop(second);
        let fourth = turns.try_take(&Role::Operator).unwrap();
        assert_eq!(turns.try_take(&acme).err(), Some(Taken::All));
        drop(fourth);
        first.is_over_for_tenant();
        let fifth = turns.try_take(&acme).unwrap();
        let sixth = turns.try_take(&acme).err();
        assert_eq!(sixth, Some(Taken::All), "the first is under way still");
        drop((first, third, fifth));
        turns.are_over().await;
    }
}
