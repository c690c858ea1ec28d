//! A backlog in an Authentik server, walked page by page.

use std::time::Duration;

use anyhow::Result;
use daybook::simulators::authentik::{FakeAuthentik, FakeAuthentikConfig, events};
use daybook::simulators::people::People;
use jiff::Timestamp;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use crate::catch_up::rates;
use crate::data::SEED;
use crate::daybook::Daybook;
use crate::results::Results;
use crate::world::{World, until_stored};

pub async fn run(world: &World, results: &mut Results) -> Result<()> {
    let count = world.scaled(100_000);
    let people = People::new(SEED);
    let mut rng = StdRng::seed_from_u64(SEED);
    let config = FakeAuthentikConfig {
        remember_keys: false,
        ..FakeAuthentikConfig::default()
    };
    let server = FakeAuthentik::start(config.clone()).await;
    server.add_people(&people);
    let spacing = Duration::from_secs(10);
    let backlog = events::backlog(
        &mut rng,
        &people,
        Timestamp::now(),
        spacing,
        u32::try_from(count)?,
    );
    server.insert_many(backlog);

    let database = world.database().await?;
    let folder = world.folder()?;
    let token_file = folder.path().join("authentik.token");
    std::fs::write(&token_file, &config.token)?;
    let source = format!(
        "[[sources]]\nkind = \"authentik\"\nurl = \"{}\"\ntoken_file = \"{}\"\n",
        server.url(),
        token_file.display()
    );
    let url = world.mongod.url(database.name());
    let mut daybook = Daybook::start(&world.daybook, folder.path(), &url, &source)?;
    let since = daybook.since;
    let took = until_stored(&database, "auditevents", count, since, || daybook.check()).await?;
    let used = daybook.usage()?;
    daybook.stop()?;
    results.add(
        "authentik",
        "backlog, pages of 100",
        rates(count, took, used),
    );
    database.drop().await?;
    Ok(())
}
