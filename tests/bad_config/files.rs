//! What is wrong with the files that a configuration names.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use daybook::config::{AuthentikConfig, LoadedConfig, StalwartConfig};

use super::{Files, NO_ENV, load, only_problem};

/// As `openssl x509 -req` makes it without extensions.
const VERSION_1: &[u8] = b"-----BEGIN CERTIFICATE-----
MIIBJDCBywIURt03OmxfOTLJY8Ek67GECRasX8IwCgYIKoZIzj0EAwIwFDESMBAG
A1UEAwwJbG9jYWxob3N0MCAXDTI2MTEyOTEwNDgyN1oYDzIxMjYxMTA1MTA0ODI3
WjAUMRIwEAYDVQQDDAlsb2NhbGhvc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNC
AAQ/GyJ7Wohasj8uipaqrMboVG0FZXVlUdiQsvtfN+m8+g+MjoGiZUHjo+p+Fo9h
P8fyDNI6VFhjcKwQQ6rEJr4AMAoGCCqGSM49BAMCA0gAMEUCIDj5wRnwss5ED3I5
vphivpjjI7z+ci7cjaaX9P0uAqkQAiEAmor09ntZkeIzsHsaLZYGLrkUS27Joc5z
kGd1sbbH2fE=
-----END CERTIFICATE-----
";

#[test]
fn files_that_hold_the_wrong_thing_are_told() {
    let files = Files::new();
    let good = files.contract();
    let certificate = include_str!("../data/tls/cert.pem");
    let glued = format!("{}{certificate}", certificate.trim_end());
    type Case<'a> = (&'a str, &'a [u8], &'a str, &'a str, &'a str);
    let cases: &[Case<'_>] = &[
        (
            "token",
            b"",
            "sources[0].token_file",
            "is empty",
            "API token",
        ),
        (
            "token",
            b" \n",
            "sources[0].token_file",
            "is empty",
            "API token",
        ),
        (
            "token",
            b"two words",
            "sources[0].token_file",
            "more than one word",
            "nothing else",
        ),
        (
            "token",
            b"\xff",
            "sources[0].token_file",
            "no UTF-8",
            "as text",
        ),
        (
            "key",
            b"\n",
            "sources[2].secret_files[0]",
            "is empty",
            "signature key",
        ),
        (
            "key",
            b"\xff\n",
            "sources[2].secret_files[0]",
            "no UTF-8",
            "as text",
        ),
        (
            "cert.pem",
            b"",
            "http.tls.cert",
            "is empty",
            "certificate chain",
        ),
        (
            "cert.pem",
            b"DER",
            "http.tls.cert",
            "something else",
            "certificate chain",
        ),
        (
            "key.pem",
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----",
            "http.tls.key",
            "is encrypted",
            "unencrypted",
        ),
        (
            "cert.pem",
            b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n",
            "http.tls.cert",
            "cannot be used",
            "X.509 version 3",
        ),
        (
            "cert.pem",
            VERSION_1,
            "http.tls.cert",
            "UnsupportedCertVersion",
            "X.509 version 3",
        ),
        (
            "cert.pem",
            glued.as_bytes(),
            "http.tls.cert",
            "cert.pem, and 1 can be read",
            "on a line of its own",
        ),
        // As it becomes on its way through a variable.
        (
            "key.pem",
            b"-----BEGIN PRIVATE KEY-----MIGHAgEA-----END PRIVATE KEY-----",
            "http.tls.key",
            "key.pem holds nothing in PEM that can be read",
            "the private key of the first certificate",
        ),
        (
            "key.pem",
            include_bytes!("../data/tls-expired/key.pem"),
            "http.tls.key",
            "is not the key of the certificate",
            "the private key of the first certificate",
        ),
        ("tenants.toml", b"\xff", "", "no UTF-8", "UTF-8"),
        (
            "tenants.toml",
            b"[[tenants]]\nslug = 1\n",
            "tenants[0].slug",
            "the number 1",
            "quotes",
        ),
    ];
    for (name, content, key, found, wanted) in cases {
        let original = std::fs::read(files.path(name)).unwrap();
        files.write(name, content);
        let problem = only_problem(load(&good), name);
        assert_eq!(problem.key, *key, "{problem}");
        assert!(problem.found.contains(found), "{problem}");
        assert!(problem.wanted.contains(wanted), "{problem}");
        files.write(name, original);
    }
    load(&good).unwrap();
    files.write("cert.pem", format!("\u{feff}{certificate}"));
    load(&good).unwrap();
}

