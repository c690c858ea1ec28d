//! The configuration: a typed tree, read from TOML and the environment, and its checks.
//!
//! The way of a value: `tree` keeps every value with its line or variable and lays the
//! environment over the file; `read` walks the tree key by key into the types below and notes
//! every unknown key and every value that does not fit (`section` does the noting); `check`,
//! `check_sources` and `check_logs` look at what only makes sense together, and at the files that
//! are named.
//! So one run reports everything that is wrong, each with its key, its place, what was found
//! and what to write instead. Nothing here shows a secret: not an error, not `Debug`.

mod check;
mod check_logs;
mod check_sources;
pub(crate) mod load;
mod nearest;
mod read;
mod secret;
pub(crate) mod section;
pub(crate) mod tree;
pub mod units;
pub(crate) mod values;

pub(crate) use check_sources::OWN_ACTORS;
pub use load::{ConfigError, LoadedConfig, Problem};
pub(crate) use secret::shown_path;
pub use secret::{Secret, StoreTarget, StoreUrl};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use units::ByteSize;

/// The whole configuration, defaults filled in.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Config {
    /// Where the timeline stands.
    pub store: StoreConfig,
    /// The one listening socket.
    pub http: HttpConfig,
    /// Switches of the whole pipeline.
    pub ingest: IngestConfig,
    /// The inbox for pushed events while the store is away.
    pub journal: JournalConfig,
    /// How events become batches.
    pub writer: WriterConfig,
    /// How tenants are found.
    pub tenants: TenantsConfig,
    /// How long events stay.
    pub retention: RetentionConfig,
    /// What is logged.
    pub telemetry: TelemetryConfig,
    /// The sources, in the order of the file.
    pub sources: Vec<SourceConfig>,
}

/// `[store]`
#[derive(Clone, Debug, PartialEq)]
pub struct StoreConfig {
    /// `sqlite:PATH` or `mongodb://…/DATABASE` (or `mongodb+srv://`). May hold a password: never logged.
    pub url: StoreUrl,
    /// The longest one operation may take.
    pub timeout: Duration,
    /// Names of collections or tables.
    pub collections: Collections,
}

/// Names of collections or tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collections {
    /// Events.
    pub events: String,
    /// Cursors.
    pub cursors: String,
    /// The platform's tenants; read only.
    pub tenants: String,
    /// The platform's users; read only.
    pub users: String,
    /// Dead letters.
    pub dead_letters: String,
    /// Token hashes.
    pub tokens: String,
    /// Spaces whose tenant was learned.
    pub spaces: String,
}

/// `[http]`
#[derive(Clone, Debug, PartialEq)]
pub struct HttpConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Proxies whose `X-Forwarded-For` is believed: addresses or networks.
    pub trusted_proxies: Vec<IpNet>,
    /// Public names, in lower case, by which it is called when `auth` is `none`.
    pub hosts: Vec<String>,
    /// The longest request body.
    pub max_body: ByteSize,
    /// Certificate and key.
    pub tls: Option<TlsConfig>,
    /// Who may read and send.
    pub auth: AuthMode,
    /// The longest a client may take to send a request head.
    pub header_timeout: Duration,
    /// The longest a client may take to send a body.
    pub body_timeout: Duration,
    /// The most connections open at once; more wait in the listen queue.
    pub max_connections: u32,
    /// The most readers of the live stream at once; more are refused.
    pub max_streams: u32,
    /// The longest a client may take nothing of an answer.
    pub write_timeout: Duration,
}

/// `http.tls`
#[derive(Clone, Debug, PartialEq)]
pub struct TlsConfig {
    /// PEM chain.
    pub cert: PathBuf,
    /// PEM key.
    pub key: PathBuf,
}

/// `http.auth`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// Bearer tokens made by `daybook token new`.
    Tokens,
    /// Everyone may do everything; only on a loopback address.
    None,
}

/// `[ingest]`
#[derive(Clone, Debug, PartialEq)]
pub struct IngestConfig {
    /// `false` switches every source off.
    pub enabled: bool,
    /// The most bytes of payload between the sources and the store.
    pub in_flight: ByteSize,
}

/// `[journal]`
#[derive(Clone, Debug, PartialEq)]
pub struct JournalConfig {
    /// Its directory.
    pub dir: PathBuf,
    /// The most bytes it may hold; 0 switches it off.
    pub max_size: ByteSize,
}

/// `[writer]`
#[derive(Clone, Debug, PartialEq)]
pub struct WriterConfig {
    /// Events a batch.
    pub batch_events: u32,
    /// The longest a busy writer lets a batch wait for company.
    pub batch_wait: Duration,
}

/// `[tenants]`
#[derive(Clone, Debug, PartialEq)]
pub struct TenantsConfig {
    /// How often the directory is read again.
    pub refresh: Duration,
    /// Authentik groups that say nothing about a tenant.
    pub ignored_groups: Vec<String>,
    /// A directory in a file, in place of the platform's database.
    pub file: Option<PathBuf>,
}

/// `[retention]`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RetentionConfig {
    /// Days that an event is kept; 0 keeps everything.
    pub days: u32,
}

/// `[telemetry]`
#[derive(Clone, Debug, PartialEq)]
pub struct TelemetryConfig {
    /// A tracing filter: `info`, `daybook=debug,info`, …
    pub log: String,
    /// How lines look.
    pub log_format: LogFormat,
}

