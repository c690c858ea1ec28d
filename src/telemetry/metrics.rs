//! Every metric: its name, kind, help and labels, and a typed handle to count with.
//!
//! Labels are only `source`, `kind`, `actor`, `action`, `reason`, `outcome`, `route`, `code`, each
//! from a bounded set: configured names, words of an enum, HTTP status codes. Series whose labels
//! are known at start are there from the start, at 0: an increase from nothing is none to
//! Prometheus.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use daybook_actors::liveness::Progress;
use daybook_actors::supervisor::Exit;
use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, Unit};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::event::{AuditEvent, DeadLetterReason, SourceName};

use super::{log, security};

const METADATA: Metadata<'static> = Metadata::new("daybook", Level::INFO, None);

/// `ingest_latency_seconds`, `writer_flush_seconds`: from under a millisecond to a stuck store.
const LATENCY_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
];
/// `event_age_seconds`: from live to a backlog of months.
const AGE_BUCKETS: &[f64] = &[
    0.1,
    0.5,
    1.0,
    5.0,
    15.0,
    60.0,
    300.0,
    900.0,
    3600.0,
    21_600.0,
    86_400.0,
    604_800.0,
    2_592_000.0,
];
/// `writer_batch_events`.
const BATCH_BUCKETS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0,
];

macro_rules! declare {
    ($($kind:ident $constant:ident = $name:literal, $unit:expr, $help:literal;)*) => {
        $(const $constant: &str = $name;)*
        fn describe(recorder: &PrometheusRecorder) {
            $(declare!(@describe $kind recorder $name $unit, $help);)*
        }
        /// The name of every metric, for documentation and its test.
        pub const NAMES: &[&str] = &[$($name),*];
    };
    (@describe counter $recorder:ident $name:literal $unit:expr, $help:literal) => {
        $recorder.describe_counter($name.into(), $unit, $help.into());
    };
    (@describe gauge $recorder:ident $name:literal $unit:expr, $help:literal) => {
        $recorder.describe_gauge($name.into(), $unit, $help.into());
    };
    (@describe histogram $recorder:ident $name:literal $unit:expr, $help:literal) => {
        $recorder.describe_histogram($name.into(), $unit, $help.into());
    };
}