#[test]
fn the_certificates_that_the_store_s_address_names_must_be_there() {
    let files = Files::new();
    let address = |option: &str, name: &str| {
        let path = files.path(name);
        format!("mongodb://u:s3cret@h/db?tls=true&{option}={path}")
    };
    let in_file = format!("[store]\nurl_file = {:?}", files.path("url"));
    let read = |name: &str| std::fs::read_to_string(files.path(name)).unwrap();
    files.write("both.pem", read("cert.pem") + &read("key.pem"));
    for (option, good) in [
        ("tlsCAFile", "cert.pem"),
        ("tlsCertificateKeyFile", "both.pem"),
    ] {
        let no_key =
            (option == "tlsCertificateKeyFile").then_some(("cert.pem", "holds no private key"));
        let bad = [
            ("gone.pem", "does not exist"),
            ("key.pem", "holds no certificate"),
        ];
        for (name, found) in bad.into_iter().chain(no_key) {
            let url = address(option, name);
            files.write("url", &url);
            let text = format!("[store]\nurl = {url:?}");
            for (text, key) in [(&text, "store.url"), (&in_file, "store.url_file")] {
                let problem = only_problem(load(text), text);
                assert_eq!(problem.key, key, "{problem}");
                let found = format!("{option}: {} {found}", files.path(name));
                assert_eq!(problem.found, found);
            }
            // Who only looks at the timeline may not be able to read the service's key.
            let file = Some((PathBuf::from("daybook.toml"), text));
            LoadedConfig::from_parts_for_tools(file, NO_ENV).unwrap();
        }
        load(&format!("[store]\nurl = {:?}", address(option, good))).unwrap();
    }
}

#[test]
fn a_mistake_in_the_directory_file_names_that_file_and_line() {
    let files = Files::new();
    let path = files.write("tenants.toml", "[[tenants]]\nslug = \"a\"\ndomain = []\n");
    let problem = only_problem(load(&format!("[tenants]\nfile = {path:?}")), "directory");
    assert_eq!(problem.key, "tenants[0].domain");
    assert_eq!(problem.place, format!("{path}:3"));
}

#[test]
fn a_named_file_must_be_there_and_be_text() {
    let files = Files::new();
    let missing = files.path("missing.toml");
    let error = LoadedConfig::load(Some(Path::new(&missing))).unwrap_err();
    assert_eq!(error.problems[0].place, missing);
    assert_eq!(error.problems[0].found, "no such file");

    let directory = files.directory.path();
    let error = LoadedConfig::load(Some(directory)).unwrap_err();
    assert_eq!(error.problems[0].found, "a directory");

    let latin = files.write("latin.toml", b"[store]\nurl = \"sqlite:\xe4.db\"\n");
    let error = LoadedConfig::load(Some(Path::new(&latin))).unwrap_err();
    assert_eq!(error.problems[0].place, format!("{latin}:2"));
}

#[test]
fn a_log_by_another_name_is_the_same_log() {
    let files = Files::new();
    let log = files.write("audit.log", "");
    symlink(&log, files.path("link.log")).unwrap();
    std::fs::hard_link(&log, files.path("hard.log")).unwrap();
    symlink(files.directory.path(), files.path("here")).unwrap();
    std::fs::create_dir(files.path("named")).unwrap();
    let day = files.write("day.log", "");
    symlink(day, files.path("named/audit.log")).unwrap();
    let path = |name: &str| files.path(name);
    let two = |one: &str, other: &str| {
        format!(
            "[[sources]]\nkind = \"ocis\"\npath = {one:?}\n\
             [[sources]]\nkind = \"ocis\"\nname = \"b\"\npath = {other:?}\n"
        )
    };
    let (same, near) = ("a log of its own", "another name or directory");
    for (one, other, wanted) in [
        ("audit.log".to_owned(), "./audit.log".to_owned(), same),
        (log.clone(), path("link.log"), same),
        (log.clone(), path("hard.log"), same),
        (log.clone(), path("here/audit.log"), same),
        (path("later.log"), path("here/later.log"), same),
        ("audit.log".to_owned(), "./audit-2.log".to_owned(), near),
        (log.clone(), path("here/audit-2.log"), near),
        (path("audit.log.1"), path("link.log"), near),
        (path("named/audit.log"), path("audit-2.log"), near),
    ] {
        let text = two(&one, &other);
        let problem = only_problem(load(&text), &text);
        assert_eq!(problem.key, "sources[1].path", "{problem}");
        assert!(problem.wanted.contains(wanted), "{problem}");
    }
    load(&two(&path("link.log"), &path("other.log"))).unwrap();
}

#[test]
fn keys_are_read_with_and_without_their_line_break() {
    let files = Files::new();
    let keys_of = |content: &str| {
        let path = PathBuf::from(files.write("k", content));
        let config = StalwartConfig {
            secret_files: vec![path],
            ..Default::default()
        };
        let keys = config.load_keys().unwrap();
        keys.iter()
            .map(|key| key.expose().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(keys_of("key"), ["key"]);
    assert_eq!(keys_of("key\n"), ["key", "key\n"]);
    assert_eq!(keys_of("key\r\n"), ["key", "key\r\n"]);
    assert_eq!(keys_of(" schlüssel "), [" schlüssel ", "schlüssel"]);
    let missing = StalwartConfig {
        name: Some("mail".to_owned()),
        secret_files: vec![files.path("gone").into()],
        ..Default::default()
    };
    let problem = missing.load_keys().unwrap_err();
    assert_eq!(
        (problem.key.as_str(), problem.place.as_str()),
        ("secret_files[0]", "source mail")
    );
    assert!(problem.found.contains("does not exist"), "{problem}");
    let none = AuthentikConfig::default().load_token().unwrap_err();
    assert_eq!(none.found, "no token");
}
