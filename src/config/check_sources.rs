//! The sources: names, addresses, routes, and their secrets.

use std::collections::HashMap;
use std::path::Path;

use super::check::file_trouble;
use super::load::Problem;
use super::secret::redact_url;
use super::section::Report;
use super::tree::quote;
use super::values::Mismatch;
use super::{AuthentikConfig, Secret, SourceConfig, StalwartConfig, check_logs};

/// Paths that Daybook itself serves.
const OWN_ROUTES: [&str; 5] = ["/api", "/audit", "/healthz", "/readyz", "/metrics"];

/// Actors and planes beside those of sources, whose names people see in the same places.
pub(crate) const OWN_ACTORS: [&str; 8] = [
    "writer", "resolver", "janitor", "http", "feed", "store", "sources", "edge",
];

/// A secret is a line, not a document; and nobody waits for a device to end.
const LONGEST_SECRET: u64 = 64 * 1024;

pub(super) fn check(sources: &[(usize, SourceConfig)], report: &mut Report) {
    let mut names: HashMap<&str, usize> = HashMap::new();
    let mut routes: HashMap<&str, usize> = HashMap::new();
    for (index, source) in sources {
        let index = *index;
        check_name(index, source, report);
        if let Some(first) = names.get(source.name()) {
            let found = format!("{}, the name of sources[{first}] too", quote(source.name()));
            let wanted =
                "a name of its own: it is the `source` of its events and the key of its cursor";
            report.add(&format!("sources[{index}].name"), found, wanted);
        }
        names.entry(source.name()).or_insert(index);
        match source {
            SourceConfig::Authentik(authentik) => check_url(index, &authentik.url, report),
            SourceConfig::Stalwart(stalwart) => {
                let route = stalwart.route.as_str();
                let key = format!("sources[{index}].route");
                if let Some(wanted) = route_trouble(route) {
                    report.add(&key, quote(route), wanted);
                } else if let Some(first) = routes.get(route) {
                    let found = format!("{}, the route of sources[{first}] too", quote(route));
                    report.add(&key, found, "a route of its own");
                }
                routes.entry(route).or_insert(index);
            }
            SourceConfig::Ocis(_) | SourceConfig::Recorder(_) => {}
        }
        check_secret_keys(index, source, report);
    }
    check_logs::check(sources, report);
}

fn check_name(index: usize, source: &SourceConfig, report: &mut Report) {
    let name = source.name();
    let key = format!("sources[{index}].name");
    let plain = name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    if name.is_empty() || name.len() > 64 || !plain {
        report.add(&key, quote(name), "1 to 64 of A-Z a-z 0-9 . _ -");
    } else if name == "daybook" {
        report.add(
            &key,
            quote(name),
            "another name: \"daybook\" enters its own events",
        );
    } else if name == crate::sources::drainer::NAME || OWN_ACTORS.contains(&name) {
        let name = quote(name);
        let wanted = format!("another name: {name} is an actor of Daybook's own");
        report.add(&key, name, wanted);
    }
}

fn check_url(index: usize, url: &str, report: &mut Report) {
    // A missing address is reported already.
    if !report.is_set(&format!("sources[{index}].url")) {
        return;
    }
    if let Some(wanted) = url_trouble(url) {
        // What is no address may be the token: not shown.
        let found = if url.contains("://") || names_a_host(url) {
            quote(url)
        } else {
            "a text that is no address".to_owned()
        };
        report.add(&format!("sources[{index}].url"), found, wanted);
    }
}

/// Whether this is an address without its beginning, such as `id.example.net:9443`.
fn names_a_host(text: &str) -> bool {
    let host = text.split(['/', ':']).next().unwrap_or_default();
    let is_plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.:/".contains(&b);
    text.len() <= 64 && text.bytes().all(is_plain) && (host == "localhost" || host.contains('.'))
}

fn url_trouble(url: &str) -> Option<String> {
    const EXAMPLE: &str = "the address of Authentik, such as \"https://id.example.net\"";
    let Ok(parsed) = reqwest::Url::parse(url) else {
        return Some(EXAMPLE.to_owned());
    };
    // Parsing drops them, but the API's paths are put behind the text.
    if url != url.trim() {
        return Some(format!("no blanks around it: {EXAMPLE}"));
    }
    if !matches!(parsed.scheme(), "http" | "https") || !parsed.has_host() {
        return Some(format!("http or https: {EXAMPLE}"));
    }
    if !parsed.username().is_empty() || parsed.password().is_some() {
        return Some(format!(
            "no user and password in it, the token is enough: {EXAMPLE}"
        ));
    }
    if parsed.query().is_some() || parsed.fragment().is_some() {
        return Some(format!("nothing after ? or #: {EXAMPLE}"));
    }
    let path = parsed.path().trim_end_matches('/');
    for end in ["/api/v3", "/api"] {
        if path.ends_with(end) || path.contains(&format!("{end}/")) {
            let base = redact_url(url);
            let base = base.find(end).map_or(base.as_str(), |at| &base[..at]);
            return Some(format!("leave {end} out, it is added: \"{base}\""));
        }
    }
    None
}

