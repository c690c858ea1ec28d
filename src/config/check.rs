//! What makes sense only together, and the files that the configuration names.

use std::collections::HashMap;
use std::path::Path;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tracing_subscriber::EnvFilter;

use super::nearest::nearest;
use super::secret::shown_path;
use super::section::Report;
use super::tree::quote;
use super::{AuthMode, Collections, Config, SourceConfig, StoreTarget, TlsConfig, check_sources};
use crate::http::tls::{TlsError, read_pair};
use crate::tenants::file::read_directory_file;

/// For whom a configuration is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scope {
    /// The service: everything.
    Service,
    /// Commands beside it: nothing that only the service opens.
    Tools,
    /// A command that asks the service alone: nor the store's address.
    Asking,
}

pub(super) fn check(
    config: &Config,
    sources: &[(usize, SourceConfig)],
    scope: Scope,
    env: &HashMap<String, String>,
    report: &mut Report,
) {
    if scope != Scope::Asking {
        check_store(config, report);
    }
    check_http(config, report);
    check_log_filter(&config.telemetry.log, report);
    check_sources::check(sources, report);
    if scope != Scope::Service {
        return;
    }
    check_certificates(config, report);
    if let Some(tls) = &config.http.tls {
        check_tls(tls, report);
    }
    check_journal(config, report);
    check_tenants_file(config, report);
    // What is switched off needs no secrets.
    if config.ingest.enabled {
        check_sources::check_secrets(sources, env, report);
    }
}

const URL_FILE: &str = "store.url_file";

fn check_store(config: &Config, report: &mut Report) {
    let url = &config.store.url;
    let in_file = report.is_set(URL_FILE);
    let key = key_of_address(report);
    let target = url.target();
    match &target {
        Err(wanted) if in_file && url.is_of_known_store() => {
            report.add(URL_FILE, "an address that cannot be used", wanted);
        }
        // It may be a password in the wrong file.
        Err(_) if in_file => {
            let wanted = "the store's address in it: sqlite:PATH or mongodb://HOST:27017/DATABASE";
            report.add(URL_FILE, "a file with something else in it", wanted);
        }
        Err(wanted) => report.add(key, url.in_words(), wanted),
        Ok(StoreTarget::Sqlite(path)) if path.is_dir() => {
            let wanted = "the path of a file, such as \"sqlite:data/daybook.db\"";
            report.add(key, format!("{} is a directory", path.display()), wanted);
        }
        Ok(_) => {}
    }
    let is_sqlite = matches!(target, Ok(StoreTarget::Sqlite(_)));
    check_collections(&config.store.collections, is_sqlite, report);
}

/// Under which key the store's address is reported.
fn key_of_address(report: &Report) -> &'static str {
    if report.is_set(URL_FILE) {
        URL_FILE
    } else {
        "store.url"
    }
}

/// The driver does not name a file that it cannot open, and takes a list of authorities with nothing
/// in it.
fn check_certificates(config: &Config, report: &mut Report) {
    let key = key_of_address(report);
    for (option, path) in config.store.url.certificate_files() {
        let has_key = option == "tlsCertificateKeyFile";
        let found = match std::fs::read(&path) {
            Err(error) => file_trouble(&path, &error),
            Ok(pem) if !CertificateDer::pem_slice_iter(&pem).any(|read| read.is_ok()) => {
                format!("{} holds no certificate", shown_path(&path))
            }
            Ok(pem) if has_key && PrivateKeyDer::from_pem_slice(&pem).is_err() => {
                format!("{} holds no private key", shown_path(&path))
            }
            Ok(_) => continue,
        };
        let wanted = if has_key {
            "a file that holds a certificate and its private key in PEM"
        } else {
            "a file that holds certificates in PEM"
        };
        report.add(key, format!("{option}: {found}"), wanted);
    }
}

fn check_collections(names: &Collections, is_sqlite: bool, report: &mut Report) {
    let named = [
        ("events", &names.events),
        ("cursors", &names.cursors),
        ("tenants", &names.tenants),
        ("users", &names.users),
        ("dead_letters", &names.dead_letters),
        ("tokens", &names.tokens),
        ("spaces", &names.spaces),
    ];
    for (index, (key, name)) in named.iter().enumerate() {
        let full_key = format!("store.collections.{key}");
        if let Some(wanted) = name_trouble(name, is_sqlite) {
            report.add(&full_key, quote(name), wanted);
            continue;
        }
        let twin = named
            .iter()
            .enumerate()
            .find(|(at, (_, other))| *at != index && other.eq_ignore_ascii_case(name));
        let Some((twin_index, (twin, _))) = twin else {
            continue;
        };
        // Reported once: at the key that was written, or at the later of two.
        let twin_is_set = report.is_set(&format!("store.collections.{twin}"));
        let this_is_set = report.is_set(&full_key);
        if this_is_set && (!twin_is_set || twin_index < index) {
            let found = format!("{}, which is the name for {twin} too", quote(name));
            report.add(&full_key, found, "a name of its own, letters in any case");
        }
    }
}

