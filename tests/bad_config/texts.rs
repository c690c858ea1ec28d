//! What is wrong in the text of the file or in a variable.

use super::{load_with, only_problem};

/// Text, key, line, a piece of what is wanted.
#[rustfmt::skip]
const BAD_FILES: &[(&str, &str, usize, &str)] = &[
    // Grammar.
    ("[store]\nurl = \"sqlite:a.db\nx = 1", "store.url", 2, "TOML"),
    ("[store]\nurl = sqlite:a.db", "store.url", 2, "TOML"),
    ("[http]\nlisten = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"", "http.listen", 3, "each key once"),
    // Unknown keys, with the nearest known one.
    ("stor = 1", "stor", 1, "`store`"),
    ("[store]\nulr = \"sqlite:a.db\"", "store.ulr", 2, "`url`"),
    ("[store]\npassword = \"s3cret\"", "store.password", 2, "url, url_file, timeout, collections"),
    ("[http]\n\nmax_boddy = 1", "http.max_boddy", 3, "`max_body`"),
    ("[writer]\nbatch = 5", "writer.batch", 2, "`batch_events`"),
    ("[store]\ncollections = { event = \"e\" }", "store.collections.event", 2, "`events`"),
    ("[[sources]]\nkind = \"ocis\"\npath = \"a\"\ninclude_read = true", "sources[0].include_read", 4, "`include_reads`"),
    ("[[sources]]\nkind = \"recorder\"\nurl = \"x\"", "sources[0].url", 3, "kind, name"),
    ("\"od\\nd\" = 1", "\"od\\nd\"", 1, "known keys"),
    // Wrong types.
    ("store = 1", "store", 1, "[store]"),
    ("[store]\nurl = 5", "store.url", 2, "quotes"),
    ("[ingest]\nenabled = \"yes\"", "ingest.enabled", 2, "without quotes"),
    ("[writer]\nbatch_events = \"many\"", "writer.batch_events", 2, "whole number"),
    ("[writer]\nbatch_events = 10.5", "writer.batch_events", 2, "whole number"),
    ("[http]\ntrusted_proxies = \"10.0.0.0/8\"", "http.trusted_proxies", 2, "a list"),
    ("[sources]\nkind = \"ocis\"", "sources", 1, "[[sources]]"),
    ("sources = [\n1\n]", "sources[0]", 2, "[[sources]]"),
    // Quantities.
    ("[store]\ntimeout = 10", "store.timeout", 2, "add a unit: \"10ms\", \"10s\""),
    ("[store]\ntimeout = \"10\"", "store.timeout", 2, "add a unit"),
    ("[store]\ntimeout = \"-1s\"", "store.timeout", 2, "not less than nothing"),
    ("[store]\ntimeout = \"50ms\"", "store.timeout", 2, "at least \"100ms\""),
    ("[store]\ntimeout = \"1m\"", "store.timeout", 2, "at most \"50s\""),
    ("[store]\ntimeout = \"99999999999999999999d\"", "store.timeout", 2, "at most"),
    ("[http]\nmax_body = \"64M\"", "http.max_body", 2, "\"64MiB\""),
    ("[http]\nmax_body = \"1.5MiB\"", "http.max_body", 2, "a whole number"),
    ("[http]\nmax_body = 100", "http.max_body", 2, "at least \"1KiB\""),
    ("[http]\nmax_body = -1", "http.max_body", 2, "a size"),
    ("[ingest]\nin_flight = \"512KiB\"", "ingest.in_flight", 2, "at least \"1MiB\""),
    ("[journal]\nmax_size = \"big\"", "journal.max_size", 2, "a size"),
    ("[http]\nmax_connections = 0", "http.max_connections", 2, "from 1 to"),
    ("[writer]\nbatch_events = 0", "writer.batch_events", 2, "from 1 to 100000"),
    ("[writer]\nbatch_events = 100001", "writer.batch_events", 2, "from 1 to 100000"),
    ("[writer]\nbatch_wait = \"6s\"", "writer.batch_wait", 2, "at most \"5s\""),
    ("[tenants]\nrefresh = \"0s\"", "tenants.refresh", 2, "at least \"1s\""),
    ("[retention]\ndays = -1", "retention.days", 2, "from 0 to"),
    // The store.
    ("[store]\nurl = \"\"", "store.url", 2, "\"sqlite:PATH\""),
    ("[store]\nurl = \"data/daybook.db\"", "store.url", 2, "write \"sqlite:data/daybook.db\""),
    ("[store]\nurl = \"s3cret\"", "store.url", 2, "write \"sqlite:PATH\""),
    ("[store]\nurl = \"daybook:s3cret\"", "store.url", 2, "write \"sqlite:PATH\""),
    ("[store]\nurl = \"postgres://u:s3cret@h/db\"", "store.url", 2, "known store"),
    ("[store]\nurl = \"daybook:s3cret@mongo:27017/daybook\"", "store.url", 2, "known store"),
    ("[store]\nurl = \"mongodb//user:s3cret@host/db\"", "store.url", 2, "known store"),
    ("[store]\nurl = \"mongodb;//u:s3cret@h/d\"", "store.url", 2, "known store"),
    ("[store]\nurl = \"u:s3@cret@h/d\"", "store.url", 2, "known store"),
    ("[store]\nurl = \"mongodb://u:s3cret@h:27017\"", "store.url", 2, "the database's name"),
    ("[store]\nurl = \"mongodb://u:s3cret\"", "store.url", 2, "%-escapes"),
    ("[store]\nurl = \"mongodb://h/db?maxPoolSize=many\"", "store.url", 2, "MongoDB driver"),
    ("[store]\nurl = \"mongodb://u:s3cret@h/db?maxPoolSize=0\"", "store.url", 2, "cannot specify maxPoolSize=0"),
    ("[store]\nurl = \"mongodb://u:s3cret@a,b/db?directConnection=true\"", "store.url", 2, "multiple seeds"),
    ("[store]\nurl = \"mongodb://h/db?tlsCertificateKeyFile=s3cret\"", "store.url", 2, "its private key in PEM"),
    ("[store]\nurl = \"sqlite://a.db\"", "store.url", 2, "\"sqlite:a.db\""),
    ("[store]\nurl = \"sqlite://u:s3cret@h/db\"", "store.url", 2, "\"sqlite:PATH\""),
    ("[store]\nurl = \"sqlite:/\"", "store.url", 2, "not of a directory"),
    ("[store.collections]\nevents = \"\"", "store.collections.events", 2, "a table's name"),
    ("[store.collections]\nevents = \"a; drop table b\"", "store.collections.events", 2, "a table's name"),
    ("[store.collections]\nevents = \"Users\"", "store.collections.events", 2, "a name of its own"),
    ("[store.collections]\nevents = \"x\"\nusers = \"x\"", "store.collections.users", 3, "a name of its own"),
    ("[store]\nurl = \"mongodb://h/db\"\n[store.collections]\nevents = \"system.x\"", "store.collections.events", 4, "a collection's name"),
    // HTTP.
    ("[http]\nlisten = \"localhost:8080\"", "http.listen", 2, "\"127.0.0.1:8080\""),
    ("[http]\nlisten = \":8080\"", "http.listen", 2, "\"0.0.0.0:8080\""),
    ("[http]\nlisten = 8080", "http.listen", 2, "an address and a port"),
    ("[http]\nlisten = \"0.0.0.0:8080\"\nauth = \"none\"", "http.auth", 3, "a loopback address"),
    ("[http]\nauth = \"basic\"", "http.auth", 2, "one of \"tokens\", \"none\""),
    ("[http]\ntrusted_proxies = [\n  \"10.0.0.0/8\",\n  \"proxy\",\n]", "http.trusted_proxies[1]", 4, "a network"),
    ("[http]\nhosts = [\"https://audit.example.net\"]", "http.hosts[0]", 2, "without scheme and port"),
    ("[http]\ntls = { cert = \"/nowhere/c.pem\" }", "http.tls.key", 2, "in PEM"),
    ("[http]\nheader_timeout = \"1ms\"", "http.header_timeout", 2, "at least \"100ms\""),
    // Telemetry and tenants.
    ("[telemetry]\nlog = \"verbose\"", "telemetry.log", 2, "a level"),
    ("[telemetry]\nlog = \"inf\"", "telemetry.log", 2, "a level"),
    ("[telemetry]\nlog = \"daybook=loud\"", "telemetry.log", 2, "a level"),
    ("[telemetry]\nlog = \"\"", "telemetry.log", 2, "a level"),
    ("[telemetry]\nlog_format = \"xml\"", "telemetry.log_format", 2, "\"text\", \"json\""),
    ("[tenants]\nfile = \"/nowhere/tenants.toml\"", "tenants.file", 2, "a file that exists"),
    ("[tenants]\nignored_groups = [1]", "tenants.ignored_groups[0]", 2, "quotes"),
    // Sources in general.
    ("\n[[sources]]\nname = \"x\"", "sources[0].kind", 2, "one of \"authentik\""),
    ("[[sources]]\nkind = \"keycloak\"", "sources[0].kind", 2, "one of \"authentik\""),
    ("[[sources]]\nkind = \"recorder\"\nname = \"a b\"", "sources[0].name", 3, "A-Z a-z 0-9"),
    ("[[sources]]\nkind = \"recorder\"\nname = \"\"", "sources[0].name", 3, "1 to 64"),
    ("[[sources]]\nkind = \"recorder\"\nname = \"daybook\"", "sources[0].name", 3, "another name"),
    ("[[sources]]\nkind = \"recorder\"\n\n[[sources]]\nkind = \"recorder\"", "sources[1].name", 4, "a name of its own"),
    // Authentik.
    ("[[sources]]\nkind = \"authentik\"\ntoken_env = \"TOKEN\"", "sources[0].url", 1, "the address of Authentik"),
    ("[[sources]]\nkind = \"authentik\"\nurl = \"id.example.net\"\ntoken_env = \"TOKEN\"", "sources[0].url", 3, "https://id.example.net"),
    ("[[sources]]\nkind = \"authentik\"\nurl = \"ftp://id.example.net\"\ntoken_env = \"TOKEN\"", "sources[0].url", 3, "http or https"),
    ("[[sources]]\nkind = \"authentik\"\nurl = \"https://id.example.net \"\ntoken_env = \"TOKEN\"", "sources[0].url", 3, "no blanks around it"),
    ("[[sources]]\nkind = \"authentik\"\nurl = \"https://id.example.net/sso/api/v3/\"\ntoken_env = \"TOKEN\"", "sources[0].url", 3, "leave /api/v3 out, it is added: \"https://id.example.net/sso\""),
    ("[[sources]]\nkind = \"authentik\"\nurl = \"https://u:s3cret@id.example.net\"\ntoken_env = \"TOKEN\"", "sources[0].url", 3, "no user and password"),
    ("[[sources]]\nkind = \"authentik\"\nurl = \"https://id.example.net\"", "sources[0].token_file", 1, "`token_file = \"PATH\"` or `token_env"),
    ("[[sources]]\nkind = \"authentik\"\nurl = \"https://id.example.net\"\ntoken_env = \"TOKEN\"\ntoken = \"s3cret\"", "sources[0].token", 5, "`token_file"),
    ("[[sources]]\nkind = \"authentik\"\nurl = \"https://id.example.net\"\ntoken_file = \"/nowhere/t\"", "sources[0].token_file", 4, "a file that holds the secret"),
    ("[[sources]]\nkind = \"authentik\"\nurl = \"https://id.example.net\"\ntoken_env = \"s3cret-token\"", "sources[0].token_env", 4, "not the secret itself"),
    ("[[sources]]\nkind = \"authentik\"\nurl = \"https://id.example.net\"\ntoken_env = \"s3cretToken\"", "sources[0].token_env", 4, "the name of an environment variable"),
    ("[[sources]]\nkind = \"authentik\"\nurl = \"https://id.example.net\"\ntoken_env = \"TOKEN\"\npage_size = 0", "sources[0].page_size", 5, "from 1 to 1000"),
    ("[[sources]]\nkind = \"authentik\"\nurl = \"https://id.example.net\"\ntoken_env = \"TOKEN\"\ninterval = \"500ms\"", "sources[0].interval", 5, "at least \"1s\""),
    ("[[sources]]\nkind = \"authentik\"\nurl = \"https://id.example.net\"\ntoken_env = \"TOKEN\"\noverlap = \"8d\"", "sources[0].overlap", 5, "at most \"7d\""),
    // OCIS.
    ("[[sources]]\nkind = \"ocis\"", "sources[0].path", 1, "the audit log"),
    ("[[sources]]\nkind = \"ocis\"\npath = \"\"", "sources[0].path", 3, "a path"),
    ("[[sources]]\nkind = \"ocis\"\npath = \"a\"\npoll = \"1ms\"", "sources[0].poll", 4, "at least \"50ms\""),
    ("[[sources]]\nkind = \"ocis\"\npath = \"a\"\nmax_line = \"16MiB\"", "sources[0].max_line", 4, "at most \"15MiB\""),
    ("[[sources]]\nkind = \"ocis\"\npath = \"a\"\nmax_line = 10", "sources[0].max_line", 4, "at least \"1KiB\""),
    // Stalwart.
    ("[[sources]]\nkind = \"stalwart\"", "sources[0].secret_files", 1, "unsigned requests are refused"),
    ("[[sources]]\nkind = \"stalwart\"\nsecret_files = []", "sources[0].secret_files", 3, "unsigned requests are refused"),
    ("[[sources]]\nkind = \"stalwart\"\nsecret_env = \"TOKEN\"\nsecret = \"s3cret\"", "sources[0].secret", 4, "`secret_files"),
    ("[[sources]]\nkind = \"stalwart\"\nsecret_files = [\n\"/nowhere/k\"]", "sources[0].secret_files[0]", 4, "a file that holds the secret"),
    ("[[sources]]\nkind = \"stalwart\"\nsecret_env = \"NOT_SET\"", "sources[0].secret_env", 3, "environment variable that holds"),
    ("[[sources]]\nkind = \"stalwart\"\nsecret_env = \"TOKEN\"\nroute = \"hook\"", "sources[0].route", 4, "\"/hook\""),
    ("[[sources]]\nkind = \"stalwart\"\nsecret_env = \"TOKEN\"\nroute = \"/api/hook\"", "sources[0].route", 4, "not under /api"),
    ("[[sources]]\nkind = \"stalwart\"\nsecret_env = \"TOKEN\"\nroute = \"/metrics\"", "sources[0].route", 4, "not under /metrics"),
    ("[[sources]]\nkind = \"stalwart\"\nsecret_env = \"TOKEN\"\nroute = \"/{x}\"", "sources[0].route", 4, "a plain path"),
    ("[[sources]]\nkind = \"stalwart\"\nsecret_env = \"TOKEN\"\nroute = \"/\"", "sources[0].route", 4, "ends in a word"),
    ("[[sources]]\nkind = \"stalwart\"\nsecret_env = \"TOKEN\"\n[[sources]]\nkind = \"stalwart\"\nname = \"b\"\nsecret_env = \"TOKEN\"", "sources[1].route", 4, "a route of its own"),
    ("[[sources]]\nkind = \"ocis\"\npath = \"/a\"\n[[sources]]\nkind = \"ocis\"\nname = \"b\"\npath = \"/./a\"", "sources[1].path", 7, "a log of its own"),
    ("[[sources]]\nkind = \"ocis\"\npath = \"/a/audit.log\"\n[[sources]]\nkind = \"ocis\"\nname = \"b\"\npath = \"/a/audit-2.log\"", "sources[1].path", 7, "another name or directory"),
    ("[[sources]]\nkind = \"ocis\"\npath = \"/a/audit.log.1\"\n[[sources]]\nkind = \"ocis\"\nname = \"b\"\npath = \"/a/audit.log\"", "sources[1].path", 7, "another name or directory"),
    // The recorder.
    ("[[sources]]\nkind = \"recorder\"\ntoken = \"s3cret\"", "sources[0].token", 3, "daybook token new"),
];

#[test]
fn every_bad_file_names_key_line_and_remedy() {
    let env = [("TOKEN", "s3cret")];
    for (text, key, line, wanted) in BAD_FILES {
        let problem = only_problem(load_with(text, &env), text);
        assert_eq!(problem.key, *key, "{text}\n{problem}");
        assert_eq!(
            problem.place,
            format!("daybook.toml:{line}"),
            "{text}\n{problem}"
        );
        assert!(problem.wanted.contains(wanted), "{text}\n{problem}");
        assert!(
            !problem.to_string().contains("s3"),
            "a secret shows:\n{problem}"
        );
        assert!(
            problem.to_string().lines().count() == 3,
            "one block of three lines:\n{problem}"
        );
    }
    assert!(BAD_FILES.len() >= 40);
}

/// Variable, value, key, a piece of what is wanted.
#[rustfmt::skip]
const BAD_VARIABLES: &[(&str, &str, &str, &str)] = &[
    ("DAYBOOK__STORE__URL", "data.db", "store.url", "\"sqlite:data.db\""),
    ("daybook__store__url", "mongodb://u:s3cret@h", "store.url", "the database's name"),
    ("DAYBOOK__STORE__URL", "daybook:s3cret@mongo:27017/daybook", "store.url", "known store"),
    ("DAYBOOK__STORE__ULR", "s3cret", "store.ulr", "`url`"),
    ("DAYBOOK__STORE_URL", "sqlite:a.db", "store_url", "DAYBOOK__STORE__URL"),
    ("DAYBOOK__NOTHING", "1", "nothing", "known keys"),
    ("DAYBOOK__", "1", "", "DAYBOOK__STORE__URL"),
    ("DAYBOOK__STORE____URL", "1", "store..url", "two underscores"),
    ("DAYBOOK__STORE__URL__X", "1", "store.url.x", "store.url is a single value"),
    ("DAYBOOK__STORE__TIMEOUT", "10", "store.timeout", "add a unit"),
    ("DAYBOOK__STORE__TIMEOUT", "", "store.timeout", "a duration"),
    ("DAYBOOK__STORE__COLLECTIONS", "{ events = \"x\" }", "store.collections", "DAYBOOK__STORE__COLLECTIONS__…"),
    ("DAYBOOK__SOURCES", "[]", "sources", "DAYBOOK__SOURCES__0__…"),
    ("DAYBOOK__SOURCES__5__KIND", "recorder", "sources[5].kind", "up to 1"),
    ("DAYBOOK__SOURCES__X__KIND", "recorder", "sources.x.kind", "up to 1"),
    ("DAYBOOK__SOURCES__0__KIND", "nats", "sources[0].kind", "one of"),
    ("DAYBOOK__SOURCES__0__TOKEN", "s3cret", "sources[0].token", "daybook token new"),
    ("DAYBOOK__SOURCES__1__NAME", "x", "sources[1].kind", "one of"),
    ("DAYBOOK__INGEST__ENABLED", "maybe", "ingest.enabled", "true or false"),
    ("AUDIT_INGEST_ENABLED", "maybe", "ingest.enabled", "true or false"),
    ("AUDIT_INGEST_ENABLED", "", "ingest.enabled", "true or false"),
    ("DAYBOOK__HTTP__TRUSTED_PROXIES", "10.0.0.0/8,proxy", "http.trusted_proxies[1]", "a network"),
    ("DAYBOOK__HTTP__TRUSTED_PROXIES", "[\"10.0.0.0/8\"", "http.trusted_proxies", "a list"),
    ("DAYBOOK__WRITER__BATCH_EVENTS", "1e3", "writer.batch_events", "whole number"),
    ("DAYBOOK__HTTP__LISTEN", "8080", "http.listen", "an address and a port"),
    ("DAYBOOK__HTTP__AUTH", "None", "http.auth", "\"none\""),
];

#[test]
fn every_bad_variable_is_named_with_key_and_remedy() {
    let file = "[store]\nurl = \"sqlite:a.db\"\n[[sources]]\nkind = \"recorder\"\n";
    for (name, value, key, wanted) in BAD_VARIABLES {
        let what = format!("{name}={value}");
        let problem = only_problem(load_with(file, &[(name, value)]), &what);
        assert_eq!(problem.key, *key, "{what}\n{problem}");
        assert_eq!(
            problem.place,
            format!("environment variable {name}"),
            "{what}\n{problem}"
        );
        assert!(problem.wanted.contains(wanted), "{what}\n{problem}");
        assert!(
            !problem.to_string().contains("s3"),
            "a secret shows:\n{problem}"
        );
    }
}

#[test]
fn two_variables_for_one_key_are_told() {
    let env = [
        ("DAYBOOK__HTTP__AUTH", "tokens"),
        ("DAYBOOK__http__AUTH", "none"),
    ];
    let problem = only_problem(load_with("", &env), "twice");
    assert_eq!(problem.key, "http.auth");
    assert!(
        problem.wanted.contains("one variable for a key"),
        "{problem}"
    );
}

#[test]
fn everything_wrong_is_told_in_the_order_of_the_file() {
    let text = "[store]\nurl = \"a.db\"\ntimeout = 5\n\n[[sources]]\nkind = \"ocis\"\npoll = 1\n\
                \n[nonsense]\n";
    let error = load_with(text, &[("DAYBOOK__HTTP__LISTEN", "x")]).unwrap_err();
    let places: Vec<String> = error
        .problems
        .iter()
        .map(|p| format!("{} {}", p.key, p.place))
        .collect();
    let wanted = [
        "store.url daybook.toml:2",
        "store.timeout daybook.toml:3",
        "sources[0].path daybook.toml:5",
        "sources[0].poll daybook.toml:7",
        "nonsense daybook.toml:9",
        "http.listen environment variable DAYBOOK__HTTP__LISTEN",
    ];
    assert_eq!(places, wanted, "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with(
            "error: store.url (daybook.toml:2)\n  found: \"a.db\"\n  wanted: an address"
        ),
        "{text}"
    );
    assert_eq!(text.lines().count(), 3 * wanted.len());
}
