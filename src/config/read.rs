//! From the untyped tree to the typed one: every key, its type and its bounds, once.

use std::time::Duration;

use super::check::{Scope, file_trouble};
use super::section::Section;
use super::tree::Node;
use super::units::ByteSize;
use super::values::{
    Mismatch, boolean, duration, filled_text, host_name, network, path, size, socket_address, text,
    whole, word,
};
use super::{
    AuthMode, AuthentikConfig, Collections, Config, HttpConfig, IngestConfig, JournalConfig,
    LogFormat, OcisConfig, RecorderConfig, RetentionConfig, SourceConfig, StalwartConfig,
    StoreConfig, StoreUrl, TelemetryConfig, TenantsConfig, TlsConfig, WriterConfig,
};

const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(86_400);

/// What readers of the timeline and kept counts rely on: no insert comes to light later than this
/// after it was begun.
const LONGEST_OPERATION: Duration = Duration::from_secs(50);

const UNBOUNDED: ByteSize = ByteSize(i64::MAX as u64);

/// A line must fit a stored document: MongoDB's limit is 16 MiB, and the event around it needs room.
const LONGEST_LINE: ByteSize = ByteSize::mib(15);

/// The tree of a configuration, and the sources with their place in the list.
pub(super) fn read(mut root: Section<'_>, scope: Scope) -> (Config, Vec<(usize, SourceConfig)>) {
    let mut config = Config::default();
    if let Some(section) = root.section("store") {
        read_store(section, scope, &mut config.store);
    }
    if let Some(section) = root.section("http") {
        read_http(section, &mut config.http);
    }
    if let Some(section) = root.section("ingest") {
        read_ingest(section, &mut config.ingest);
    }
    if let Some(section) = root.section("journal") {
        read_journal(section, &mut config.journal);
    }
    if let Some(section) = root.section("writer") {
        read_writer(section, &mut config.writer);
    }
    if let Some(section) = root.section("tenants") {
        read_tenants(section, &mut config.tenants);
    }
    if let Some(section) = root.section("retention") {
        read_retention(section, &mut config.retention);
    }
    if let Some(section) = root.section("telemetry") {
        read_telemetry(section, &mut config.telemetry);
    }
    let sources = root.sections("sources", |index, section| {
        read_source(section).map(|source| (index, source))
    });
    root.finish();
    config.sources = sources.iter().map(|(_, source)| source.clone()).collect();
    (config, sources)
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

/// An address in a file of its own, because it may hold a password.
fn url_in_file(node: &Node) -> Result<StoreUrl, Mismatch> {
    const WANTED: &str = "a file with the store's address in it";
    let path = path(node)?;
    let text = std::fs::read_to_string(&path)
        .map_err(|error| Mismatch::new(file_trouble(&path, &error), WANTED))?;
    // Some editors begin a file with a byte order mark.
    match text.trim_start_matches('\u{feff}').trim() {
        "" => Err(Mismatch::new(
            format!("{} is empty", path.display()),
            WANTED,
        )),
        url => Ok(StoreUrl(url.to_owned())),
    }
}

fn read_store(mut section: Section<'_>, scope: Scope, store: &mut StoreConfig) {
    if section.has_both(["url", "url_file"]) {
        section.complain("both url and url_file", "one of them");
    }
    set(&mut store.url, section.take("url", text).map(StoreUrl));
    if scope == Scope::Asking {
        let _unread = section.take("url_file", path);
    } else {
        set(&mut store.url, section.take("url_file", url_in_file));
    }
    set(
        &mut store.timeout,
        section.take("timeout", duration(100 * MILLISECOND, LONGEST_OPERATION)),
    );
    if let Some(section) = section.section("collections") {
        read_collections(section, &mut store.collections);
    }
    section.finish();
}

fn read_collections(mut section: Section<'_>, names: &mut Collections) {
    set(&mut names.events, section.take("events", text));
    set(&mut names.cursors, section.take("cursors", text));
    set(&mut names.tenants, section.take("tenants", text));
    set(&mut names.users, section.take("users", text));
    set(&mut names.dead_letters, section.take("dead_letters", text));
    set(&mut names.tokens, section.take("tokens", text));
    set(&mut names.spaces, section.take("spaces", text));
    section.finish();
}

fn read_http(mut section: Section<'_>, http: &mut HttpConfig) {
    set(&mut http.listen, section.take("listen", socket_address));
    let networks = "a list of addresses or networks: [\"10.0.0.0/8\"]";
    set(
        &mut http.trusted_proxies,
        section.list("trusted_proxies", networks, network),
    );
    let names = "a list of names: [\"audit.example.net\"]";
    set(&mut http.hosts, section.list("hosts", names, host_name));
    set(
        &mut http.max_body,
        section.take("max_body", size(ByteSize::kib(1), UNBOUNDED)),
    );
    if let Some(mut tls) = section.section("tls") {
        let cert = tls.require("cert", "the file of the certificate chain, in PEM", path);
        let key = tls.require("key", "the file of the private key, in PEM", path);
        tls.finish();
        http.tls = cert.zip(key).map(|(cert, key)| TlsConfig { cert, key });
    }
    let modes = &[("tokens", AuthMode::Tokens), ("none", AuthMode::None)];
    set(&mut http.auth, section.take("auth", word(modes)));
    let patience = || duration(100 * MILLISECOND, HOUR);
    set(
        &mut http.header_timeout,
        section.take("header_timeout", patience()),
    );
    set(
        &mut http.body_timeout,
        section.take("body_timeout", patience()),
    );
    set(
        &mut http.max_connections,
        section.take("max_connections", whole(1, 1_000_000)),
    );
    set(
        &mut http.max_streams,
        section.take("max_streams", whole(0, 1_000_000)),
    );
    set(
        &mut http.write_timeout,
        section.take("write_timeout", patience()),
    );
    section.finish();
}

fn read_ingest(mut section: Section<'_>, ingest: &mut IngestConfig) {
    set(&mut ingest.enabled, section.take("enabled", boolean));
    set(
        &mut ingest.in_flight,
        section.take("in_flight", size(ByteSize::mib(1), UNBOUNDED)),
    );
    section.finish();
}

fn read_journal(mut section: Section<'_>, journal: &mut JournalConfig) {
    set(&mut journal.dir, section.take("dir", path));
    set(
        &mut journal.max_size,
        section.take("max_size", size(ByteSize(0), UNBOUNDED)),
    );
    section.finish();
}

fn read_writer(mut section: Section<'_>, writer: &mut WriterConfig) {
    set(
        &mut writer.batch_events,
        section.take("batch_events", whole(1, 100_000)),
    );
    set(
        &mut writer.batch_wait,
        section.take("batch_wait", duration(Duration::ZERO, 5 * SECOND)),
    );
    section.finish();
}

fn read_tenants(mut section: Section<'_>, tenants: &mut TenantsConfig) {
    set(
        &mut tenants.refresh,
        section.take("refresh", duration(SECOND, DAY)),
    );
    let groups = "a list of group names: [\"authentik Admins\"]";
    set(
        &mut tenants.ignored_groups,
        section.list("ignored_groups", groups, text),
    );
    tenants.file = section.take("file", path);
    section.finish();
}

fn read_retention(mut section: Section<'_>, retention: &mut RetentionConfig) {
    set(&mut retention.days, section.take("days", whole(0, 36_500)));
    section.finish();
}

fn read_telemetry(mut section: Section<'_>, telemetry: &mut TelemetryConfig) {
    set(&mut telemetry.log, section.take("log", text));
    let formats = &[("text", LogFormat::Text), ("json", LogFormat::Json)];
    set(
        &mut telemetry.log_format,
        section.take("log_format", word(formats)),
    );
    section.finish();
}

/// Two steps: the kind decides which keys there are.
fn read_source(mut section: Section<'_>) -> Option<SourceConfig> {
    type Read = fn(Section<'_>) -> SourceConfig;
    const KINDS: &[(&str, Read)] = &[
        ("authentik", read_authentik),
        ("ocis", read_ocis),
        ("stalwart", read_stalwart),
        ("recorder", read_recorder),
    ];
    let wanted = "one of \"authentik\", \"ocis\", \"stalwart\", \"recorder\"";
    match section.require("kind", wanted, word(KINDS)) {
        Some(read) => Some(read(section)),
        None => {
            section.abandon();
            None
        }
    }
}

const INLINE_SECRET: &str = "a secret written into the configuration";

fn read_authentik(mut section: Section<'_>) -> SourceConfig {
    let mut source = AuthentikConfig {
        name: section.take("name", text),
        ..Default::default()
    };
    let address = "the address of Authentik, such as \"https://id.example.net\"";
    set(&mut source.url, section.require("url", address, text));
    // Both from one place are told of by `check_sources`.
    section.has_both(["token_file", "token_env"]);
    source.token_file = section.take("token_file", path);
    source.token_env = section.take("token_env", filled_text);
    set(
        &mut source.interval,
        section.take("interval", duration(SECOND, DAY)),
    );
    set(
        &mut source.overlap,
        section.take("overlap", duration(Duration::ZERO, 7 * DAY)),
    );
    set(
        &mut source.page_size,
        section.take("page_size", whole(1, 1_000)),
    );
    set(
        &mut source.timeout,
        section.take("timeout", duration(SECOND, 10 * MINUTE)),
    );
    for name in ["token", "api_token", "api_key", "key", "password", "secret"] {
        let wanted =
            "`token_file = \"PATH\"` or `token_env = \"VARIABLE\"`: no secret stands in this file";
        section.refuse(name, INLINE_SECRET, wanted);
    }
    section.finish();
    SourceConfig::Authentik(source)
}

fn read_ocis(mut section: Section<'_>) -> SourceConfig {
    let mut source = OcisConfig {
        name: section.take("name", text),
        ..Default::default()
    };
    let file = "the audit log, such as \"/var/log/ocis/audit.log\"";
    set(&mut source.path, section.require("path", file, path));
    set(
        &mut source.poll,
        section.take("poll", duration(50 * MILLISECOND, 10 * MINUTE)),
    );
    set(
        &mut source.include_reads,
        section.take("include_reads", boolean),
    );
    set(
        &mut source.max_line,
        section.take("max_line", size(ByteSize::kib(1), LONGEST_LINE)),
    );
    section.finish();
    SourceConfig::Ocis(source)
}

fn read_stalwart(mut section: Section<'_>) -> SourceConfig {
    let mut source = StalwartConfig {
        name: section.take("name", text),
        ..Default::default()
    };
    set(&mut source.route, section.take("route", text));
    let files = "a list of files that hold one key each: [\"/run/secrets/stalwart\"]";
    set(
        &mut source.secret_files,
        section.list("secret_files", files, path),
    );
    source.secret_env = section.take("secret_env", filled_text);
    for name in [
        "secret",
        "secrets",
        "signature_key",
        "key",
        "keys",
        "password",
        "token",
    ] {
        let wanted = "`secret_files = [\"PATH\"]` or `secret_env = \"VARIABLE\"`: no secret stands in this file";
        section.refuse(name, INLINE_SECRET, wanted);
    }
    section.finish();
    SourceConfig::Stalwart(source)
}

fn read_recorder(mut section: Section<'_>) -> SourceConfig {
    let source = RecorderConfig {
        name: section.take("name", text),
    };
    for name in ["token", "token_file", "token_env", "secret"] {
        let wanted = "no token here: `daybook token new --role recorder` makes one";
        section.refuse(name, "a token", wanted);
    }
    section.finish();
    SourceConfig::Recorder(source)
}