declare! {
    counter RECEIVED = "daybook_events_received_total", Some(Unit::Count), "Pieces of input taken from a source: events, reads and undecodable ones.";
    counter WRITTEN = "daybook_events_written_total", Some(Unit::Count), "Events entered into the store for the first time.";
    counter DUPLICATE = "daybook_events_duplicate_total", Some(Unit::Count), "Events that stood in the store already.";
    counter FILTERED = "daybook_events_filtered_total", Some(Unit::Count), "Input left out on purpose (reads).";
    counter DEAD_LETTERED = "daybook_events_dead_lettered_total", Some(Unit::Count), "Input kept as a dead letter, by reason.";
    counter UNRESOLVED = "daybook_events_unresolved_tenant_total", Some(Unit::Count), "Events entered without a tenant.";
    counter SECURITY = "daybook_security_events_total", Some(Unit::Count), "Events entered whose action is in a closed list that matters for security.";
    counter POLLS = "daybook_authentik_polls_total", Some(Unit::Count), "Polls of Authentik that were begun.";
    counter PAGES = "daybook_authentik_pages_total", Some(Unit::Count), "Pages of Authentik's list that were read.";
    counter LATE = "daybook_authentik_late_events_total", Some(Unit::Count), "Authentik events that became visible later than half the overlap.";
    gauge LAG = "daybook_ingest_lag_seconds", Some(Unit::Seconds), "Age of the oldest event known and not yet durable; 0 when there is none.";
    histogram LATENCY = "daybook_ingest_latency_seconds", Some(Unit::Seconds), "From received to durable.";
    histogram AGE = "daybook_event_age_seconds", Some(Unit::Seconds), "From when an event happened to durable.";
    gauge INFO = "daybook_source_info", None, "1 while the source is configured, 0 once it was removed; its kind is a label.";
    gauge INTERVAL = "daybook_source_interval_seconds", Some(Unit::Seconds), "How often a polled source is asked.";
    gauge UP = "daybook_source_up", None, "1 while the source can be read or accepts, else 0.";
    counter FENCED = "daybook_source_fenced_total", Some(Unit::Count), "Times that another generation had taken the source's cursor: another service, if it goes on.";
    gauge LAST_SUCCESS = "daybook_source_last_success_timestamp_seconds", Some(Unit::Seconds), "When the source was last read, or last delivered, without an error.";
    gauge BYTES_BEHIND = "daybook_ocis_bytes_behind", Some(Unit::Bytes), "Bytes of the audit log that are not yet durable.";
    counter ROTATIONS = "daybook_ocis_rotations_total", Some(Unit::Count), "Times that another file took the place of the audit log, or that it was cut.";
    counter AUTHENTIK_REQUESTS = "daybook_authentik_requests_total", Some(Unit::Count), "Requests to Authentik by answer; code 000: none came.";
    counter WEBHOOK_REQUESTS = "daybook_webhook_requests_total", Some(Unit::Count), "Requests to the routes of Stalwart sources by answer.";
    counter RECORDER_REQUESTS = "daybook_recorder_requests_total", Some(Unit::Count), "Recordings that were sent to the API, by answer.";
    counter WEBHOOK_REFUSED = "daybook_webhook_refused_total", Some(Unit::Count), "Webhooks refused for their signature.";
    counter HTTP_REQUESTS = "daybook_http_requests_total", Some(Unit::Count), "Requests to every route by answer.";
    gauge JOURNAL_BYTES = "daybook_journal_bytes", Some(Unit::Bytes), "Bytes in the journal that are not yet in the store.";
    gauge JOURNAL_LIMIT = "daybook_journal_limit_bytes", Some(Unit::Bytes), "The most bytes that the journal may hold; 0 when there is none.";
    gauge JOURNAL_OLDEST = "daybook_journal_oldest_seconds", Some(Unit::Seconds), "Age of the oldest record in the journal; 0 when it is empty.";
    gauge IN_FLIGHT = "daybook_in_flight_bytes", Some(Unit::Bytes), "Bytes of payload between the sources and the store.";
    gauge IN_FLIGHT_LIMIT = "daybook_in_flight_limit_bytes", Some(Unit::Bytes), "The most bytes there may be in flight.";
    counter BACKPRESSURE = "daybook_backpressure_seconds_total", Some(Unit::Seconds), "Time that sources waited for room in flight.";
    histogram BATCH_EVENTS = "daybook_writer_batch_events", Some(Unit::Count), "Events a flush.";
    histogram FLUSH = "daybook_writer_flush_seconds", Some(Unit::Seconds), "How long a flush took.";
    gauge STORE_UP = "daybook_store_up", None, "1 while the store takes writes, else 0.";
    counter STORE_ERRORS = "daybook_store_errors_total", Some(Unit::Count), "Failed store operations by reason.";
    counter RETENTION_EVENTS = "daybook_retention_deleted_events_total", Some(Unit::Count), "Events deleted because they were older than retention allows.";
    counter RETENTION_LETTERS = "daybook_retention_deleted_dead_letters_total", Some(Unit::Count), "Dead letters deleted because they were older than retention allows.";
    counter RESTARTS = "daybook_actor_restarts_total", Some(Unit::Count), "Restarts of an actor by reason.";
    gauge MAILBOX = "daybook_actor_mailbox_messages", Some(Unit::Count), "Batches waiting for the resolver and for the writer.";
    counter BUSY = "daybook_actor_busy_seconds_total", Some(Unit::Seconds), "Time that an actor worked, without what it waited for others.";
    gauge SUSPENDED = "daybook_actor_suspended", None, "1 while an actor that kept crashing is suspended, else 0.";
    gauge STREAM_READERS = "daybook_stream_readers", Some(Unit::Count), "Readers of the live stream.";
    counter STREAMS_CUT = "daybook_streams_cut_total", Some(Unit::Count), "Readers of the live stream that were cut off, by reason.";
    counter FEED_EVENTS = "daybook_feed_events_total", Some(Unit::Count), "Events handed out to the readers of the live stream, each counted once.";
    counter EXPORTS = "daybook_exports_total", Some(Unit::Count), "Exports over HTTP by outcome.";
    counter RELOADS = "daybook_config_reloads_total", Some(Unit::Count), "Reloads of the configuration by outcome.";
    gauge LAST_RELOAD = "daybook_config_last_reload_timestamp_seconds", Some(Unit::Seconds), "When the configuration that is in use was loaded.";
    counter LOG_LINES_LOST = "daybook_log_lines_lost_total", Some(Unit::Count), "Lines of the log that were lost: nobody read it, or not as fast as they came.";
    gauge START_TIME = "daybook_start_time_seconds", Some(Unit::Seconds), "When this process began, in seconds since 1970.";
    gauge BUILD_INFO = "daybook_build_info", None, "Always 1; the version is a label.";
}

