//! Is Authentik reached, does it let us read events, and are there any?

use serde_json::Value;

use crate::config::AuthentikConfig;
use crate::sources::authentik::client::{Client, ClientError, HTML_PAGE};
use crate::sources::authentik::decode::decode_page;
use crate::sources::authentik::walk::PageRequest;
use crate::telemetry::metrics::Metrics;

use super::{Finding, Fine, Trouble};

const NEW_TOKEN: &str = "in Authentik's admin interface, Directory > Tokens and App passwords: make a token with the intent API for the service account, expiring off, and put its key into token_file";
const GRANT: &str = "in Authentik's admin interface, Directory > Roles: give the service account's role the permissions `Can view Event` (authentik_events.view_event), `Can view User` and `Can view Group`";
const LET_THROUGH: &str = "let what stands before Authentik pass /api/v3/core/users/ on to it; if it does, look at Authentik's log";

pub(super) async fn check(config: &AuthentikConfig) -> Finding {
    let token = config.load_token().map_err(|problem| {
        Trouble::new(
            problem.to_string(),
            "put the token into the file that token_file names",
        )
    })?;
    let client = Client::new(&config.url, &token, config.timeout, Metrics::new())
        .map_err(|error| Trouble::new(error, NEW_TOKEN))?;
    let request = PageRequest {
        page: 1,
        page_size: 20,
    };
    let (me, list) = tokio::join!(client.me(), client.events(request));
    let me = match me {
        // What stands before Authentik may let the list through and nothing else.
        Err(_) if list.is_ok() => Ok(Value::Null),
        Err(error) if is_hidden(&error) && list.as_ref().is_err_and(lacks_view_event) => {
            Ok(Value::Null)
        }
        me => me,
    };
    let me = me.map_err(|error| match &error {
        ClientError::Refused { detail, .. } => Trouble::new(
            format!("reached, but the token is refused ({error})"),
            refused(detail),
        ),
        ClientError::Late | ClientError::Transport(_) => Trouble::new(
            format!("not reached: {error}"),
            unreached(&error.to_string()),
        ),
        _ => Trouble::new(error.to_string(), wrong_answer(&error)),
    })?;
    let user = me.get("user").unwrap_or(&Value::Null);
    let username = user
        .get("username")
        .and_then(Value::as_str)
        .unwrap_or("somebody");
    let answer = list.map_err(|error| match &error {
        ClientError::Refused { .. } => Trouble::new(
            format!("reached as {username}, but not permitted to read events ({error})"),
            GRANT,
        ),
        _ => Trouble::new(
            format!("reached as {username}, but the list of events is not: {error}"),
            wrong_answer(&error),
        ),
    })?;
    let page = decode_page(&answer.body).map_err(|error| {
        Trouble::new(
            error.to_string(),
            "is this Authentik, and no proxy's page before it?",
        )
    })?;
    let visible = match page.count {
        0 => {
            return Err(Trouble::new(
                format!(
                    "reached as {username}, but it sees no event at all: an outpost's token, or a role without view_event"
                ),
                format!("use a service account's token, not an outpost's; {GRANT}"),
            ));
        }
        1 => "1 event is visible".to_owned(),
        count => format!("{count} events are visible"),
    };
    let pk = user.get("pk").and_then(Value::as_i64).unwrap_or_default();
    let found = format!("reached as {username}; {visible}, events would flow; ");
    Ok(match client.user(pk).await {
        Ok(_) => Fine::new(format!("{found}users and their groups can be looked up")),
        Err(error) => Fine::new(format!(
            "{found}users cannot be looked up ({}): tenants come from the directory alone",
            error.beside_the_list()
        ))
        .advise(match &error {
            ClientError::Refused {
                status: 403,
                detail,
            } if detail != HTML_PAGE => GRANT,
            _ => LET_THROUGH,
        }),
    })
}

/// Whether something else than Authentik may have answered.
fn is_hidden(error: &ClientError) -> bool {
    !matches!(error, ClientError::Refused { detail, .. } if detail != HTML_PAGE)
}

