//! A changed configuration taken over while everything runs.
//!
//! Sources are compared with those that run: one that is the same, secrets included, is not
//! touched. A removed one finishes what is in flight first. Everything is built and every secret
//! read before anything changes: a reload that fails has changed nothing.

use std::sync::Arc;
use std::time::Duration;

use daybook_actors::delivery;
use daybook_actors::supervisor::SupervisorMessage;

use crate::config::{Config, SourceConfig};
use crate::http::router::router;
use crate::http::tls::{TlsError, read_pair};
use crate::sources::drainer;
use crate::status::{SourceState, SourceStatus};
use crate::telemetry::log;

use super::sources::{Running, edge_of, secrets_of};
use super::wiring::open_journal;
use super::{Daybook, StartError};

/// A source that is removed gets its own limit to drain, and the supervisor this on top.
const REMOVE_LIMIT: Duration = Duration::from_secs(20);

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Sources that were not there before.
    pub added: Vec<String>,
    /// Sources that are no longer there.
    pub removed: Vec<String>,
    /// Sources that go on in another way.
    pub changed: Vec<String>,
    /// Whether new connections are shown another certificate.
    pub certificate: bool,
    /// Keys whose change needs a restart.
    pub not_applied: Vec<&'static str>,
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// A source cannot be built, or a secret cannot be read.
    #[error(transparent)]
    Source(#[from] StartError),
    /// Certificate or key cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// `telemetry.log` is no filter.
    #[error("telemetry.log: {0}")]
    Log(String),
    /// The source plane is down just now.
    #[error("the source plane is not up; try again")]
    NotUp,
    /// No source would be left: the file is empty, or cut off, more likely than that this is meant.
    #[error("the configuration has no source: nothing is changed; restart to run without any")]
    NoSource,
}

impl Daybook {
    /// Takes over what can change while it runs: sources, their secrets, the certificate, the log
    /// filter.
    ///
    /// # Errors
    /// Then nothing has changed.
    pub async fn reload(&mut self, new: &Config) -> Result<Reloaded, ReloadError> {
        if new.sources.is_empty() && !self.running.is_empty() {
            return Err(ReloadError::NoSource);
        }
        let mut reloaded = Reloaded {
            not_applied: needs_restart(&self.config, new),
            ..Reloaded::default()
        };
        // Read even if the paths are the same: a renewal replaces the files.
        let certificate = match (self.certificate.clone(), &new.http.tls) {
            (Some(shown), Some(tls)) => Some((shown, read_pair(tls)?)),
            _ => None,
        };
        let had_no_journal = self.journal.is_none();
        let next = if self.config.ingest.enabled {
            // The new sources, and all else as it is in use.
            let wanted = Config {
                sources: new.sources.clone(),
                ..self.config.clone()
            };
            self.prepare(&wanted, &mut reloaded).await?
        } else {
            Vec::new()
        };
        log::set_filter(&new.telemetry.log).map_err(|error| ReloadError::Log(error.to_string()))?;
        if self.config.ingest.enabled {
            let first_journal = had_no_journal && self.journal.is_some();
            self.take_over(next, first_journal).await?;
        }
        if let Some((shown, pair)) = certificate {
            reloaded.certificate = shown.replace(pair);
            self.config.http.tls.clone_from(&new.http.tls);
        }
        self.config.telemetry.log.clone_from(&new.telemetry.log);
        self.config.sources.clone_from(&new.sources);
        Ok(reloaded)
    }

    /// The sources as they will be; nothing is changed yet.
    async fn prepare(
        &mut self,
        new: &Config,
        reloaded: &mut Reloaded,
    ) -> Result<Vec<Running>, ReloadError> {
        if self.planes.sources.current().is_none() {
            return Err(ReloadError::NotUp);
        }
        let first_journal = self.journal.is_none();
        if first_journal && self.parts.journal.is_none() {
            self.parts.journal = open_journal(new).await.map_err(StartError::from)?;
        }
        let mut next = Vec::with_capacity(new.sources.len());
        for source in &new.sources {
            let name = source.name();
            let old = self
                .running
                .iter()
                .find(|old| old.config.name() == name && old.config.kind() == source.kind());
            let secrets = secrets_of(source)?;
            next.push(match old {
                Some(old) if old.config == *source && old.secrets == secrets => old.clone(),
                // Its acceptor knows neither route nor key: it goes on.
                Some(old) if matches!(source, SourceConfig::Stalwart(_)) => {
                    reloaded.changed.push(name.to_owned());
                    Running {
                        config: source.clone(),
                        secrets,
                        ..old.clone()
                    }
                }
                old => {
                    let list = if old.is_some() {
                        &mut reloaded.changed
                    } else {
                        &mut reloaded.added
                    };
                    list.push(name.to_owned());
                    self.parts.wire(new, source)?
                }
            });
        }
        let remains = |old: &Running| {
            new.sources
                .iter()
                .any(|source| source.name() == old.config.name())
        };
        let removed = self.running.iter().filter(|old| !remains(old));
        reloaded.removed = removed.map(|old| old.config.name().to_owned()).collect();
        if first_journal && self.parts.journal.is_some() {
            self.journal.clone_from(&self.parts.journal);
            self.edge.journal.clone_from(&self.parts.journal);
            self.drainer = self.parts.wire_drainer(new);
            let limit = self.config.journal.max_size.bytes();
            self.metrics.journal_limit_bytes.set(limit as f64);
        }
        Ok(next)
    }

