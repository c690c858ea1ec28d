//! A secret that stands in the place of the file that holds it does not show.

use daybook::config::Problem;

use super::{Files, load, load_with, only_problem};

const SECRETS: &[&str] = &[
    "s3cretToken0123456789",
    "s3cret/with.dots",
    "/s3cret+base64=",
    "[s3cret",
    "mongodb://daybook:s3cret@db/daybook",
    "-----BEGIN PRIVATE KEY-----\ns3cret/\n-----END PRIVATE KEY-----\n",
];

/// Texts with `SECRET` in the place of a file, and the key that is wrong then.
const TEXTS: &[(&str, &str)] = &[
    ("[store]\nurl_file = SECRET", "store.url_file"),
    ("[tenants]\nfile = SECRET", "tenants.file"),
    ("[http]\ntls = SECRET", "http.tls"),
    (
        "[http.tls]\ncert = SECRET\nkey = \"key.pem\"",
        "http.tls.cert",
    ),
    (
        "[http.tls]\ncert = \"cert.pem\"\nkey = SECRET",
        "http.tls.key",
    ),
    (
        "[[sources]]\nkind = \"authentik\"\nurl = \"https://id.example.net\"\ntoken_file = SECRET",
        "sources[0].token_file",
    ),
    (
        "[[sources]]\nkind = \"stalwart\"\nsecret_files = SECRET",
        "sources[0].secret_files",
    ),
    (
        "[[sources]]\nkind = \"stalwart\"\nsecret_files = [SECRET]",
        "sources[0].secret_files[0]",
    ),
];

const AUTHENTIK: &str = "[[sources]]\nkind = \"authentik\"\n";
const STALWART: &str = "[[sources]]\nkind = \"stalwart\"\n";

/// Secrets that look like what belongs in their place, the lines that they stand in, and the key that
/// is wrong then.
#[rustfmt::skip]
const LOOKALIKES: &[(&str, [&str; 2], &str)] = &[
    ("hunter2", ["[store]\n", "url = \"SECRET\""], "store.url"),
    ("12345678", ["[store]\n", "url = \"mongodb://daybook:SECRET\""], "store.url"),
    ("98765/daybook", ["[store]\n", "url = \"mongodb://daybook:SECRET\""], "store.url"),
    ("QX7ZK2M9LP4RT8WB", [AUTHENTIK, "url = \"https://id.example.net\"\ntoken_env = \"SECRET\""], "sources[0].token_env"),
    ("QXZKMLPRTWBNVCDFGHJS", [AUTHENTIK, "url = \"https://id.example.net\"\ntoken_env = \"SECRET\""], "sources[0].token_env"),
    ("QX7ZK2M9LP4RT8WBN_A3", [AUTHENTIK, "url = \"https://id.example.net\"\ntoken_env = \"SECRET\""], "sources[0].token_env"),
    ("QX7ZK2M9LP4RT8WB", [STALWART, "secret_env = \"SECRET\""], "sources[0].secret_env"),
    ("8fK2xZq7", [AUTHENTIK, "token_env = \"TOKEN\"\nurl = \"SECRET\""], "sources[0].url"),
];

/// Variables that name a file.
const VARIABLES: &[&str] = &[
    "DAYBOOK__STORE__URL_FILE",
    "DAYBOOK__TENANTS__FILE",
    "DAYBOOK__HTTP__TLS",
    "DAYBOOK__HTTP__TLS__CERT",
    "DAYBOOK__HTTP__TLS__KEY",
    "DAYBOOK__SOURCES",
    "DAYBOOK__SOURCES__0__TOKEN_FILE",
    "DAYBOOK__SOURCES__1__SECRET_FILES",
    "DAYBOOK__SOURCES__1__SECRET_FILES__0",
];

#[test]
fn a_secret_in_the_place_of_its_file_does_not_show() {
    for secret in SECRETS {
        for (text, key) in TEXTS {
            let text = text.replace("SECRET", &format!("{secret:?}"));
            tells_without_secret(&text, &[], |problem| problem.key == *key);
        }
        let text = "[http.tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n\
                    [[sources]]\nkind = \"authentik\"\n[[sources]]\nkind = \"stalwart\"\n";
        for name in VARIABLES {
            let place = format!("environment variable {name}");
            tells_without_secret(text, &[(name, secret)], |problem| problem.place == place);
        }
    }
    // Longer than any file's name.
    let long = "s3cret".repeat(100);
    let env = [("DAYBOOK__STORE__URL_FILE", long.as_str())];
    tells_without_secret("", &env, |problem| problem.key == "store.url_file");
    // Something is set inside it.
    let text = "[[sources]]\nkind = \"authentik\"\ntoken_file = \"s3cret\"\n";
    let env = [("DAYBOOK__SOURCES__0__TOKEN_FILE__X", "1")];
    tells_without_secret(text, &env, |problem| {
        problem.key == "sources[0].token_file.x"
    });
}

