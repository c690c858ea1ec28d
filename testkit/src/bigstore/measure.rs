//! Every kind of filter, first page and thousandth, and its histogram.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use daybook::event::Outcome;
use daybook::store::{EventFilter, PageKey, Store};
use futures_util::TryStreamExt as _;
use jiff::Timestamp;
use mongodb::Database;
use mongodb::bson::{Document, doc};

use super::generate::{SPAN, START, TENANTS, address_of, tenant};

const PAGE: u32 = 100;
const DEEP: u32 = 1000;

/// What is asked for, with a name.
fn filters() -> Vec<(String, EventFilter)> {
    let mut filters = vec![("everything".to_owned(), EventFilter::default())];
    let mut add = |name: &str, change: &dyn Fn(&mut EventFilter)| {
        let mut filter = EventFilter::default();
        change(&mut filter);
        filters.push((name.to_owned(), filter));
    };
    let text = |text: &str| Some(text.to_owned());
    let at = |share: f64| {
        let offset = (share * SPAN as f64) as i64;
        Timestamp::from_millisecond(START + offset).ok()
    };
    let (large, small, gone) = (tenant(0), tenant(TENANTS - 5), tenant(TENANTS - 1));
    let someone = address_of(0, 0);

    add("source", &|f| f.source = text("authentik"));
    add("source: none", &|f| f.source = text("nobody"));
    add("tenant: large", &|f| f.tenant = Some(large.clone()));
    add("tenant: small", &|f| f.tenant = Some(small.clone()));
    add("tenant: left long ago", &|f| f.tenant = Some(gone.clone()));
    add("tenant: none", &|f| f.tenant = text("nobody"));
    add("action", &|f| f.action = text("authentik.login"));
    add("action: one event", &|f| f.action = text("needle.found"));
    add("action: none", &|f| f.action = text("no.such"));
    add("action prefix", &|f| f.action = text("authentik.*"));
    add("action prefix: a", &|f| f.action = text("a*"));
    add("action prefix: one event", &|f| f.action = text("needle.*"));
    add("outcome: failure", &|f| f.outcome = Some(Outcome::Failure));
    add("outcome: one event", &|f| {
        f.outcome = Some(Outcome::Unknown)
    });
    add("actor: busiest", &|f| f.actor = Some(someone.clone()));
    add("actor: one event", &|f| f.actor = text("NADJA nadel"));
    add("actor: none", &|f| f.actor = text("nobody"));
    add("ip: common", &|f| f.ip = text("198.51.0.0"));
    add("ip: of strangers", &|f| f.ip = text("203.0.7.7"));
    add("ip: one event", &|f| f.ip = text("192.0.2.77"));
    add("ip: none", &|f| f.ip = text("192.0.2.99"));
    add("target: common", &|f| f.target = text("app-3"));
    add("target: one event", &|f| f.target = text("needle-target"));
    add("target: none", &|f| f.target = text("nothing"));
    add("text: in an action", &|f| f.text = text("login_fail"));
    add("text: a name", &|f| f.text = text("heidi"));
    add("text: in many files", &|f| f.text = text("report-"));
    add("text: one letter", &|f| f.text = text("e"));
    add("text: one event", &|f| f.text = text("ten milli"));
    add("text: one file", &|f| f.text = text("REPORT-12352.o"));
    add("text: none", &|f| f.text = text("nowhere@example"));
    add("text: none, long", &|f| {
        f.text = text("tenant-07.example.org/heidi")
    });
    add("text: none, two letters", &|f| f.text = text("qz"));
    // In few of the numbers that files are named with.
    add("text: five digits of an id", &|f| f.text = text("9e377"));
    add("text: an id, begins as many", &|f| {
        f.text = text("-5555-4000-8000-000000000001!9e3779b97f4a7c15-00")
    });
    add("text: tenant left", &|f| f.text = text("@tenant-49."));
    add("since and until", &|f| {
        (f.since, f.until) = (at(0.4), at(0.41))
    });
    add("until, tenant", &|f| {
        (f.until, f.tenant) = (at(0.3), Some(small.clone()))
    });
    add("since, actor", &|f| {
        (f.since, f.actor) = (at(0.9), Some(someone.clone()))
    });
    add("tenant, source, outcome", &|f| {
        f.tenant = Some(large.clone());
        f.source = text("stalwart");
        f.outcome = Some(Outcome::Failure);
    });
    add("tenant, outcome: none", &|f| {
        f.tenant = Some(large.clone());
        f.outcome = Some(Outcome::Unknown);
    });
    add("source, outcome", &|f| {
        f.source = text("authentik");
        f.outcome = Some(Outcome::Failure);
    });
    add("tenant, text: a name", &|f| {
        f.tenant = Some(small.clone());
        f.text = text("heidi");
    });
    add("tenant, text of another: none", &|f| {
        f.tenant = Some(small.clone());
        f.text = text("@tenant-00.");
    });
    add("tenant, actor of another: none", &|f| {
        f.tenant = Some(small.clone());
        f.actor = Some(someone.clone());
    });
    add("actor, action", &|f| {
        f.actor = Some(someone.clone());
        f.action = text("authentik.password_set");
    });
    add("actor, ip: none", &|f| {
        f.actor = Some(someone.clone());
        f.ip = text("198.51.0.7");
    });
    add("actor, target, outcome", &|f| {
        f.actor = Some(someone.clone());
        f.target = text("app-3");
        f.outcome = Some(Outcome::Success);
    });
    add("tenant, action, text: none", &|f| {
        f.tenant = Some(large.clone());
        f.action = text("ocis.*");
        f.text = text("needle");
    });
    filters
}

