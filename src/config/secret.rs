//! Secrets and addresses that may hold one: they never show in an error, a log line or `Debug`.

use std::fmt;
use std::num::NonZeroU16;
use std::path::{Path, PathBuf};

use futures_util::FutureExt as _;
use mongodb::options::{ClientOptions, ConnectionString, HostInfo, Tls};

use super::tree::quote;

/// A token or signature key. `Debug` hides it, there is no `Display`; [`Secret::expose`] gives it away on purpose.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }

    /// The secret itself.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(***)")
    }
}

/// The store's address; its `Debug` and `Display` hide credentials.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(pub String);

impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreUrl({self})")
    }
}

impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact_url(&self.0))
    }
}

/// What a [`StoreUrl`] leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreTarget {
    /// A database file.
    Sqlite(PathBuf),
    /// A MongoDB deployment; the connection string is the address as configured.
    MongoDb {
        /// The database that the address names.
        database: String,
    },
}

impl StoreUrl {
    /// Which store it is.
    ///
    /// # Errors
    /// The sentence says what to write instead; it never holds the address.
    pub fn target(&self) -> Result<StoreTarget, String> {
        const EXAMPLES: &str = "\"sqlite:PATH\" or \"mongodb://HOST:27017/DATABASE\"";
        let url = self.0.as_str();
        if let Some(path) = url.strip_prefix("sqlite:") {
            return sqlite_path(path).map(StoreTarget::Sqlite);
        }
        if url.starts_with("mongodb://") || url.starts_with("mongodb+srv://") {
            return mongodb_database(url).map(|database| StoreTarget::MongoDb { database });
        }
        if url.trim().is_empty() {
            return Err(EXAMPLES.to_owned());
        }
        if url.contains("://") || url.starts_with("mongodb") || url.contains('@') {
            return Err(format!("an address of a known store: {EXAMPLES}"));
        }
        let example = sqlite_example(url);
        Err(format!(
            "an address, not a bare path: write {example} for a database file"
        ))
    }

    /// Whether it begins as the address of a known store does.
    pub(super) fn is_of_known_store(&self) -> bool {
        let schemes = ["sqlite:", "mongodb://", "mongodb+srv://"];
        schemes.iter().any(|scheme| self.0.starts_with(scheme))
    }

    /// The files of certificates that the address of a MongoDB names, each with its option.
    pub(super) fn certificate_files(&self) -> Vec<(&'static str, PathBuf)> {
        let Ok(ConnectionString {
            tls: Some(Tls::Enabled(options)),
            ..
        }) = ConnectionString::parse(&self.0)
        else {
            return Vec::new();
        };
        let files = [
            ("tlsCAFile", options.ca_file_path),
            ("tlsCertificateKeyFile", options.cert_key_file_path),
        ];
        let named = files.into_iter();
        named
            .filter_map(|(option, path)| Some((option, path?)))
            .collect()
    }

    /// As an error shows it that has no target. What looks like neither an address nor the path of a
    /// file may be a password: it does not show.
    pub(super) fn in_words(&self) -> String {
        let url = self.0.as_str();
        let is_address = scheme_length(url) > 0 || url.trim().is_empty();
        if is_address || names_a_file(url) {
            quote(url)
        } else {
            "a text that is no address".to_owned()
        }
    }
}

/// Whether this looks like the path of a database file, such as `data/daybook.db`.
fn names_a_file(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_./".contains(&b);
    text.contains(['.', '/']) && text.bytes().all(is_plain)
}

/// The address of this file, if it is one.
fn sqlite_example(path: &str) -> String {
    let path = if names_a_file(path) { path } else { "PATH" };
    format!("\"sqlite:{path}\"")
}

