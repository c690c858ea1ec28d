//! The configuration: a typed tree, read from TOML and the environment, and its checks.

mod load;
pub mod units;

pub use load::{ConfigError, LoadedConfig, Problem};

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use serde::Deserialize;

use units::ByteSize;

/// The whole configuration, defaults filled in.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StoreConfig {
    /// `sqlite:PATH` or `mongodb://…/DATABASE` (or `mongodb+srv://`). May hold a password: never logged.
    pub url: StoreUrl,
    /// The longest one operation may take.
    #[serde(with = "units::duration")]
    pub timeout: Duration,
    /// Names of collections or tables.
    pub collections: Collections,
}

/// The store's address; its `Debug` and `Display` hide credentials.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct StoreUrl(pub String);

impl std::fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("StoreUrl(…)")
    }
}

/// Names of collections or tables.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
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
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpConfig {
    /// Address and port; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Proxies whose `X-Forwarded-For` is believed: addresses or networks.
    #[serde(deserialize_with = "units::networks")]
    pub trusted_proxies: Vec<IpNet>,
    /// The longest request body.
    pub max_body: ByteSize,
    /// Certificate and key.
    pub tls: Option<TlsConfig>,
    /// Who may read and send.
    pub auth: AuthMode,
    /// The longest a client may take to send a request head.
    #[serde(with = "units::duration")]
    pub header_timeout: Duration,
    /// The longest a client may take to send a body.
    #[serde(with = "units::duration")]
    pub body_timeout: Duration,
    /// The most connections open at once; more wait in the listen queue.
    pub max_connections: u32,
}

/// `http.tls`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM chain.
    pub cert: PathBuf,
    /// PEM key.
    pub key: PathBuf,
}

/// `http.auth`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AuthMode {
    /// Bearer tokens made by `daybook token new`.
    Tokens,
    /// Everyone may do everything; only on a loopback address.
    None,
}

/// `[ingest]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct IngestConfig {
    /// `false` switches every source off.
    pub enabled: bool,
    /// The most bytes of payload between the sources and the store.
    pub in_flight: ByteSize,
}

/// `[journal]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalConfig {
    /// Its directory.
    pub dir: PathBuf,
    /// The most bytes it may hold; 0 switches it off.
    pub max_size: ByteSize,
}

/// `[writer]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct WriterConfig {
    /// Events a batch.
    pub batch_events: u32,
    /// The longest a busy writer lets a batch wait for company.
    #[serde(with = "units::duration")]
    pub batch_wait: Duration,
}

/// `[tenants]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TenantsConfig {
    /// How often the directory is read again.
    #[serde(with = "units::duration")]
    pub refresh: Duration,
    /// Authentik groups that say nothing about a tenant.
    pub ignored_groups: Vec<String>,
    /// A directory in a file, in place of the platform's database.
    pub file: Option<PathBuf>,
}

/// `[retention]`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionConfig {
    /// Days that an event is kept; 0 keeps everything.
    pub days: u32,
}

/// `[telemetry]`
#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TelemetryConfig {
    /// A tracing filter: `info`, `daybook=debug,info`, …
    pub log: String,
    /// How lines look.
    pub log_format: LogFormat,
}

/// `telemetry.log_format`
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One object a line.
    Json,
}

/// One `[[sources]]` entry.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
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
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
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
    #[serde(with = "units::duration", default = "defaults::authentik_interval")]
    pub interval: Duration,
    /// How far every poll reads back: the longest an event may take to become visible.
    #[serde(with = "units::duration", default = "defaults::authentik_overlap")]
    pub overlap: Duration,
    /// Events asked for per page; the server may grant fewer.
    #[serde(default = "defaults::authentik_page_size")]
    pub page_size: u32,
    /// The longest one request may take.
    #[serde(with = "units::duration", default = "defaults::authentik_timeout")]
    pub timeout: Duration,
}

/// `kind = "ocis"`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OcisConfig {
    /// `source` of its events.
    pub name: Option<String>,
    /// The audit log.
    pub path: PathBuf,
    /// How often the file is looked at when no doorbell rings.
    #[serde(with = "units::duration", default = "defaults::ocis_poll")]
    pub poll: Duration,
    /// Whether `file_read` and `public_link_accessed` are events too.
    #[serde(default)]
    pub include_reads: bool,
    /// A longer line becomes a dead letter.
    #[serde(default = "defaults::ocis_max_line")]
    pub max_line: ByteSize,
}

/// `kind = "stalwart"`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StalwartConfig {
    /// `source` of its events.
    pub name: Option<String>,
    /// Path of its endpoint.
    #[serde(default = "defaults::stalwart_route")]
    pub route: String,
    /// Files that each hold one signature key.
    #[serde(default)]
    pub secret_files: Vec<PathBuf>,
    /// An environment variable that holds a key.
    pub secret_env: Option<String>,
}

/// `kind = "recorder"`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecorderConfig {
    /// `source` of its events.
    pub name: Option<String>,
}

mod defaults {
    use super::*;

    pub fn authentik_interval() -> Duration {
        Duration::from_secs(60)
    }
    pub fn authentik_overlap() -> Duration {
        Duration::from_secs(300)
    }
    pub fn authentik_page_size() -> u32 {
        100
    }
    pub fn authentik_timeout() -> Duration {
        Duration::from_secs(30)
    }
    pub fn ocis_poll() -> Duration {
        Duration::from_secs(5)
    }
    pub fn ocis_max_line() -> ByteSize {
        ByteSize::mib(1)
    }
    pub fn stalwart_route() -> String {
        "/ingest/stalwart/webhook".to_owned()
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
            max_body: ByteSize::mib(64),
            tls: None,
            auth: AuthMode::Tokens,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(60),
            max_connections: 4096,
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