/// The recorder of one Daybook.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    busy: Arc<Mutex<Vec<Busy>>>,
    log_lines_lost: Counter,
    /// See the help text of the metric of the same name; so for every field here.
    pub in_flight_bytes: Gauge,
    /// Gauge.
    pub in_flight_limit_bytes: Gauge,
    /// Counter of whole seconds.
    pub backpressure_seconds: Counter,
    /// Histogram.
    pub writer_batch_events: Histogram,
    /// Histogram.
    pub writer_flush_seconds: Histogram,
    /// Gauge.
    pub store_up: Gauge,
    /// Gauge.
    pub journal_bytes: Gauge,
    /// Gauge.
    pub journal_limit_bytes: Gauge,
    /// Counter.
    pub retention_deleted_events: Counter,
    /// Counter.
    pub retention_deleted_dead_letters: Counter,
    /// Gauge.
    pub journal_oldest_seconds: Gauge,
    /// Gauge.
    pub stream_readers: Gauge,
    /// Counter.
    pub feed_events: Counter,
    /// Gauge.
    pub last_reload: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A recorder with everything declared.
    pub fn new() -> Self {
        let buckets = |builder: PrometheusBuilder, name: &str, values: &[f64]| {
            builder
                .set_buckets_for_metric(Matcher::Full(name.to_owned()), values)
                .expect("bucket lists are not empty")
        };
        let mut builder = PrometheusBuilder::new();
        for name in [LATENCY, FLUSH] {
            builder = buckets(builder, name, LATENCY_BUCKETS);
        }
        builder = buckets(builder, AGE, AGE_BUCKETS);
        builder = buckets(builder, BATCH_EVENTS, BATCH_BUCKETS);
        let recorder = builder.build_recorder();
        describe(&recorder);
        let handle = recorder.handle();
        let build_info = Key::from_parts(
            BUILD_INFO,
            vec![Label::new("version", env!("CARGO_PKG_VERSION"))],
        );
        recorder.register_gauge(&build_info, &METADATA).set(1.0);
        let gauge = |name: &'static str| recorder.register_gauge(&Key::from_name(name), &METADATA);
        let now = jiff::Timestamp::now().as_millisecond() as f64 / 1000.0;
        gauge(START_TIME).set(now);
        let histogram =
            |name: &'static str| recorder.register_histogram(&Key::from_name(name), &METADATA);
        let counter =
            |name: &'static str| recorder.register_counter(&Key::from_name(name), &METADATA);
        let metrics = Self {
            in_flight_bytes: gauge(IN_FLIGHT),
            in_flight_limit_bytes: gauge(IN_FLIGHT_LIMIT),
            backpressure_seconds: counter(BACKPRESSURE),
            writer_batch_events: histogram(BATCH_EVENTS),
            writer_flush_seconds: histogram(FLUSH),
            store_up: gauge(STORE_UP),
            journal_bytes: gauge(JOURNAL_BYTES),
            journal_limit_bytes: gauge(JOURNAL_LIMIT),
            retention_deleted_events: counter(RETENTION_EVENTS),
            retention_deleted_dead_letters: counter(RETENTION_LETTERS),
            busy: Arc::default(),
            log_lines_lost: counter(LOG_LINES_LOST),
            journal_oldest_seconds: gauge(JOURNAL_OLDEST),
            stream_readers: gauge(STREAM_READERS),
            last_reload: gauge(LAST_RELOAD),
            feed_events: recorder.register_counter(&Key::from_name(FEED_EVENTS), &METADATA),
            recorder: Arc::new(recorder),
            handle,
        };
        for reason in ["unavailable", "timeout", "unauthorized", "full", "other"] {
            metrics.store_errors(reason).increment(0);
        }
        for reason in ["slow", "refused"] {
            metrics.streams_cut(reason).increment(0);
        }
        for outcome in ["success", "failure"] {
            metrics.exports(outcome).increment(0);
            metrics.config_reloads(outcome).increment(0);
        }
        metrics.stream_readers.set(0.0);
        metrics
    }

    /// The text that Prometheus scrapes.
    pub fn render(&self) -> String {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.retain_mut(|each| {
            let is_last = each.progress.is_last();
            each.count();
            !is_last
        });
        drop(busy);
        self.log_lines_lost.absolute(log::lost_lines());
        self.handle.run_upkeep();
        self.handle.render()
    }

    /// Moves samples out of the histograms' buffers; to be called now and then when nobody scrapes.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    fn counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
        self.recorder
            .register_counter(&Key::from_parts(name, labels), &METADATA)
    }

    fn gauge(&self, name: &'static str, labels: Vec<Label>) -> Gauge {
        self.recorder
            .register_gauge(&Key::from_parts(name, labels), &METADATA)
    }

    /// `store_errors_total{reason}`
    pub fn store_errors(&self, reason: &'static str) -> Counter {
        self.counter(STORE_ERRORS, vec![Label::new("reason", reason)])
    }

    /// `streams_cut_total{reason}`: `slow`, `refused`.
    pub fn streams_cut(&self, reason: &'static str) -> Counter {
        self.counter(STREAMS_CUT, vec![Label::new("reason", reason)])
    }

    /// `config_reloads_total{outcome}`: `success`, `failure`.
    pub fn config_reloads(&self, outcome: &'static str) -> Counter {
        self.counter(RELOADS, vec![Label::new("outcome", outcome)])
    }

    /// `exports_total{outcome}`: `success`, `failure`.
    pub fn exports(&self, outcome: &'static str) -> Counter {
        self.counter(EXPORTS, vec![Label::new("outcome", outcome)])
    }

    /// `webhook_requests_total{code}`
    pub fn webhook_requests(&self, code: u16) -> Counter {
        self.counter(WEBHOOK_REQUESTS, vec![Label::new("code", code.to_string())])
    }

    /// `recorder_requests_total{code}`
    pub fn recorder_requests(&self, code: u16) -> Counter {
        let labels = vec![Label::new("code", code.to_string())];
        self.counter(RECORDER_REQUESTS, labels)
    }

    /// `http_requests_total{route,code}`; `route` is the pattern, never the path a client sent.
    pub fn http_requests(&self, route: &str, code: u16) -> Counter {
        self.counter(
            HTTP_REQUESTS,
            vec![
                Label::new("route", route.to_owned()),
                Label::new("code", code.to_string()),
            ],
        )
    }

    /// `authentik_requests_total{code}`; `None`: no answer came.
    pub fn authentik_requests(&self, code: Option<u16>) -> Counter {
        let code = code.map_or_else(|| "000".to_owned(), |code| code.to_string());
        self.counter(AUTHENTIK_REQUESTS, vec![Label::new("code", code)])
    }

    /// `authentik_late_events_total{source}`
    pub fn authentik_late_events(&self, source: &SourceName) -> Counter {
        self.counter(LATE, vec![Label::new("source", source.to_string())])
    }

    /// `authentik_polls_total{source}`
    pub fn authentik_polls(&self, source: &SourceName) -> Counter {
        self.counter(POLLS, vec![Label::new("source", source.to_string())])
    }

    /// `source_interval_seconds{source}`
    pub fn source_interval(&self, source: &SourceName) -> Gauge {
        self.gauge(INTERVAL, vec![Label::new("source", source.to_string())])
    }

    /// `authentik_pages_total{source}`
    pub fn authentik_pages(&self, source: &SourceName) -> Counter {
        self.counter(PAGES, vec![Label::new("source", source.to_string())])
    }

    /// `webhook_refused_total{source,reason}`
    pub fn webhook_refused(&self, source: &SourceName, refusal: Refusal) -> Counter {
        self.counter(
            WEBHOOK_REFUSED,
            vec![
                Label::new("source", source.to_string()),
                Label::new("reason", refusal.as_str()),
            ],
        )
    }

    /// Counts an event that was entered in `security_events_total{source,action}`, if its action is
    /// one of [`security::ACTIONS`].
    pub fn count_security(&self, event: &AuditEvent) {
        if let Some(action) = security::action_of(event) {
            self.security_events(&event.source, action).increment(1);
        }
    }

    fn security_events(&self, source: &SourceName, action: &'static str) -> Counter {
        self.counter(
            SECURITY,
            vec![
                Label::new("source", source.to_string()),
                Label::new("action", action),
            ],
        )
    }

    /// Declares the series of an actor or a plane; those that are there stay as they are.
    pub fn declare_actor(&self, actor: &str) {
        self.actor_suspended(actor).increment(0.0);
        for reason in Exit::REASONS {
            self.actor_restarts(actor, reason).increment(0);
        }
    }

    /// From now on `actor_busy_seconds_total{actor}` says how much of the time this progress was
    /// work, beside what others of that name worked.
    pub fn watch_busy(&self, actor: &str, progress: &Progress) {
        let counter = self.counter(BUSY, vec![Label::new("actor", actor.to_owned())]);
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.push(Busy {
            counter,
            progress: progress.clone(),
            counted: 0,
        });
    }

    /// `actor_restarts_total{actor,reason}`
    pub fn actor_restarts(&self, actor: &str, reason: &'static str) -> Counter {
        self.counter(
            RESTARTS,
            vec![
                Label::new("actor", actor.to_owned()),
                Label::new("reason", reason),
            ],
        )
    }

    /// `actor_suspended{actor}`
    pub fn actor_suspended(&self, actor: &str) -> Gauge {
        self.gauge(SUSPENDED, vec![Label::new("actor", actor.to_owned())])
    }

    /// `actor_mailbox_messages{actor}` of an actor whose mailbox is counted.
    pub fn actor_mailbox(&self, actor: &str) -> Gauge {
        self.gauge(MAILBOX, vec![Label::new("actor", actor.to_owned())])
    }

    /// The counters of one source, all series present from the start.
    pub fn source(&self, source: &SourceName, kind: &'static str) -> SourceMetrics {
        let label = || vec![Label::new("source", source.to_string())];
        let dead_lettered = DeadLetterReason::ALL.map(|reason| {
            let mut labels = label();
            labels.push(Label::new("reason", reason.as_str()));
            let counter = self.counter(DEAD_LETTERED, labels);
            counter.increment(0);
            counter
        });
        let counters = [RECEIVED, WRITTEN, DUPLICATE, FILTERED, UNRESOLVED].map(|name| {
            let counter = self.counter(name, label());
            counter.increment(0);
            counter
        });
        let [received, written, duplicate, filtered, unresolved_tenant] = counters;
        let histogram = |name: &'static str| {
            self.recorder
                .register_histogram(&Key::from_parts(name, label()), &METADATA)
        };
        let mut info = label();
        info.push(Label::new("kind", kind));
        let info = self.gauge(INFO, info);
        for action in security::actions_of_kind(kind) {
            self.security_events(source, action).increment(0);
        }
        self.declare_kind(source, kind);
        let metrics = SourceMetrics {
            received,
            written,
            duplicate,
            filtered,
            unresolved_tenant,
            dead_lettered,
            lag_seconds: self.gauge(LAG, label()),
            latency_seconds: histogram(LATENCY),
            age_seconds: histogram(AGE),
            info,
            up: self.gauge(UP, label()),
            fenced: self.counter(FENCED, label()),
            last_success: self.gauge(LAST_SUCCESS, label()),
            bytes_behind: (kind == "ocis").then(|| self.gauge(BYTES_BEHIND, label())),
            rotations: (kind == "ocis").then(|| self.counter(ROTATIONS, label())),
        };
        metrics.lag_seconds.set(0.0);
        metrics.up.set(0.0);
        metrics.fenced.increment(0);
        metrics
    }

    /// Declares the series that only sources of this kind have.
    fn declare_kind(&self, source: &SourceName, kind: &str) {
        match kind {
            "authentik" => {
                for counter in [
                    self.authentik_polls(source),
                    self.authentik_pages(source),
                    self.authentik_late_events(source),
                    self.authentik_requests(Some(200)),
                    self.authentik_requests(Some(403)),
                    self.authentik_requests(None),
                ] {
                    counter.increment(0);
                }
            }
            "stalwart" => {
                for refusal in [Refusal::Unsigned, Refusal::WrongSignature] {
                    self.webhook_refused(source, refusal).increment(0);
                }
                for code in [200, 401, 413, 503] {
                    self.webhook_requests(code).increment(0);
                }
            }
            "recorder" => {
                for code in [200, 400, 401, 413, 503] {
                    self.recorder_requests(code).increment(0);
                }
            }
            _ => {}
        }
    }
}