/// A first page may take so long, a histogram of the whole range so long.
const PAGE_LIMIT: f64 = 50.0;
const HISTOGRAM_LIMIT: f64 = 300.0;

/// Slow histograms are not asked for again and again.
const HISTOGRAM_TIME: Duration = Duration::from_secs(3);

/// Prints a table with a row for each filter whose name has `only` in it, and what was too slow.
///
/// # Errors
/// When the store fails.
pub async fn measure(
    store: &Arc<dyn Store>,
    name: &str,
    (runs, only): (u64, &str),
    server: Option<&Database>,
) -> Result<()> {
    println!("\n{name}: first page of {PAGE}, page {DEEP}, histogram of 100 bars; milliseconds\n");
    println!(
        "{:32} {:>7} {:>7} {:>9} {:>9} {:>8} {:>8} {:>8} {:>10} {:>9} {:>9} {:>10}",
        "filter",
        "p50",
        "p95",
        "keys",
        "docs",
        "page",
        "p50",
        "p95",
        "histogram",
        "p50",
        "p95",
        "events"
    );
    let mut slow = Vec::new();
    let filters = filters().into_iter();
    for (name, filter) in filters.filter(|(name, _)| name.contains(only)) {
        let (page, key) = deep(store, &filter).await?;
        let (first, deep) = time_pages(store, &filter, key.as_ref(), runs).await?;
        let (keys, docs) = match server {
            Some(server) => examined(server, store, &filter).await?,
            None => (0, 0),
        };
        let begun = Instant::now();
        let counted = store.histogram(&filter, 100).await?;
        let histogram = begun.elapsed();
        let mut again = Vec::new();
        for _ in 0..runs {
            let run = Instant::now();
            store.histogram(&filter, 100).await?;
            again.push(run.elapsed());
            if begun.elapsed() > HISTOGRAM_TIME {
                break;
            }
        }
        again.sort();
        println!(
            "{name:32} {:>7.1} {:>7.1} {keys:>9} {docs:>9} {page:>8} {:>8.1} {:>8.1} {:>10.1} {:>9.1} {:>9.1} {:>10}",
            share(&first, 0.5),
            share(&first, 0.95),
            share(&deep, 0.5),
            share(&deep, 0.95),
            millis(histogram),
            share(&again, 0.5),
            share(&again, 0.95),
            counted.total,
        );
        for (what, took, limit) in [
            ("first page", &first, PAGE_LIMIT),
            ("deep page", &deep, PAGE_LIMIT),
            ("histogram", &again, HISTOGRAM_LIMIT),
        ] {
            let took = share(took, 0.95);
            if took >= limit {
                slow.push(format!("{name}: {what} {took:.0} ms"));
            }
        }
    }
    println!("\n{name}: over {PAGE_LIMIT} ms a page or {HISTOGRAM_LIMIT} ms a histogram (p95):");
    for slow in &slow {
        println!("  {slow}");
    }
    if slow.is_empty() {
        println!("  none");
    }
    Ok(())
}

/// Times the first page and the one before `key` in turns, so that both meet the same machine.
async fn time_pages(
    store: &Arc<dyn Store>,
    filter: &EventFilter,
    key: Option<&PageKey>,
    runs: u64,
) -> Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut first, mut deep) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        for (before, times) in [(None, &mut first), (key, &mut deep)] {
            let begun = Instant::now();
            store.find_events(filter, before, PAGE).await?;
            times.push(begun.elapsed());
        }
    }
    first.sort();
    deep.sort();
    Ok((first, deep))
}

/// Which page is the last before the thousandth, and where it begins.
async fn deep(store: &Arc<dyn Store>, filter: &EventFilter) -> Result<(u32, Option<PageKey>)> {
    let mut key = None;
    for step in 0..(DEEP - 1).div_ceil(10) {
        let limit = PAGE * 10;
        let events = store.find_events(filter, key.as_ref(), limit).await?;
        if events.len() < limit as usize {
            return Ok((step * 10 + 1, key));
        }
        key = events.last().map(PageKey::of);
    }
    Ok((DEEP, key))
}

/// Keys and documents that the server looks at for a first page.
async fn examined(
    server: &Database,
    store: &Arc<dyn Store>,
    filter: &EventFilter,
) -> Result<(i64, i64)> {
    let profile = |level: i32| server.run_command(doc! { "profile": level, "slowms": 0 });
    profile(0).await?;
    server
        .collection::<Document>("system.profile")
        .drop()
        .await?;
    profile(2).await?;
    store.find_events(filter, None, PAGE).await?;
    profile(0).await?;
    let profiled = server.collection::<Document>("system.profile");
    let found = profiled.find(doc! { "ns": { "$not": { "$regex": "system" } } });
    let entries: Vec<Document> = found.await?.try_collect().await?;
    let sum = |field: &str| {
        let each = entries.iter().filter_map(|entry| match entry.get(field)? {
            mongodb::bson::Bson::Int32(number) => Some(i64::from(*number)),
            mongodb::bson::Bson::Int64(number) => Some(*number),
            _ => None,
        });
        each.sum()
    };
    Ok((sum("keysExamined"), sum("docsExamined")))
}

fn share(sorted: &[Duration], share: f64) -> f64 {
    let index = (sorted.len() as f64 * share) as usize;
    sorted
        .get(index.min(sorted.len().saturating_sub(1)))
        .map_or(0.0, |time| millis(*time))
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