fn name_trouble(name: &str, is_sqlite: bool) -> Option<&'static str> {
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    let lower = name.to_ascii_lowercase();
    if is_sqlite {
        let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        let fits = starts_well && plain && name.len() <= 64 && !lower.starts_with("sqlite_");
        return (!fits).then_some(
            "a table's name: up to 64 letters, digits and _, no digit first, not beginning with sqlite_",
        );
    }
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    let fits = starts_well && plain && name.len() <= 64 && !lower.starts_with("system.");
    let dots = !name.contains("..") && !name.ends_with('.');
    (!(fits && dots)).then_some(
        "a collection's name: up to 64 letters, digits and _ - . inside, no digit first, not beginning with system.",
    )
}

fn check_http(config: &Config, report: &mut Report) {
    let http = &config.http;
    if http.auth == AuthMode::None && !http.listen.ip().is_loopback() {
        let found = format!("\"none\" while http.listen is {}", http.listen);
        let wanted = "\"tokens\", or a loopback address to listen on: without tokens everyone who reaches the port reads and writes everything";
        report.add("http.auth", found, wanted);
    }
}

fn check_tls(tls: &TlsConfig, report: &mut Report) {
    let parts = [
        (
            "http.tls.cert",
            &tls.cert,
            "CERTIFICATE-----",
            "a certificate chain in PEM: -----BEGIN CERTIFICATE-----",
        ),
        (
            "http.tls.key",
            &tls.key,
            "PRIVATE KEY-----",
            "an unencrypted private key in PEM: -----BEGIN PRIVATE KEY-----",
        ),
    ];
    for (key, path, mark, wanted) in parts {
        match std::fs::read(path) {
            Err(error) => report.add(key, file_trouble(path, &error), wanted),
            Ok(content) => {
                let text = String::from_utf8_lossy(&content);
                let encrypted = text.contains("ENCRYPTED");
                if !text.contains("-----BEGIN ") || !text.contains(mark) || encrypted {
                    let found = match (content.is_empty(), encrypted) {
                        (true, _) => format!("{} is empty", path.display()),
                        (_, true) => format!("{} is encrypted", path.display()),
                        _ => format!("{} holds something else", path.display()),
                    };
                    report.add(key, found, wanted);
                }
            }
        }
    }
    // Of what is reported above it says nothing new: a key has one problem.
    match read_pair(tls) {
        Ok(_) => {}
        Err(TlsError::Certificate(found)) => {
            let wanted = "a certificate chain (X.509 version 3), the server's own certificate first, \
                          each -----BEGIN and -----END on a line of its own";
            report.add("http.tls.cert", found, wanted);
        }
        Err(TlsError::Key(found)) => {
            report.add(
                "http.tls.key",
                found,
                "the private key of the first certificate in http.tls.cert",
            );
        }
    }
}

fn check_journal(config: &Config, report: &mut Report) {
    let journal = &config.journal;
    if journal.max_size.bytes() > 0 && journal.dir.exists() && !journal.dir.is_dir() {
        let found = format!("{} is not a directory", journal.dir.display());
        report.add(
            "journal.dir",
            found,
            "a directory, there already or to be made",
        );
    }
}

fn check_tenants_file(config: &Config, report: &mut Report) {
    let Some(path) = &config.tenants.file else {
        return;
    };
    let Err(error) = read_directory_file(path) else {
        return;
    };
    for problem in error.problems {
        if problem.key.is_empty() && problem.place == path.display().to_string() {
            let found = format!("{}: {}", shown_path(path), problem.found);
            report.add("tenants.file", found, problem.wanted);
        } else {
            report.adopt(problem);
        }
    }
}

fn check_log_filter(filter: &str, report: &mut Report) {
    const KEY: &str = "telemetry.log";
    const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];
    const WANTED: &str =
        "a level (off, error, warn, info, debug, trace) or a filter such as \"daybook=debug,info\"";
    if filter.trim().is_empty() {
        report.add(KEY, quote(filter), WANTED);
        return;
    }
    if let Err(error) = EnvFilter::builder().parse(filter) {
        report.add(KEY, format!("{}: {error}", quote(filter)), WANTED);
        return;
    }
    // A filter takes any bare word for the name of a module, and then logs nothing but that module.
    for word in filter.split(',').map(str::trim) {
        let lower = word.to_ascii_lowercase();
        if word.is_empty() || word.contains(['=', '[']) || LEVELS.contains(&lower.as_str()) {
            continue;
        }
        let strangers = [
            "warning", "verbose", "fatal", "critical", "all", "none", "notice",
        ];
        let is_number = word.bytes().all(|b| b.is_ascii_digit());
        if strangers.contains(&lower.as_str()) || (nearest(&lower, &LEVELS).is_some() && !is_number)
        {
            report.add(KEY, format!("{} is no level", quote(word)), WANTED);
            return;
        }
    }
}

/// A file that cannot be read, in an error's words.
pub(super) fn file_trouble(path: &Path, error: &std::io::Error) -> String {
    let path = shown_path(path);
    match error.kind() {
        std::io::ErrorKind::NotFound => format!("{path} does not exist"),
        std::io::ErrorKind::PermissionDenied => format!("{path} may not be read by this user"),
        std::io::ErrorKind::IsADirectory => format!("{path} is a directory"),
        _ => format!("{path} cannot be read: {error}"),
    }
}