fn sqlite_path(path: &str) -> Result<PathBuf, String> {
    if path.is_empty() {
        return Err("a path after \"sqlite:\", such as \"sqlite:data/daybook.db\"".to_owned());
    }
    if path == ":memory:" {
        return Err("a file: a timeline in memory ends with the process".to_owned());
    }
    if path.contains(['?', '\0']) {
        return Err("a plain path after \"sqlite:\", without options".to_owned());
    }
    match path.strip_prefix("//") {
        // Three slashes are an absolute path in URL dress.
        Some(absolute) if absolute.starts_with('/') => Ok(PathBuf::from(absolute)),
        Some(relative) => Err(format!(
            "no slashes before a relative path: {}",
            sqlite_example(relative)
        )),
        None if path.ends_with('/') => Err("the path of a file, not of a directory".to_owned()),
        None => Ok(PathBuf::from(path)),
    }
}

fn mongodb_database(url: &str) -> Result<String, String> {
    let parsed = ConnectionString::parse(url).map_err(|error| {
        let told = error.to_string();
        // The driver quotes what it could not read, and that can be a password put in the wrong place.
        let unsafe_to_quote = url.contains('@') || !redact_url(url).eq(url);
        if unsafe_to_quote {
            "an address that the MongoDB driver can read: \"mongodb://USER:PASSWORD@HOST:27017/DATABASE\", \
             with %-escapes for @ : / ? # and % in the user's name and password"
                .to_owned()
        } else {
            format!("an address that the MongoDB driver can read; it says: {told}")
        }
    })?;
    check_options(parsed.clone())?;
    parsed.default_database.filter(|name| !name.is_empty()).ok_or_else(|| {
        "the database's name in the address: \"mongodb://HOST:27017/daybook\"; a user that lives elsewhere is found with \"?authSource=admin\""
            .to_owned()
    })
}

/// What the driver refuses when the client is made only: no value of an option shows in what it says then.
fn check_options(mut address: ConnectionString) -> Result<(), String> {
    // A name would have to be looked up first.
    if let HostInfo::DnsRecord(_) = address.host_info {
        address.host_info = HostInfo::default();
    }
    let parsed = ClientOptions::parse(address).into_future().now_or_never();
    match parsed {
        Some(Err(error)) => Err(format!(
            "options that the MongoDB driver takes; it says: {}",
            error.kind
        )),
        _ => Ok(()),
    }
}

/// Hides what can be a credential in an address: the password, a port that is none, secret options.
pub(crate) fn redact_url(url: &str) -> String {
    let (address, query) = match url
        .rfind('@')
        .map_or_else(|| url.find('?'), |at| url[at..].find('?').map(|q| at + q))
    {
        Some(mark) => (&url[..mark], Some(&url[mark + 1..])),
        None => (url, None),
    };
    let (scheme, rest) = address.split_at(scheme_length(address));
    // The last `@`: a password may hold unescaped ones.
    let shown = match rest.rfind('@').map(|at| rest.split_at(at)) {
        Some((login, host)) => match login.split_once(':') {
            // What stands before the first colon is a user in an address only.
            Some(_) if scheme.is_empty() => format!("***{host}"),
            Some((user, _)) => format!("{scheme}{user}:***{host}"),
            None => address.to_owned(),
        },
        None if scheme.ends_with("://") => format!("{scheme}{}", redact_ports(rest)),
        None => address.to_owned(),
    };
    match query {
        None => shown,
        Some(query) => {
            let options: Vec<String> = query.split('&').map(redact_option).collect();
            format!("{shown}?{}", options.join("&"))
        }
    }
}

/// How much of it is a scheme with what parts it from the rest; 0: none stands there, or a password.
fn scheme_length(address: &str) -> usize {
    match address.split_once("://") {
        Some((scheme, _)) if !scheme.contains([':', '@']) => scheme.len() + "://".len(),
        _ if address.starts_with("sqlite:") => "sqlite:".len(),
        _ => 0,
    }
}

/// `user:password` whose `@` was forgotten looks like a host with an odd port.
fn redact_ports(rest: &str) -> String {
    let (hosts, path) = match rest.find('/') {
        Some(slash) => rest.split_at(slash),
        None => (rest, ""),
    };
    let shown: Vec<String> = hosts
        .split(',')
        .map(|host| match host.rsplit_once(':') {
            Some((name, port)) if !host.ends_with(']') && !is_port(port) => {
                format!("{}:***", name.split(':').next().unwrap_or_default())
            }
            _ => host.to_owned(),
        })
        .collect();
    format!("{}{path}", shown.join(","))
}