/// The time that an actor worked, and what of it is counted.
struct Busy {
    counter: Counter,
    progress: Progress,
    counted: u64,
}

impl Busy {
    fn count(&mut self) {
        let seconds = self.progress.busy().as_secs();
        self.counter.increment(seconds - self.counted);
        self.counted = seconds;
    }
}

/// Why a webhook was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// It bears no signature.
    Unsigned,
    /// No known key gives this signature.
    WrongSignature,
}

impl Refusal {
    /// As the metric's label says it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unsigned => "unsigned",
            Self::WrongSignature => "wrong_signature",
        }
    }
}

/// The counters of one source; see the help text of the metric of the same name.
#[derive(Clone)]
pub struct SourceMetrics {
    /// Counter.
    pub received: Counter,
    /// Counter.
    pub written: Counter,
    /// Counter.
    pub duplicate: Counter,
    /// Counter.
    pub filtered: Counter,
    /// Counter.
    pub unresolved_tenant: Counter,
    dead_lettered: [Counter; DeadLetterReason::ALL.len()],
    /// Gauge, set when metrics are rendered.
    pub lag_seconds: Gauge,
    /// Histogram.
    pub latency_seconds: Histogram,
    /// Histogram.
    pub age_seconds: Histogram,
    /// Gauge; 1 while the source is configured.
    pub info: Gauge,
    /// Gauge, set when metrics are rendered.
    pub up: Gauge,
    /// Counter.
    pub fenced: Counter,
    /// Gauge, set when metrics are rendered.
    pub last_success: Gauge,
    /// Gauge, for a tailed file only.
    pub bytes_behind: Option<Gauge>,
    /// Counter, for a tailed file only.
    pub rotations: Option<Counter>,
}

