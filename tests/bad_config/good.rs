//! Good configurations: the contract's, the example, what the environment and the defaults make.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use daybook::config::units::ByteSize;
use daybook::config::{AuthMode, Config, LoadedConfig, SourceConfig};

use super::{Files, NO_ENV, load, load_with};

#[test]
fn nothing_at_all_is_a_good_configuration() {
    let config = LoadedConfig::from_parts(None, NO_ENV).unwrap().config;
    assert_eq!(config.store.url.0, "sqlite:data/daybook.db");
    assert_eq!(config.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.http.auth, AuthMode::Tokens);
    assert!(config.ingest.enabled && config.sources.is_empty());
    assert_eq!(load("").unwrap().file, Some(PathBuf::from("daybook.toml")));
}

#[test]
fn the_contract_is_a_good_configuration() {
    let files = Files::new();
    let config = load(&files.contract()).unwrap().config;
    let kinds: Vec<_> = config
        .sources
        .iter()
        .map(|s| (s.kind(), s.name()))
        .collect();
    let wanted = [
        ("authentik", "authentik"),
        ("ocis", "ocis"),
        ("stalwart", "stalwart"),
        ("recorder", "platform-api"),
    ];
    assert_eq!(kinds, wanted);
    assert_defaults_but_sources(&config);
    assert!(config.http.tls.is_some() && config.tenants.file.is_some());
    let [
        SourceConfig::Authentik(authentik),
        SourceConfig::Ocis(ocis),
        SourceConfig::Stalwart(stalwart),
        _,
    ] = config.sources.as_slice()
    else {
        panic!("{config:?}")
    };
    assert_eq!(authentik.interval, Duration::from_secs(60));
    assert_eq!(authentik.overlap, Duration::from_secs(300));
    assert_eq!(ocis.poll, Duration::from_secs(5));
    assert_eq!(stalwart.route, "/ingest/stalwart/webhook");
    assert_eq!(authentik.load_token().unwrap().expose(), "api-token");
    let keys = stalwart.load_keys().unwrap();
    let keys: Vec<_> = keys.iter().map(|key| key.expose()).collect();
    assert_eq!(keys, ["signature key", "signature key\n"]);
}

/// The contract and the example write the defaults out: they must stay true.
fn assert_defaults_but_sources(config: &Config) {
    let stripped = |config: &Config| {
        let mut config = config.clone();
        config.sources.clear();
        config.http.tls = None;
        config.tenants.file = None;
        format!("{config:?}")
    };
    assert_eq!(stripped(config), stripped(&Config::default()));
}

#[test]
fn the_example_is_a_good_configuration_as_it_stands_and_unfolded() {
    let example = include_str!("../../daybook.example.toml");
    let config = load(example).unwrap().config;
    assert_eq!(config.sources.len(), 1);
    assert_defaults_but_sources(&config);

    let unfolded: String = example
        .lines()
        .filter(|line| !line.starts_with("#url = \"mongodb"))
        .map(|line| match line.strip_prefix('#') {
            Some(rest) if rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '[') => {
                format!("{rest}\n")
            }
            _ => format!("{line}\n"),
        })
        .collect();
    let file = Some((PathBuf::from("daybook.toml"), unfolded));
    let config = LoadedConfig::from_parts_for_tools(file, NO_ENV)
        .unwrap()
        .config;
    assert_eq!(config.sources.len(), 4);
    assert!(config.http.tls.is_some() && config.tenants.file.is_some());
}

#[test]
fn the_environment_lies_over_the_file() {
    let files = Files::new();
    let env = BTreeMap::from([
        (
            "DAYBOOK__STORE__URL",
            "mongodb://u:s3cret@h:27017/daybook".to_owned(),
        ),
        ("Daybook__Http__Listen", "0.0.0.0:9000".to_owned()),
        (
            "DAYBOOK__HTTP__TRUSTED_PROXIES",
            "10.0.0.0/8, ::1".to_owned(),
        ),
        ("DAYBOOK__WRITER__BATCH_EVENTS", "7".to_owned()),
        ("DAYBOOK__WRITER__BATCH_WAIT", "\"1ms\"".to_owned()),
        ("DAYBOOK__INGEST__IN_FLIGHT", "8MiB".to_owned()),
        (
            "DAYBOOK__TENANTS__IGNORED_GROUPS",
            "[\"a, b\", \"c\"]".to_owned(),
        ),
        ("DAYBOOK__STORE__COLLECTIONS__EVENTS", "audit".to_owned()),
        ("DAYBOOK__SOURCES__0__NAME", "first".to_owned()),
        ("DAYBOOK__SOURCES__1__KIND", "ocis".to_owned()),
        ("DAYBOOK__SOURCES__1__PATH", "/var/log/audit.log".to_owned()),
        ("DAYBOOK__SOURCES__1__INCLUDE_READS", "1".to_owned()),
        ("DAYBOOK__SOURCES__2__KIND", "stalwart".to_owned()),
        ("DAYBOOK__SOURCES__2__SECRET_FILES__0", files.path("key")),
        ("DAYBOOK__SOURCES__2__SECRET_FILES__1", files.path("token")),
        ("DAYBOOK_CONFIG", "not a key".to_owned()),
        ("DAYBOOK_LOG", "not a key".to_owned()),
    ]);
    let env = env
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value));
    let text = "[store]\nurl = \"bad, but replaced\"\n[[sources]]\nkind = \"recorder\"\n";
    let file = Some((PathBuf::from("daybook.toml"), text.to_owned()));
    let config = LoadedConfig::from_parts(file, env).unwrap().config;
    assert_eq!(
        config.store.url.to_string(),
        "mongodb://u:***@h:27017/daybook"
    );
    assert!(!format!("{config:?}").contains("s3cret"));
    assert_eq!(config.http.listen.port(), 9000);
    assert_eq!(config.http.trusted_proxies.len(), 2);
    assert_eq!(config.writer.batch_events, 7);
    assert_eq!(config.writer.batch_wait, Duration::from_millis(1));
    assert_eq!(config.ingest.in_flight, ByteSize::mib(8));
    assert_eq!(config.tenants.ignored_groups, ["a, b", "c"]);
    assert_eq!(config.store.collections.events, "audit");
    let [
        SourceConfig::Recorder(first),
        SourceConfig::Ocis(ocis),
        SourceConfig::Stalwart(stalwart),
    ] = config.sources.as_slice()
    else {
        panic!("{config:?}")
    };
    assert_eq!(first.name.as_deref(), Some("first"));
    assert!(ocis.include_reads);
    assert_eq!(stalwart.load_keys().unwrap().len(), 4);
}