    async fn take_over(
        &mut self,
        next: Vec<Running>,
        first_journal: bool,
    ) -> Result<(), ReloadError> {
        let same = |old: &Running, new: &Running| Arc::ptr_eq(&old.status, &new.status);
        let gone: Vec<Running> = self
            .running
            .iter()
            .filter(|old| !next.iter().any(|new| same(old, new)))
            .cloned()
            .collect();
        let mut specs: Vec<_> = next.iter().map(|source| source.spec.clone()).collect();
        let mut statuses: Vec<_> = next.iter().map(|source| source.status.clone()).collect();
        if let Some((spec, status)) = &self.drainer {
            specs.push(spec.clone());
            statuses.push(status.clone());
        }
        // A plane that is restarted from here on begins with the new ones.
        self.specs.set(specs.clone());
        // No new request reaches a source that is about to end.
        self.edge = edge_of(&self.edge, &next);
        self.routes.replace(router(self.edge.clone()));
        for source in &gone {
            let name = source.config.name().to_owned();
            let removed = delivery::call(&self.planes.sources, REMOVE_LIMIT, |reply| {
                SupervisorMessage::RemoveChild(name.clone(), reply)
            });
            if let Err(error) = removed.await {
                tracing::warn!(source = name, %error, "the source plane was restarted meanwhile");
            }
            source.status.set_state(SourceState::Stopped, None);
            source.status.publish();
            self.former.push(source.status.clone());
        }
        for new in next.iter().map(|source| &source.status) {
            let is_its =
                |former: &Arc<SourceStatus>| former.name == new.name && former.kind == new.kind;
            if let Some(index) = self.former.iter().position(is_its) {
                new.inherit(&self.former.swap_remove(index));
            }
        }
        self.board.replace(statuses);
        // From here on no scrape publishes what they were doing.
        for source in &gone {
            let name = source.config.name();
            self.metrics.actor_suspended(name).set(0.0);
            let goes_on = |new: &Running| {
                new.config.name() == name && new.config.kind() == source.config.kind()
            };
            if !next.iter().any(goes_on) {
                source.status.metrics.info.set(0.0);
                source.status.metrics.nothing_is_behind();
            }
        }
        // A plane that does not come back begins with these, if it ever does.
        let plane = tokio::time::timeout(REMOVE_LIMIT, self.planes.sources.ready()).await;
        let plane = plane.ok();
        for spec in specs {
            let known = self.running.iter().any(|old| {
                old.spec.name == spec.name && !gone.iter().any(|gone| gone.spec.name == spec.name)
            });
            if known || spec.name == drainer::NAME && !first_journal {
                continue;
            }
            // Fails when the plane is restarting: then it begins with this child anyway.
            if let Some(plane) = &plane {
                let _restarting = plane.cast(SupervisorMessage::AddChild(spec));
            }
        }
        self.running = next;
        Ok(())
    }
}