fn route_trouble(route: &str) -> Option<String> {
    if !route.starts_with('/') {
        return Some(format!(
            "a path that begins with a slash: {}",
            quote(&format!("/{route}"))
        ));
    }
    let plain = route
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || b"/._~-".contains(&b));
    let dots = route.split('/').any(|part| part == "." || part == "..");
    if !plain || dots || route.contains("//") || route.len() > 200 {
        return Some("a plain path of letters, digits and / . _ ~ -, up to 200".to_owned());
    }
    if route.len() == 1 || route.ends_with('/') {
        return Some("a path that ends in a word: \"/ingest/stalwart/webhook\"".to_owned());
    }
    let clash = OWN_ROUTES.iter().find(|own| {
        route
            .strip_prefix(**own)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    clash.map(|own| {
        format!("a path that is not under {own}, which Daybook serves itself: \"/ingest/stalwart/webhook\"")
    })
}

/// Which keys name the secrets: no look at the secrets themselves.
fn check_secret_keys(index: usize, source: &SourceConfig, report: &mut Report) {
    let here = format!("sources[{index}]");
    match source {
        SourceConfig::Authentik(authentik) => {
            let is_set = |report: &Report, key: &str| report.is_set(&format!("{here}.{key}"));
            let (file, env) = (is_set(report, "token_file"), is_set(report, "token_env"));
            if !file && !env {
                let wanted = "`token_file = \"PATH\"` or `token_env = \"VARIABLE\"`";
                report.add(&format!("{here}.token_file"), "no token", wanted);
            } else if file && env {
                let found = "token_file and token_env";
                report.add(&format!("{here}.token_env"), found, "one of the two");
            }
            check_variable(
                &format!("{here}.token_env"),
                authentik.token_env.as_deref(),
                report,
            );
        }
        SourceConfig::Stalwart(stalwart) => {
            let files = format!("{here}.secret_files");
            let env = format!("{here}.secret_env");
            let is_written = report.is_set(&format!("{files}[0]")) || report.is_set(&env);
            if stalwart.secret_files.is_empty() && stalwart.secret_env.is_none() && !is_written {
                let wanted = "`secret_files = [\"PATH\"]` or `secret_env = \"VARIABLE\"`: unsigned requests are refused";
                report.add(&files, "no signature key", wanted);
            }
            check_variable(&env, stalwart.secret_env.as_deref(), report);
        }
        SourceConfig::Ocis(_) | SourceConfig::Recorder(_) => {}
    }
}

fn check_variable(key: &str, name: Option<&str>, report: &mut Report) {
    if name.is_some_and(|name| !is_variable_name(name)) {
        // What is no name may be the secret itself: not shown.
        let wanted = "the name of an environment variable, not the secret itself";
        report.add(key, "a text that is no variable's name", wanted);
    }
}

fn is_variable_name(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Reads every secret once, so that a missing one is known before anything starts.
pub(super) fn check_secrets(
    sources: &[(usize, SourceConfig)],
    env: &HashMap<String, String>,
    report: &mut Report,
) {
    let lookup = |name: &str| env.get(name).cloned();
    for (index, source) in sources {
        let problems = match source {
            SourceConfig::Authentik(authentik) => {
                authentik.token(&lookup).err().into_iter().collect()
            }
            SourceConfig::Stalwart(stalwart) => stalwart.keys(&lookup).1,
            SourceConfig::Ocis(_) | SourceConfig::Recorder(_) => Vec::new(),
        };
        for (key, mismatch) in problems {
            report.add(
                &format!("sources[{index}].{key}"),
                mismatch.found,
                mismatch.wanted,
            );
        }
    }
}

type KeyedMismatch = (String, Mismatch);
type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

fn from_process(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn problem_of(source: &str, (key, mismatch): KeyedMismatch) -> Problem {
    Problem {
        key,
        place: format!("source {source}"),
        found: mismatch.found,
        wanted: mismatch.wanted,
    }
}

impl AuthentikConfig {
    /// Reads the token from its file or variable, as it is now.
    ///
    /// # Errors
    /// What is missing, and where it was looked for.
    pub fn load_token(&self) -> Result<Secret, Problem> {
        let name = self.name.as_deref().unwrap_or("authentik");
        self.token(&from_process)
            .map_err(|problem| problem_of(name, problem))
    }

    fn token(&self, lookup: Lookup<'_>) -> Result<Secret, KeyedMismatch> {
        let (key, text, place) = match (&self.token_file, &self.token_env) {
            (Some(path), _) => {
                let key = "token_file".to_owned();
                match read_secret(path) {
                    Ok(text) => (key, text, path.display().to_string()),
                    Err(mismatch) => return Err((key, mismatch)),
                }
            }
            (None, Some(name)) => {
                let key = "token_env".to_owned();
                match read_variable(name, lookup) {
                    Ok(text) => (key, text, shown_variable(name)),
                    Err(mismatch) => return Err((key, mismatch)),
                }
            }
            (None, None) => {
                let wanted = "`token_file` or `token_env`";
                return Err(("token_file".to_owned(), Mismatch::new("no token", wanted)));
            }
        };
        let token = text.trim();
        if token.is_empty() {
            let found = format!("{place} is empty");
            return Err((key, Mismatch::new(found, "an API token of Authentik")));
        }
        if !token.bytes().all(|b| b.is_ascii_graphic()) {
            let found = format!("{place} holds more than one word or other than ASCII");
            return Err((
                key,
                Mismatch::new(found, "an API token of Authentik and nothing else"),
            ));
        }
        Ok(Secret::new(token))
    }
}

impl StalwartConfig {
    /// Reads the signature keys from their files and variable, as they are now.
    ///
    /// Senders disagree about a line break at the end of a key's file (0.15 signs with it, 0.16
    /// without), so such a file yields both; no key is ever empty, and none comes twice.
    ///
    /// # Errors
    /// The first file or variable that gives no key.
    pub fn load_keys(&self) -> Result<Vec<Secret>, Problem> {
        let name = self.name.as_deref().unwrap_or("stalwart");
        let (keys, problems) = self.keys(&from_process);
        match problems.into_iter().next() {
            None => Ok(keys),
            Some(problem) => Err(problem_of(name, problem)),
        }
    }

    fn keys(&self, lookup: Lookup<'_>) -> (Vec<Secret>, Vec<KeyedMismatch>) {
        let files = self.secret_files.iter().enumerate().map(|(index, path)| {
            let key = format!("secret_files[{index}]");
            (key, path.display().to_string(), read_secret(path))
        });
        let variable = self.secret_env.iter().map(|name| {
            (
                "secret_env".to_owned(),
                shown_variable(name),
                read_variable(name, lookup),
            )
        });
        let mut keys: Vec<Secret> = Vec::new();
        let mut problems = Vec::new();
        for (key, place, text) in files.chain(variable) {
            let candidates = match text {
                Ok(text) => key_candidates(&text),
                Err(mismatch) => {
                    problems.push((key, mismatch));
                    continue;
                }
            };
            if candidates.is_empty() {
                let found = format!("{place} is empty");
                problems.push((
                    key,
                    Mismatch::new(found, "the signature key of the webhook"),
                ));
            }
            for candidate in candidates {
                if !keys.contains(&candidate) {
                    keys.push(candidate);
                }
            }
        }
        if keys.is_empty() && problems.is_empty() {
            let wanted = "`secret_files` or `secret_env`";
            problems.push((
                "secret_files".to_owned(),
                Mismatch::new("no signature key", wanted),
            ));
        }
        (keys, problems)
    }
}

/// The key without the line break at its end, the key as it stands, and the key without any blanks around it.
fn key_candidates(text: &str) -> Vec<Secret> {
    if text.trim().is_empty() {
        return Vec::new();
    }
    let line = text.strip_suffix('\n').unwrap_or(text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let mut candidates = Vec::new();
    for candidate in [line, text, text.trim()] {
        let candidate = Secret::new(candidate);
        if !candidates.contains(&candidate) {
            candidates.push(candidate);
        }
    }
    candidates
}

fn read_secret(path: &Path) -> Result<String, Mismatch> {
    let wanted = "a file that holds the secret";
    let size = path
        .metadata()
        .map_err(|error| Mismatch::new(file_trouble(path, &error), wanted))?
        .len();
    if size > LONGEST_SECRET {
        let found = format!("{} has {size} bytes", path.display());
        return Err(Mismatch::new(found, wanted));
    }
    let bytes =
        std::fs::read(path).map_err(|error| Mismatch::new(file_trouble(path, &error), wanted))?;
    String::from_utf8(bytes).map_err(|_| {
        let found = format!("{} holds bytes that are no UTF-8", path.display());
        Mismatch::new(found, "a file that holds the secret as text")
    })
}

fn read_variable(name: &str, lookup: Lookup<'_>) -> Result<String, Mismatch> {
    lookup(name).ok_or_else(|| {
        let found = format!("{} is not set", shown_variable(name));
        Mismatch::new(
            found,
            "the name of an environment variable that holds the secret",
        )
    })
}

/// A name that does not look like one may be a secret that was put in the wrong place.
fn shown_variable(name: &str) -> String {
    if looks_like_a_name(name) {
        format!("environment variable {name}")
    } else {
        "the environment variable named here".to_owned()
    }
}

/// Capitals in words that a person would write; digits only where something else tells that it is a name.
fn looks_like_a_name(name: &str) -> bool {
    const LONGEST_WORD: usize = 16;
    const TELLING: [&str; 5] = ["_", "TOKEN", "SECRET", "PASSWORD", "KEY"];
    let is_word = |word: &str| {
        let is_plain = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit();
        word.len() <= LONGEST_WORD && word.bytes().all(is_plain)
    };
    let has_digits = name.bytes().any(|b| b.is_ascii_digit());
    name.len() <= 64
        && name.split('_').all(is_word)
        && (!has_digits || TELLING.iter().any(|part| name.contains(part)))
}