/// Whether Authentik itself says that the token is good, and may not read events.
fn lacks_view_event(error: &ClientError) -> bool {
    let is_about_token = |detail: &str| {
        ["Token invalid", "not provided"]
            .iter()
            .any(|words| detail.contains(words))
    };
    matches!(error, ClientError::Refused { status: 403, detail } if detail != HTML_PAGE && !is_about_token(detail))
}

/// Authentik's three refusals differ in this text only.
fn refused(detail: &str) -> String {
    if detail.contains("not provided") {
        return "a proxy before Authentik takes the Authorization header away: let it through, or use an address behind the proxy".to_owned();
    }
    format!(
        "the token is wrong, has expired or was rotated, or its account is inactive; {NEW_TOKEN}"
    )
}

fn unreached(what: &str) -> String {
    let lower = what.to_lowercase();
    let is = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if is(&["no ca certificates"]) {
        return "this machine has no certificate to trust: install them (Debian: the package ca-certificates) or mend the variable SSL_CERT_FILE or SSL_CERT_DIR, and start Daybook again".to_owned();
    }
    if is(&["expired"]) {
        return "Authentik's certificate has expired (or this machine's clock is wrong): renew it, and reload the server or the proxy that presents it".to_owned();
    }
    if is(&[
        "unknownissuer",
        "unknown issuer",
        "self-signed",
        "self signed",
        "unknown ca",
    ]) {
        return "Authentik's certificate is self-signed or of a private CA: add that CA to this machine's trusted certificates (Debian: copy it to /usr/local/share/ca-certificates/NAME.crt and run update-ca-certificates) or name it in the variable SSL_CERT_FILE".to_owned();
    }
    if is(&["certificate", "notvalidforname", "not valid for"]) {
        return "the certificate does not fit the address: use the name in it as the host of the url".to_owned();
    }
    if is(&["in time"]) {
        return "nobody answers in time: a firewall in between, or Authentik is overloaded; raise `timeout` if it is only slow".to_owned();
    }
    if is(&["dns", "lookup", "name or service", "resolve"]) {
        return "the host's name in the url is unknown on this machine".to_owned();
    }
    "check host and port of the url, http or https, and whether Authentik runs and is reachable from this machine".to_owned()
}

fn wrong_answer(error: &ClientError) -> String {
    match error {
        ClientError::WrongAddress(_) | ClientError::NoSuchPage => {
            "the url must be Authentik's own address, with a path only if Authentik is served under one (web.path), https if it redirects there: \"https://id.example.net\"".to_owned()
        }
        ClientError::Throttled { .. } => {
            "a proxy before Authentik limits requests: exempt this machine".to_owned()
        }
        ClientError::ServerError { .. } => {
            "Authentik starts, or its database is away: look at its log, then check again".to_owned()
        }
        ClientError::TooLong | ClientError::EventTooLong => {
            "its events are very large: Daybook reads fewer at a time".to_owned()
        }
        ClientError::Contradictory | ClientError::Unreadable(_) => {
            "something else answers at this address, a login page or a proxy: use Authentik's own address".to_owned()
        }
        ClientError::Refused { detail, .. } => refused(detail),
        ClientError::Late | ClientError::Transport(_) => unreached(&error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_own_remedy() {
        assert!(refused("Authentication credentials were not provided.").contains("proxy"));
        assert!(refused("Token invalid/expired").contains("Tokens and App passwords"));
        for (what, remedy) in [
            (
                "cannot connect: invalid peer certificate: UnknownIssuer",
                "SSL_CERT_FILE",
            ),
            (
                "cannot connect: invalid peer certificate: certificate expired: …",
                "renew",
            ),
            (
                "invalid peer certificate: NotValidForName",
                "fit the address",
            ),
            (
                "cannot set up TLS: unexpected error: No CA certificates were loaded from the system",
                "the package ca-certificates",
            ),
            ("no answer in time", "firewall"),
            (
                "cannot connect: failed to lookup address information",
                "unknown on this machine",
            ),
            (
                "cannot connect: Connection refused (os error 111)",
                "host and port",
            ),
        ] {
            assert!(
                unreached(what).contains(remedy),
                "{what}: {}",
                unreached(what)
            );
        }
    }
}
