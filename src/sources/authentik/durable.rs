//! The rows that are known to be durable. Pure.

use std::collections::HashMap;

use jiff::Timestamp;

use super::list::RowKey;

/// Some five megabytes; far more than a day of most servers.
const MOST: usize = 50_000;

/// Remembers the newest of them, to spare the store from refusing them at every poll.
#[derive(Clone, Debug, Default)]
pub(super) struct DurableRows(HashMap<String, Timestamp>);

impl DurableRows {
    pub(super) fn add(&mut self, rows: impl Iterator<Item = RowKey>) {
        self.0.extend(rows.map(|row| (row.pk, row.created)));
        if self.0.len() > MOST {
            self.forget_older_half();
        }
    }

    pub(super) fn contains(&self, row: &RowKey) -> bool {
        self.0.contains_key(&row.pk)
    }

    fn forget_older_half(&mut self) {
        let mut times: Vec<Timestamp> = self.0.values().copied().collect();
        let middle = times.len() / 2;
        let (_, middle, _) = times.select_nth_unstable(middle);
        self.0.retain(|_, created| created > middle);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn row(second: i64) -> RowKey {
        RowKey {
            created: Timestamp::from_second(second).unwrap(),
            pk: second.to_string(),
        }
    }

    #[test]
    fn the_newest_are_remembered_in_whatever_order_they_come() {
        let seconds = || 1..=2 * MOST as i64;
        let orders: [Box<dyn Iterator<Item = i64>>; 2] =
            [Box::new(seconds()), Box::new(seconds().rev())];
        for order in orders {
            let mut durable = DurableRows::default();
            for second in order {
                durable.add(std::iter::once(row(second)));
                assert!(durable.0.len() <= MOST);
            }
            let newest = 2 * MOST as i64;
            assert!((newest - 1_000..=newest).all(|second| durable.contains(&row(second))));
        }
    }
}