#[test]
fn a_secret_that_looks_like_what_belongs_there_does_not_show() {
    for (secret, lines, key) in LOOKALIKES {
        let text = lines.concat().replace("SECRET", secret);
        let problem = only_problem(load_with(&text, &[("TOKEN", "t")]), &text);
        assert_eq!(problem.key, *key, "{text}");
        assert!(!problem.to_string().contains(secret), "{text}\n{problem}");
    }
}

#[test]
fn a_variable_that_is_not_set_is_named() {
    for name in ["AUTHENTIK_TOKEN", "TOKEN", "OAUTH2TOKEN", "KEY2", "S3_2"] {
        let text = format!("{STALWART}secret_env = {name:?}");
        let problem = only_problem(load_with(&text, &[]), &text);
        let found = format!("environment variable {name} is not set");
        assert_eq!(problem.found, found);
    }
}

/// What is wrong is told, among it what is looked for, and no secret in it.
fn tells_without_secret(
    text: &str,
    env: &[(&str, &str)],
    is_looked_for: impl Fn(&Problem) -> bool,
) {
    let error = match load_with(text, env) {
        Ok(_) => panic!("loaded:\n{text}\n{env:?}"),
        Err(error) => error,
    };
    assert!(
        error.problems.iter().any(is_looked_for),
        "{text}\n{env:?}\n{error}"
    );
    assert!(
        !error.to_string().contains("s3cret"),
        "{text}\n{env:?}\n{error}"
    );
}

#[test]
fn a_file_that_is_missing_in_its_directory_is_named() {
    let files = Files::new();
    let path = files.path("gone");
    let text = format!("[store]\nurl_file = {path:?}");
    let problem = only_problem(load_with(&text, &[]), &text);
    assert_eq!(problem.found, format!("{path} does not exist"));
}

#[test]
fn what_is_wrong_with_an_address_in_a_file_is_told_without_the_address() {
    const UNUSABLE: &str = "an address that cannot be used";
    const OTHER: &str = "a file with something else in it";
    let files = Files::new();
    let text = format!("[store]\nurl_file = {:?}", files.path("url"));
    #[rustfmt::skip]
    let cases = [
        ("mongodb://daybook:s3cret@mongo:27017", UNUSABLE, "the database's name"),
        ("mongodb+srv://daybook:s3cret@mongo.example.net", UNUSABLE, "the database's name"),
        ("\u{feff}mongodb://daybook:s3cret@mongo\n", UNUSABLE, "the database's name"),
        ("mongodb://daybook:s3cret@1@mongo/daybook", UNUSABLE, "%-escapes"),
        ("mongodb://daybook:s3cret", UNUSABLE, "%-escapes"),
        ("mongodb://mongo/daybook?maxPoolSize=many", UNUSABLE, "it says"),
        ("sqlite:a.db?mode=ro", UNUSABLE, "without options"),
        ("postgres://daybook:s3cret@db/daybook", OTHER, "the store's address"),
        ("s3cret", OTHER, "the store's address"),
    ];
    for (content, found, wanted) in cases {
        files.write("url", content);
        let problem = only_problem(load(&text), content);
        assert_eq!(problem.key, "store.url_file", "{problem}");
        assert_eq!(problem.found, found, "{problem}");
        assert!(problem.wanted.contains(wanted), "{problem}");
        assert!(!problem.to_string().contains("s3cret"), "{problem}");
    }

    let directory = files.directory.path().display();
    files.write("url", format!("sqlite:{directory}"));
    let problem = only_problem(load(&text), "a directory");
    assert_eq!(problem.key, "store.url_file", "{problem}");
    assert_eq!(problem.found, format!("{directory} is a directory"));

    files.write("url", "\u{feff}sqlite:a.db\n");
    assert_eq!(load(&text).unwrap().config.store.url.0, "sqlite:a.db");
}