/// `telemetry.log_format`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// One `[[sources]]` entry.
#[derive(Clone, Debug, PartialEq)]
pub enum SourceConfig {
    /// Polls Authentik's events API.
    Authentik(AuthentikConfig),
    /// Tails the audit log of ownCloud Infinite Scale or OpenCloud.
    Ocis(OcisConfig),
    /// Accepts Stalwart's webhooks.
    Stalwart(StalwartConfig),
    /// Accepts events of the platform's own services.
    Recorder(RecorderConfig),
}

impl SourceConfig {
    /// The kind's word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Authentik(_) => "authentik",
            Self::Ocis(_) => "ocis",
            Self::Stalwart(_) => "stalwart",
            Self::Recorder(_) => "recorder",
        }
    }

    /// The configured name, or the kind.
    pub fn name(&self) -> &str {
        let name = match self {
            Self::Authentik(c) => &c.name,
            Self::Ocis(c) => &c.name,
            Self::Stalwart(c) => &c.name,
            Self::Recorder(c) => &c.name,
        };
        name.as_deref().unwrap_or(self.kind())
    }
}

/// `kind = "authentik"`
#[derive(Clone, Debug, PartialEq)]
pub struct AuthentikConfig {
    /// `source` of its events.
    pub name: Option<String>,
    /// Base address, with any path prefix: `https://id.example.net`.
    pub url: String,
    /// A file that holds the API token.
    pub token_file: Option<PathBuf>,
    /// An environment variable that holds it.
    pub token_env: Option<String>,
    /// Pause between the end of a poll and the next.
    pub interval: Duration,
    /// How far every poll reads back: the longest an event may take to become visible.
    pub overlap: Duration,
    /// Events asked for per page; the server may grant fewer.
    pub page_size: u32,
    /// The longest one request may take.
    pub timeout: Duration,
}

/// `kind = "ocis"`
#[derive(Clone, Debug, PartialEq)]
pub struct OcisConfig {
    /// `source` of its events.
    pub name: Option<String>,
    /// The audit log.
    pub path: PathBuf,
    /// How often the file is looked at when no doorbell rings.
    pub poll: Duration,
    /// Whether reads (`file_read`, `file_viewed`, `public_link_accessed`) are events too.
    pub include_reads: bool,
    /// A longer line becomes a dead letter.
    pub max_line: ByteSize,
}

/// `kind = "stalwart"`
#[derive(Clone, Debug, PartialEq)]
pub struct StalwartConfig {
    /// `source` of its events.
    pub name: Option<String>,
    /// Path of its endpoint.
    pub route: String,
    /// Files that each hold one signature key.
    pub secret_files: Vec<PathBuf>,
    /// An environment variable that holds a key.
    pub secret_env: Option<String>,
}

/// `kind = "recorder"`
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RecorderConfig {
    /// `source` of its events.
    pub name: Option<String>,
}

impl Default for AuthentikConfig {
    /// Without address and token: those have no default.
    fn default() -> Self {
        Self {
            name: None,
            url: String::new(),
            token_file: None,
            token_env: None,
            interval: Duration::from_secs(60),
            overlap: Duration::from_secs(300),
            page_size: 100,
            timeout: Duration::from_secs(30),
        }
    }
}

impl Default for OcisConfig {
    /// Without path: that has no default.
    fn default() -> Self {
        Self {
            name: None,
            path: PathBuf::new(),
            poll: Duration::from_secs(5),
            include_reads: false,
            max_line: ByteSize::mib(1),
        }
    }
}

impl Default for StalwartConfig {
    /// Without keys: those have no default.
    fn default() -> Self {
        Self {
            name: None,
            route: "/ingest/stalwart/webhook".to_owned(),
            secret_files: Vec::new(),
            secret_env: None,
        }
    }
}

impl Default for StoreConfig {
    fn default() -> Self {
        Self {
            url: StoreUrl("sqlite:data/daybook.db".to_owned()),
            timeout: Duration::from_secs(10),
            collections: Collections::default(),
        }
    }
}

impl Default for Collections {
    fn default() -> Self {
        Self {
            events: "auditevents".to_owned(),
            cursors: "ingestcursors".to_owned(),
            tenants: "tenants".to_owned(),
            users: "users".to_owned(),
            dead_letters: "auditdeadletters".to_owned(),
            tokens: "daybooktokens".to_owned(),
            spaces: "daybookspaces".to_owned(),
        }
    }
}

impl Default for HttpConfig {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 8080)),
            trusted_proxies: Vec::new(),
            hosts: Vec::new(),
            max_body: ByteSize::mib(64),
            tls: None,
            auth: AuthMode::Tokens,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            max_connections: 4096,
            max_streams: 1000,
            write_timeout: Duration::from_secs(30),
        }
    }
}

impl Default for IngestConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            in_flight: ByteSize::mib(64),
        }
    }
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            dir: PathBuf::from("data/journal"),
            max_size: ByteSize::gib(1),
        }
    }
}

impl Default for WriterConfig {
    fn default() -> Self {
        Self {
            batch_events: 1000,
            batch_wait: Duration::from_millis(50),
        }
    }
}

impl Default for TenantsConfig {
    fn default() -> Self {
        Self {
            refresh: Duration::from_secs(30),
            ignored_groups: vec![
                "authentik Admins".to_owned(),
                "authentik Read-only".to_owned(),
            ],
            file: None,
        }
    }
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log: "info".to_owned(),
            log_format: LogFormat::Text,
        }
    }
}
