//! Sources that are sent to: does the running service take a signed request, has it refused any,
//! and did events ever come?

use jiff::Timestamp;
use reqwest::StatusCode;

use crate::config::{Config, StalwartConfig};
use crate::simulators::stalwart::sign;
use crate::store::{EventFilter, Store};

use super::{Finding, Fine, Service, Trouble};

/// Nothing is in it, so nothing comes of it.
const EMPTY_BODY: &str = r#"{"events":[]}"#;
const SEE_STORE: &str = "see the store above; `daybook status` tells more";
const HOOK: &str = "in Stalwart 0.16 Settings > Telemetry > Webhooks, up to 0.15 [webhook.\"…\"] in its TOML; see docs/connect-stalwart.md";

pub(super) async fn check_stalwart(
    stalwart: &StalwartConfig,
    config: &Config,
    service: &Service,
    store: &Asked<'_>,
) -> Finding {
    let name = stalwart.name.as_deref().unwrap_or("stalwart");
    let route = &stalwart.route;
    let keys = stalwart.load_keys().map_err(|problem| {
        Trouble::new(
            problem.to_string(),
            "put the hook's signature key into a file of secret_files",
        )
    })?;
    let Some(key) = keys.first() else {
        return Err(Trouble::new(
            "no signature key",
            "name a file in secret_files",
        ));
    };
    let request = service
        .client
        .post(service.url(route))
        .header("content-type", "application/json")
        .header("x-signature", sign(key.expose(), EMPTY_BODY.as_bytes()))
        .body(EMPTY_BODY);
    let status = match request.send().await {
        Ok(answer) => answer.status(),
        Err(error) if error.is_connect() => {
            return Ok(Fine::new(format!(
                "accepts signed webhooks at {route}, once the service runs: none answers at {}",
                config.http.listen
            ))
            .advise("start the service and check again: then a signed test request is sent"));
        }
        Err(error) => {
            return Err(Trouble::new(
                format!(
                    "the running service does not answer: {}",
                    error.without_url()
                ),
                "look at its log; `tls` in the configuration and in the running service must agree",
            ));
        }
    };
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            return Err(Trouble::new(
                "the running service refuses a request signed with the configured key: it runs with another one",
                "reload it (SIGHUP), or restart the service where its unit or container hands it the key, which is taken at its start",
            ));
        }
        StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
            return Err(Trouble::new(
                format!(
                    "the service at {} has no such route as {route}",
                    config.http.listen
                ),
                "it runs with another configuration, or is another program: restart it with this one",
            ));
        }
        StatusCode::SERVICE_UNAVAILABLE => {
            return Err(Trouble::new(
                "the running service answers 503: neither the store nor the journal takes events",
                SEE_STORE,
            ));
        }
        other => {
            return Err(Trouble::new(
                format!("the running service answers {other} to a signed request"),
                "look at its log",
            ));
        }
    }
    let refused = Refused::read(service, name).await;
    let newest = Newest::read(name, store).await;
    let never_came = matches!(newest, Newest::Never);
    if never_came && refused.unsigned > 0 {
        return Err(Trouble::new(
            format!(
                "the service refused {} requests that bore no signature, and no event ever came",
                refused.unsigned
            ),
            format!(
                "Stalwart's hook has no signature key, or cannot load it: set the same key there as in secret_files ({HOOK}), then restart Stalwart"
            ),
        ));
    }
    if never_came && refused.wrong > 0 {
        return Err(Trouble::new(
            format!(
                "the service refused {} requests for a wrong signature, and no event ever came",
                refused.wrong
            ),
            format!(
                "Stalwart signs with another key: put the same one on both sides ({HOOK}); a changed key takes effect at Stalwart's restart"
            ),
        ));
    }
    // What is empty is answered 200 without asking the store.
    is_running(name, service).await?;
    let mut fine = Fine::new(format!(
        "a signed test request to {route} was answered 200; {}",
        newest.told()
    ));
    if never_came {
        fine = fine.advise(format!("point Stalwart's webhook here ({HOOK}), then sign in to a mailbox: an event must come within seconds"));
    }
    if refused.unsigned + refused.wrong > 0 {
        fine = fine.advise(format!(
            "{} unsigned and {} wrongly signed requests were refused since the start: a second Stalwart with another key, or a stranger",
            refused.unsigned, refused.wrong
        ));
    }
    Ok(fine)
}

pub(super) async fn check_recorder(name: &str, service: &Service, store: &Asked<'_>) -> Finding {
    let newest = Newest::read(name, store).await;
    let place = if is_running(name, service).await? {
        "accepts events at /api/v1/events"
    } else {
        "accepts events at /api/v1/events, once the service runs"
    };
    let fine = Fine::new(format!("{place}; {}", newest.told()));
    Ok(if matches!(newest, Newest::Never) {
        fine.advise("make a token with `daybook token new --role recorder` and send an event with it (docs/connect-platform.md)")
    } else {
        fine
    })
}