impl SourceMetrics {
    /// What a source that was removed had left to read is nobody's backlog.
    pub fn nothing_is_behind(&self) {
        self.lag_seconds.set(0.0);
        if let Some(bytes_behind) = &self.bytes_behind {
            bytes_behind.set(0.0);
        }
    }

    /// `events_dead_lettered_total{reason}`
    pub fn dead_lettered(&self, reason: DeadLetterReason) -> &Counter {
        let index = DeadLetterReason::ALL
            .iter()
            .position(|each| *each == reason)
            .unwrap_or_default();
        &self.dead_lettered[index]
    }
}

/// Seconds with their fraction, as every duration metric has them.
pub fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_counts_on_when_another_actor_takes_the_place_of_one() {
        let metrics = Metrics::new();
        let works = || {
            let progress = Progress::on_demand();
            metrics.watch_busy("a", &progress);
            let work = progress.work();
            while progress.busy() < Duration::from_secs(1) {
                std::thread::sleep(Duration::from_millis(10));
            }
            drop(work);
            progress.busy().as_secs()
        };
        let counted = || {
            let text = metrics.render();
            let series = format!("{BUSY}{{actor=\"a\"}} ");
            let value = text.lines().find_map(|line| line.strip_prefix(&series));
            value.and_then(|value| value.parse::<u64>().ok())
        };
        let first = works();
        assert_eq!(counted(), Some(first));
        let second = works();
        assert_eq!(counted(), Some(first + second));
        // Both are gone.
        let busy = metrics.busy.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(busy.is_empty());
    }
}