/// The configuration that goes with compose names files that hold what a variable may say too.
#[test]
fn the_environment_goes_before_what_the_file_says_in_another_way() {
    let files = Files::new();
    let (url, token) = (files.write("url", "sqlite:b.db\n"), files.path("token"));
    let with = |store: &str, token: &str| {
        format!(
            "[store]\n{store}\n[[sources]]\nkind = \"authentik\"\n\
             url = \"https://id.example.net\"\n{token}\n"
        )
    };
    let read = |text: &str, env: &[(&str, &str)]| {
        let config = load_with(text, env).unwrap().config;
        let SourceConfig::Authentik(source) = &config.sources[0] else {
            panic!("{config:?}")
        };
        let token = source.token_file.is_some().then_some("file");
        (
            config.store.url.0.clone(),
            token.or(source.token_env.as_deref()).map(str::to_owned),
        )
    };
    let missing = with("url_file = \"/nowhere/url\"", "token_file = \"/nowhere/t\"");
    let values = [
        ("DAYBOOK__STORE__URL", "sqlite:a.db"),
        ("DAYBOOK__SOURCES__0__TOKEN_ENV", "TOKEN"),
        ("TOKEN", "s3cret"),
    ];
    let ours = ("sqlite:a.db".to_owned(), Some("TOKEN".to_owned()));
    assert_eq!(read(&missing, &values), ours);
    let other_way = with("url = \"sqlite:a.db\"", "token_env = \"NOT_SET\"");
    let named = [
        ("DAYBOOK__STORE__URL_FILE", url.as_str()),
        ("DAYBOOK__SOURCES__0__TOKEN_FILE", token.as_str()),
    ];
    let theirs = ("sqlite:b.db".to_owned(), Some("file".to_owned()));
    assert_eq!(read(&other_way, &named), theirs);

    // In one place, whichever that is, one of the two is meant and nobody knows which.
    let both = with(
        &format!("url = \"sqlite:a.db\"\nurl_file = {url:?}"),
        &format!("token_file = {token:?}\ntoken_env = \"TOKEN\""),
    );
    let everything = [&values[..], &named[..]].concat();
    for (text, env) in [(both, &values[2..]), (missing, &everything[..])] {
        let error = load_with(&text, env).unwrap_err();
        let found: Vec<_> = error.problems.iter().map(|p| p.found.as_str()).collect();
        let wanted = ["both url and url_file", "token_file and token_env"];
        assert_eq!(found, wanted, "{error}");
    }
}

#[test]
fn the_ingest_switch_is_another_name_of_its_key_and_off_wins() {
    let is_enabled =
        |text: &str, env: &[(&str, &str)]| load_with(text, env).unwrap().config.ingest.enabled;
    let off = "[ingest]\nenabled = false";
    for value in ["false", "0", "no", "off", "FALSE"] {
        assert!(
            !is_enabled("", &[("AUDIT_INGEST_ENABLED", value)]),
            "{value}"
        );
    }
    for value in ["true", "1", "yes", "on"] {
        assert!(
            is_enabled(off, &[("AUDIT_INGEST_ENABLED", value)]),
            "{value}"
        );
    }
    for (ours, theirs) in [("true", "false"), ("false", "true")] {
        let env = [
            ("DAYBOOK__INGEST__ENABLED", ours),
            ("AUDIT_INGEST_ENABLED", theirs),
        ];
        assert!(!is_enabled("", &env), "{env:?}");
    }
}

#[test]
fn what_is_switched_off_and_what_only_reads_needs_no_secrets() {
    let text = "[http]\ntls = { cert = \"/nowhere/c\", key = \"/nowhere/k\" }\n\
                [[sources]]\nkind = \"stalwart\"\nsecret_env = \"NOT_SET\"\n";
    let file = || Some((PathBuf::from("daybook.toml"), text.to_owned()));
    LoadedConfig::from_parts_for_tools(file(), NO_ENV).unwrap();
    assert_eq!(load(text).unwrap_err().problems.len(), 3);
    let error = load_with(text, &[("AUDIT_INGEST_ENABLED", "false")]).unwrap_err();
    assert_eq!(error.problems.len(), 2, "{error}");
}