/// Whether the service runs. One that is not ready takes nothing, or lets it wait, unless that is for another source.
async fn is_running(name: &str, service: &Service) -> Result<bool, Trouble> {
    let Ok(mut obstacles) = service.obstacles().await else {
        return Ok(false);
    };
    let own = format!("source {name} ");
    obstacles.retain(|obstacle| !obstacle.starts_with("source ") || obstacle.starts_with(&own));
    if obstacles.is_empty() {
        return Ok(true);
    }
    Err(Trouble::new(
        format!("the running service is not ready: {}", obstacles.join("; ")),
        SEE_STORE,
    ))
}

/// What can be asked whether events came.
pub(super) enum Asked<'s> {
    Store(&'s dyn Store),
    /// It is still to be made, and holds nothing.
    NotMade,
    Away,
}

/// When the newest event of a source happened.
enum Newest {
    At(Timestamp),
    Never,
    /// The store does not tell, which is no fault of the source.
    Unknown,
}

impl Newest {
    async fn read(name: &str, store: &Asked<'_>) -> Self {
        let store = match store {
            Asked::Store(store) => store,
            Asked::NotMade => return Self::Never,
            Asked::Away => return Self::Unknown,
        };
        let filter = EventFilter {
            source: Some(name.to_owned()),
            ..EventFilter::default()
        };
        match store.find_events(&filter, None, 1).await {
            Ok(newest) => newest.first().map_or(Self::Never, |one| Self::At(one.at)),
            Err(_) => Self::Unknown,
        }
    }

    fn told(&self) -> String {
        match self {
            Self::At(at) => format!("its newest event is of {at}"),
            Self::Never => "no event came yet".to_owned(),
            Self::Unknown => "whether events came, the store would tell".to_owned(),
        }
    }
}

/// What the running service has refused since its start.
#[derive(Default)]
struct Refused {
    unsigned: u64,
    wrong: u64,
}

impl Refused {
    async fn read(service: &Service, name: &str) -> Self {
        let answer = service.client.get(service.url("/metrics")).send().await;
        let Ok(answer) = answer else {
            return Self::default();
        };
        Self::of(&answer.text().await.unwrap_or_default(), name)
    }

    fn of(scrape: &str, name: &str) -> Self {
        let source = format!("source=\"{name}\"");
        let count = |reason: &str| {
            scrape
                .lines()
                .filter(|line| line.starts_with("daybook_webhook_refused_total{"))
                .filter(|line| line.contains(&source) && line.contains(reason))
                .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
                .sum()
        };
        Self {
            unsigned: count("reason=\"unsigned\""),
            wrong: count("reason=\"wrong_signature\""),
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Collections;
    use crate::store::sqlite::SqliteStore;

    #[tokio::test]
    async fn a_store_that_does_not_tell_is_no_silent_source() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daybook.db");
        let store = SqliteStore::open(&path, Duration::from_secs(30), &Collections::default());
        let store = store.unwrap();
        let service = Service::at("http://127.0.0.1:1".to_owned()).unwrap();
        // Without tables it fails.
        for store in [Asked::Away, Asked::Store(&store)] {
            let finding = check_recorder("platform-api", &service, &store).await;
            let fine = finding.ok().unwrap();
            let told = "; whether events came, the store would tell";
            assert!(fine.what.ends_with(told), "{}", fine.what);
            assert!(fine.advice.is_empty(), "{:?}", fine.advice);
        }
        store.prepare().await.unwrap();
        for store in [Asked::NotMade, Asked::Store(&store)] {
            let finding = check_recorder("platform-api", &service, &store).await;
            let fine = finding.ok().unwrap();
            assert!(fine.what.ends_with("no event came yet"), "{}", fine.what);
            assert_eq!(fine.advice.len(), 1, "{:?}", fine.advice);
        }
    }

    #[test]
    fn refusals_are_read_from_a_scrape() {
        let scrape = "# HELP daybook_webhook_refused_total x\n\
            daybook_webhook_refused_total{source=\"stalwart\",reason=\"unsigned\"} 3\n\
            daybook_webhook_refused_total{source=\"stalwart\",reason=\"wrong_signature\"} 2\n\
            daybook_webhook_refused_total{source=\"other\",reason=\"unsigned\"} 9\n";
        let refused = Refused::of(scrape, "stalwart");
        assert_eq!((refused.unsigned, refused.wrong), (3, 2));
    }
}