/// Keys that differ and cannot be taken over.
fn needs_restart(old: &Config, new: &Config) -> Vec<&'static str> {
    macro_rules! differing {
        ($($key:ident . $($part:ident).+),* $(,)?) => {
            [$((
                concat!(stringify!($key) $(, ".", stringify!($part))+),
                old.$key.$($part).+ != new.$key.$($part).+,
            )),*]
        };
    }
    let tls = old.http.tls.is_some() != new.http.tls.is_some();
    let keys = differing![
        store.url,
        store.timeout,
        store.collections,
        http.listen,
        http.trusted_proxies,
        http.hosts,
        http.max_body,
        http.auth,
        http.header_timeout,
        http.body_timeout,
        http.max_connections,
        http.max_streams,
        http.write_timeout,
        ingest.enabled,
        ingest.in_flight,
        journal.dir,
        journal.max_size,
        writer.batch_events,
        writer.batch_wait,
        tenants.refresh,
        tenants.ignored_groups,
        tenants.file,
        retention.days,
        telemetry.log_format,
    ];
    let keys = keys.into_iter().chain([("http.tls", tls)]);
    let differing = keys.filter(|(_, differs)| *differs);
    differing.map(|(key, _)| key).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use std::path::{Path, PathBuf};
    use std::pin::pin;
    use std::time::Instant;

    use super::*;
    use crate::config::{OcisConfig, RecorderConfig, StalwartConfig, StoreUrl};

    fn config_in(dir: &Path) -> Config {
        let mut config = Config::default();
        config.store.url = StoreUrl(format!("sqlite:{}", dir.join("daybook.db").display()));
        config.http.listen = ([127, 0, 0, 1], 0).into();
        config.journal.dir = dir.join("journal");
        config
    }

    fn ocis(path: PathBuf) -> SourceConfig {
        SourceConfig::Ocis(OcisConfig {
            path,
            ..OcisConfig::default()
        })
    }

    fn stalwart(key: PathBuf) -> SourceConfig {
        SourceConfig::Stalwart(StalwartConfig {
            secret_files: vec![key],
            ..StalwartConfig::default()
        })
    }

    fn recorder(name: &str) -> SourceConfig {
        SourceConfig::Recorder(RecorderConfig {
            name: Some(name.to_owned()),
        })
    }

    fn metric(daybook: &Daybook, series: &str) -> Option<f64> {
        let metrics = daybook.metrics().render();
        let mut lines = metrics.lines();
        lines.find_map(|line| line.strip_prefix(series)?.trim().parse().ok())
    }

    /// `daybook_source_info` of the OCIS source.
    fn is_configured(daybook: &Daybook) -> Option<bool> {
        let metrics = daybook.metrics().render();
        let mut series = metrics.lines();
        let info = series.find(|line| {
            line.starts_with("daybook_source_info{") && line.contains("kind=\"ocis\"")
        });
        info.map(|line| line.ends_with(" 1"))
    }

    /// What never ran would page as a source that is down.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_new_source_of_a_reload_that_fails_is_not_configured() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut config = config_in(dir.path());
        let mut daybook = Daybook::start(&config).await.unwrap();
        let _up = daybook.planes.sources.ready().await;
        config.sources = vec![ocis(path("audit.log")), stalwart(path("key"))];

        let failed = daybook.reload(&config).await;
        assert!(matches!(failed, Err(ReloadError::Source(_))), "{failed:?}");
        assert_eq!(is_configured(&daybook), Some(false));
        std::fs::write(path("key"), "a key").unwrap();
        daybook.reload(&config).await.unwrap();
        assert_eq!(is_configured(&daybook), Some(true));
        daybook.shutdown().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_reload_that_fails_says_of_no_source_that_it_is_not_suspended_any_more() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mut config = config_in(dir.path());
        config.sources = vec![ocis(path("audit.log"))];
        let mut daybook = Daybook::start(&config).await.unwrap();
        let _up = daybook.planes.sources.ready().await;
        daybook.metrics.actor_suspended("ocis").set(1.0);
        config.sources = vec![ocis(path("other.log")), stalwart(path("key"))];

        let suspended = "daybook_actor_suspended{actor=\"ocis\"}";
        let failed = daybook.reload(&config).await;
        assert!(matches!(failed, Err(ReloadError::Source(_))), "{failed:?}");
        assert_eq!(metric(&daybook, suspended), Some(1.0));
        std::fs::write(path("key"), "a key").unwrap();
        daybook.reload(&config).await.unwrap();
        assert_eq!(metric(&daybook, suspended), Some(0.0));
        daybook.shutdown().await;
    }

    /// What a scrape publishes while others are being removed would stand for ever.
    #[tokio::test(flavor = "multi_thread")]
    async fn a_source_that_was_removed_has_no_lag() {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config_in(dir.path());
        config.sources = ["a", "b", "c"].map(recorder).to_vec();
        let mut daybook = Daybook::start(&config).await.unwrap();
        let _up = daybook.planes.sources.ready().await;
        let board = daybook.board().clone();
        let lags = board.source("a").unwrap();
        lags.set_known_since(Some(Instant::now()));
        config.sources = vec![recorder("c")];

        let reloaded = {
            let mut reload = pin!(daybook.reload(&config));
            loop {
                for source in board.sources() {
                    source.publish();
                }
                tokio::select! {
                    reloaded = &mut reload => break reloaded.unwrap(),
                    () = tokio::task::yield_now() => {}
                }
            }
        };
        assert_eq!(reloaded.removed, ["a", "b"]);
        let lag = "daybook_ingest_lag_seconds{source=\"a\"}";
        assert_eq!(metric(&daybook, lag), Some(0.0));
        daybook.shutdown().await;
    }

    #[test]
    fn what_needs_a_restart_is_named() {
        let old = Config::default();
        let mut new = old.clone();
        assert_eq!(needs_restart(&old, &new), [""; 0]);
        new.http.max_streams += 1;
        new.store.url.0.push('x');
        new.telemetry.log = "debug".to_owned();
        new.sources = vec![SourceConfig::Recorder(
            crate::config::RecorderConfig::default(),
        )];
        assert_eq!(needs_restart(&old, &new), ["store.url", "http.max_streams"]);
    }
}
