//! Counts by time.

use futures_util::TryStreamExt as _;
use mongodb::bson::{DateTime, doc};

use super::errors::store_error;
use super::query::{ceiling, conditions};
use super::{MongoStore, collect};
use crate::store::histogram::Grid;
use crate::store::{EventFilter, Histogram, Result};

impl MongoStore {
    pub(super) async fn count_by_time(
        &self,
        filter: &EventFilter,
        buckets: u32,
    ) -> Result<Histogram> {
        let since = filter.since.map(|at| ceiling(at).timestamp_millis());
        let until = filter.until.map(|at| ceiling(at).timestamp_millis());
        let (first, last) = tokio::try_join!(
            async {
                match since {
                    Some(since) => Ok(Some(since)),
                    None => self.outermost(filter, 1).await,
                }
            },
            async {
                match until {
                    Some(until) => Ok(Some(until)),
                    None => Ok(self.outermost(filter, -1).await?.map(|last| last + 1)),
                }
            },
        )?;
        let (Some(first), Some(last)) = (first, last) else {
            return Ok(Grid::empty(since, until).finish());
        };
        let mut grid = Grid::new(first, last, buckets);
        let mut within = conditions(filter, None);
        within.insert(
            "at",
            doc! { "$gte": DateTime::from_millis(first), "$lt": DateTime::from_millis(last) },
        );
        let start = DateTime::from_millis(grid.start());
        let elapsed = doc! { "$subtract": ["$at", start] };
        let bar = doc! { "$floor": { "$divide": [elapsed, grid.width()] } };
        let group = doc! {
            "_id": { "bar": { "$toLong": bar }, "source": "$source" },
            "count": { "$sum": 1_i64 },
        };
        let counted = self
            .events
            .aggregate([doc! { "$match": within }, doc! { "$group": group }])
            .max_time(self.timeout)
            .await;
        let mut counted = counted.map_err(|error| store_error(&error))?;
        while let Some(counts) = counted
            .try_next()
            .await
            .map_err(|error| store_error(&error))?
        {
            let (Ok(id), Ok(count)) = (counts.get_document("_id"), counts.get_i64("count")) else {
                continue;
            };
            if let (Ok(bar), Ok(source)) = (id.get_i64("bar"), id.get_str("source")) {
                grid.add_to(bar, source, count.unsigned_abs());
            }
        }
        Ok(grid.finish())
    }

    /// The time of the first (1) or last (-1) event of a filter.
    async fn outermost(&self, filter: &EventFilter, order: i32) -> Result<Option<i64>> {
        let found = self
            .events
            .find(conditions(filter, None))
            .projection(doc! { "_id": 0, "at": 1 })
            .sort(doc! { "at": order, "_id": order })
            .limit(1)
            .max_time(self.timeout)
            .await;
        let at = |document: &mongodb::bson::RawDocument| {
            let at = document.get_datetime("at").ok()?;
            Some(at.timestamp_millis())
        };
        Ok(collect::<i64>(found, at).await?.pop())
    }
}