/// A port's number, or none; other digits may be a password.
fn is_port(text: &str) -> bool {
    let is_number = text.bytes().all(|b| b.is_ascii_digit());
    text.is_empty() || is_number && text.parse::<NonZeroU16>().is_ok()
}

fn redact_option(option: &str) -> String {
    let Some((name, value)) = option.split_once('=') else {
        return option.to_owned();
    };
    let lower = name.to_ascii_lowercase();
    let secret = ["password", "secret", "token", "key", "properties"]
        .iter()
        .any(|word| lower.contains(word));
    if secret {
        format!("{name}=***")
    } else {
        format!("{name}={value}")
    }
}

/// A path in an error's words. What stands in its place may be the secret itself instead of the file
/// that holds it: it shows only when it leads to a directory or file that exists, or begins at the root
/// and has no letter or sign that a path seldom has and a random text hardly lacks.
pub(crate) fn shown_path(path: &Path) -> String {
    let shown = path.display().to_string();
    let exists = |part: &Path| part.file_name().is_some() && part.exists();
    let plain = |byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'/' | b'.' | b'_' | b'-');
    let is_deep = path.has_root() && path.components().count() > 2;
    let is_plain = is_deep && shown.bytes().all(plain);
    if is_plain || path.ancestors().any(exists) && !shown.contains(char::is_control) {
        shown
    } else {
        "the file named here".to_owned()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn credentials_never_show() {
        let cases = [
            (
                "mongodb://user:s3cret@host/db",
                "mongodb://user:***@host/db",
            ),
            (
                "mongodb://user:s3@cr/e?t@host/db?w=1",
                "mongodb://user:***@host/db?w=1",
            ),
            ("mongodb://user:s3cret", "mongodb://user:***"),
            ("mongodb://user:12345678", "mongodb://user:***"),
            (
                "mongodb://a:65535,b:65536,c:0",
                "mongodb://a:65535,b:***,c:***",
            ),
            ("mongodb://user@host/db", "mongodb://user@host/db"),
            (
                "postgres://user:s3cret@host/db",
                "postgres://user:***@host/db",
            ),
            // What looks like a scheme may be part of a password.
            ("mongodb:/user:s3cret@host/db", "***@host/db"),
            ("mongodb//user:s3cret@host/db", "***@host/db"),
            ("mongodb;//u:s3cret@h/d", "***@h/d"),
            (
                "daybook:s3cret@mongo:27017/daybook",
                "***@mongo:27017/daybook",
            ),
            ("u:s3@cret@h/d", "***@h/d"),
            ("u:s3://cret@h/d", "***@h/d"),
            (
                "mongodb://h/db?tlsCertificateKeyFilePassword=s3cret&w=1",
                "mongodb://h/db?tlsCertificateKeyFilePassword=***&w=1",
            ),
            (
                "mongodb://a:27017,[::1]:27018/db",
                "mongodb://a:27017,[::1]:27018/db",
            ),
            ("mongodb://[::1]/db", "mongodb://[::1]/db"),
            ("sqlite:data/daybook.db", "sqlite:data/daybook.db"),
            ("sqlite:a@b/daybook.db", "sqlite:a@b/daybook.db"),
        ];
        for (url, shown) in cases {
            let url = StoreUrl(url.to_owned());
            assert_eq!(url.to_string(), shown);
            assert!(!format!("{url:?}").contains("s3"), "{url:?}");
            assert!(!url.in_words().contains("s3"), "{}", url.in_words());
        }
        assert_eq!(format!("{:?}", Secret::new("s3cret")), "Secret(***)");
    }

    #[test]
    fn what_is_no_address_shows_only_if_it_looks_like_a_path() {
        for text in [
            "",
            "data/daybook.db",
            "a.db",
            "postgres://host/db",
            "sqlite:",
        ] {
            let url = StoreUrl(text.to_owned());
            assert_eq!(url.in_words(), format!("{text:?}"));
        }
        for text in [
            "hunter2",
            "u:hunter2",
            "mongodb:hunter2",
            "hunter@2",
            "/hunTer2=",
        ] {
            let url = StoreUrl(text.to_owned());
            assert_eq!(url.in_words(), "a text that is no address");
            let wanted = url.target().unwrap_err();
            assert!(!wanted.contains(text), "{wanted}");
        }
    }

    #[test]
    fn a_path_that_leads_nowhere_does_not_show() {
        let directory = tempfile::tempdir().unwrap();
        for name in ["gone", "gone/too"] {
            let path = directory.path().join(name);
            assert_eq!(shown_path(&path), path.display().to_string());
        }
        for text in ["/nonexistent/token", "/run-2/secrets/authentik_key.txt"] {
            assert_eq!(shown_path(Path::new(text)), text);
        }
        let two_lines = directory.path().join("a\nb").display().to_string();
        for text in [
            "",
            "s3cret",
            "/s3cret",
            "./s3cret",
            "/q8/Xb0/s3cret",
            "s3cret/s3cret.s3cret=",
            "mongodb://user:s3cret@host/db",
            "-----BEGIN PRIVATE KEY-----s3cret/",
            two_lines.as_str(),
        ] {
            assert_eq!(shown_path(Path::new(text)), "the file named here");
        }
    }

    #[test]
    fn an_address_leads_to_its_store() {
        let target = |url: &str| StoreUrl(url.to_owned()).target();
        assert_eq!(
            target("sqlite:a/b.db"),
            Ok(StoreTarget::Sqlite("a/b.db".into()))
        );
        assert_eq!(
            target("sqlite:/a/b.db"),
            Ok(StoreTarget::Sqlite("/a/b.db".into()))
        );
        assert_eq!(
            target("sqlite:///a/b.db"),
            Ok(StoreTarget::Sqlite("/a/b.db".into()))
        );
        for url in [
            "mongodb://host:27017/daybook?replicaSet=rs0",
            "mongodb://u:p%40@a,b:27018/daybook?authSource=admin",
            "mongodb+srv://cluster.example.net/daybook",
        ] {
            let database = "daybook".to_owned();
            assert_eq!(target(url), Ok(StoreTarget::MongoDb { database }), "{url}");
        }
    }

    #[test]
    fn an_address_that_leads_nowhere_says_what_to_write() {
        let cases = [
            ("", "\"sqlite:PATH\""),
            ("data/daybook.db", "write \"sqlite:data/daybook.db\""),
            ("sqlite:", "a path after"),
            ("sqlite:a/", "not of a directory"),
            ("sqlite::memory:", "ends with the process"),
            ("sqlite://a.db", "\"sqlite:a.db\""),
            ("sqlite://u:s3cr@t@host/db", "\"sqlite:PATH\""),
            ("sqlite:a.db?mode=ro", "without options"),
            ("postgres://host/db", "known store"),
            ("mongodb:/host/db", "known store"),
            ("mongodb://host:27017", "the database's name"),
            ("mongodb://host:27017/", "the database's name"),
            ("mongodb://u:s3cr@t@host/db", "%-escapes"),
            ("mongodb://u:s3cret", "%-escapes"),
            ("mongodb://u:12345678", "%-escapes"),
            ("mongodb://host/db?maxPoolSize=s3cret", "it says"),
            (
                "mongodb://u:s3cr%40t@host/db?maxPoolSize=0",
                "maxPoolSize=0",
            ),
            (
                "mongodb+srv://host.example.net/db?maxPoolSize=0",
                "maxPoolSize=0",
            ),
            (
                "mongodb://a,b/db?directConnection=true",
                "directConnection=true",
            ),
            ("mongodb://host/db?socketTimeoutMS=1", "socketTimeoutMS"),
        ];
        for (url, wanted) in cases {
            let error = StoreUrl(url.to_owned()).target().unwrap_err();
            assert!(error.contains(wanted), "{url}: {error}");
            assert!(!error.contains("s3cr@t"), "{error}");
        }
    }
}
