//! Believable events, in the shapes that the real server writes.

use std::time::Duration;

use jiff::Timestamp;
use rand::Rng;
use serde_json::{Map, Value, json};

use super::archive::{django_time, later};
use crate::simulators::people::{People, Person};
use crate::simulators::{hex_token, pick, uuid4};

const BROWSERS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0",
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Safari/605.1.15",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/131.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
];

const APPLICATIONS: [(&str, &str); 3] = [
    ("Files", "files-client"),
    ("Webmail", "mail-client"),
    ("Wiki", "wiki-client"),
];

/// One event of a believable kind, complete but for what the server adds (`brand`).
pub fn realistic(rng: &mut impl Rng, people: &People, at: Timestamp) -> Value {
    let person = people.anyone(rng);
    match rng.random_range(0..100) {
        0..34 => login(rng, person, at),
        34..50 => login_failed(rng, person, at),
        50..60 => logout(rng, person, at),
        60..78 => authorisation(rng, person, at),
        78..84 => password_set(rng, person, at),
        84..90 => group_change(rng, people, at),
        90..93 => user_written(rng, person, at),
        93..95 => impersonation(rng, people, person, at),
        95..97 => model_change(rng, people, at),
        97..98 => email_sent(rng, person, at),
        98..99 => secret_rotated(rng, at),
        _ => secret_view(rng, people, at),
    }
}

/// `count` believable events, oldest first, `spacing` apart, the last one at `newest`.
pub fn backlog(
    rng: &mut impl Rng,
    people: &People,
    newest: Timestamp,
    spacing: Duration,
    count: u32,
) -> Vec<Value> {
    (0..count)
        .rev()
        .map(|back| {
            let at = newest.checked_sub(spacing * back).unwrap_or(newest);
            realistic(rng, people, at)
        })
        .collect()
}

fn login(rng: &mut impl Rng, person: &Person, at: Timestamp) -> Value {
    let request = flow(rng, "default-authentication-flow", "GET");
    let context = json!({
        "auth_method": "password",
        "http_request": request,
        "auth_method_args": {"known_device": rng.random_bool(0.6)},
    });
    event(
        rng,
        at,
        "login",
        "authentik.events.signals",
        user(person),
        context,
        Some(&person.ip),
    )
}

fn login_failed(rng: &mut impl Rng, person: &Person, at: Timestamp) -> Value {
    let request = flow(rng, "default-authentication-flow", "POST");
    let unknown = rng.random_bool(0.2);
    let typed = if unknown {
        format!("{}1", person.username)
    } else {
        person.username.clone()
    };
    let who = if unknown {
        json!({
            "pk": null,
            "email": typed,
            "username": typed,
            "authenticated_as": anonymous(),
        })
    } else {
        user(person)
    };
    let context = json!({
        "stage": model(&hex_token(rng, 32), "authentik_stages_password", "default-authentication-password", "passwordstage"),
        "password": "********************",
        "username": typed,
        "http_request": request,
    });
    let ip = if rng.random_bool(0.5) {
        person.ip.clone()
    } else {
        format!("192.0.2.{}", rng.random_range(1..255))
    };
    event(
        rng,
        at,
        "login_failed",
        "authentik.events.signals",
        who,
        context,
        Some(&ip),
    )
}

fn logout(rng: &mut impl Rng, person: &Person, at: Timestamp) -> Value {
    let request = flow(rng, "default-invalidation-flow", "GET");
    event(
        rng,
        at,
        "logout",
        "authentik.events.signals",
        user(person),
        json!({"http_request": request}),
        Some(&person.ip),
    )
}

fn authorisation(rng: &mut impl Rng, person: &Person, at: Timestamp) -> Value {
    let (name, client) = *pick(rng, &APPLICATIONS);
    let mut request = http(rng, "/application/o/authorize/", "GET");
    request["args"] = json!({
        "scope": "openid email profile",
        "state": hex_token(rng, 16),
        "client_id": client,
        "redirect_uri": format!("https://{client}.platform.example/callback"),
        "response_type": "code",
    });
    let context = json!({
        "flow": hex_token(rng, 32),
        "scopes": "openid email profile",
        "http_request": request,
        "authorized_application": model(&hex_token(rng, 32), "authentik_core", name, "application"),
    });
    event(
        rng,
        at,
        "authorize_application",
        "authentik.providers.oauth2.views.authorize",
        user(person),
        context,
        Some(&person.ip),
    )
}

fn password_set(rng: &mut impl Rng, person: &Person, at: Timestamp) -> Value {
    let path = format!("/api/v3/core/users/{}/set_password/", person.pk);
    let request = http(rng, &path, "POST");
    event(
        rng,
        at,
        "password_set",
        "authentik.events.signals",
        user(person),
        json!({"http_request": request}),
        Some(&person.ip),
    )
}

fn group_change(rng: &mut impl Rng, people: &People, at: Timestamp) -> Value {
    let group = &pick(rng, &people.tenants).group;
    let verb = *pick(rng, &["add_user", "remove_user"]);
    let request = http(
        rng,
        &format!("/api/v3/core/groups/{}/{verb}/", group.pk),
        "POST",
    );
    let context = json!({
        "model": model(&group.pk.replace('-', ""), "authentik_core", &group.name, "group"),
        "http_request": request,
    });
    event(
        rng,
        at,
        "model_updated",
        "authentik.events.middleware",
        user(&people.admin),
        context,
        Some(&people.admin.ip),
    )
}

fn user_written(rng: &mut impl Rng, person: &Person, at: Timestamp) -> Value {
    let request = flow(rng, "default-user-settings-flow", "POST");
    let context = json!({
        "name": person.name,
        "email": person.email,
        "username": person.username,
        "attributes.settings.locale": "en",
        "created": false,
        "http_request": request,
    });
    event(
        rng,
        at,
        "user_write",
        "authentik.events.signals",
        user(person),
        context,
        Some(&person.ip),
    )
}

fn impersonation(rng: &mut impl Rng, people: &People, person: &Person, at: Timestamp) -> Value {
    let mut who = user(&people.admin);
    let (action, context) = if rng.random_bool(0.5) {
        who["on_behalf_of"] = user(person);
        let request = http(
            rng,
            &format!("/api/v3/core/users/{}/impersonate/", person.pk),
            "POST",
        );
        let ticket = rng.random_range(1000..9999);
        (
            "impersonation_started",
            json!({"reason": format!("support ticket {ticket}"), "http_request": request}),
        )
    } else {
        let request = http(rng, "/api/v3/core/users/impersonate_end/", "GET");
        ("impersonation_ended", json!({"http_request": request}))
    };
    event(
        rng,
        at,
        action,
        "authentik.core.api.users",
        who,
        context,
        Some(&people.admin.ip),
    )
}

fn model_change(rng: &mut impl Rng, people: &People, at: Timestamp) -> Value {
    let (action, method) = *pick(
        rng,
        &[
            ("model_created", "POST"),
            ("model_updated", "PATCH"),
            ("model_deleted", "DELETE"),
        ],
    );
    let (name, client) = *pick(rng, &APPLICATIONS);
    let request = http(rng, &format!("/api/v3/core/applications/{client}/"), method);
    let context = json!({
        "model": model(&hex_token(rng, 32), "authentik_core", name, "application"),
        "http_request": request,
    });
    event(
        rng,
        at,
        action,
        "authentik.events.middleware",
        user(&people.admin),
        context,
        Some(&people.admin.ip),
    )
}

fn email_sent(rng: &mut impl Rng, person: &Person, at: Timestamp) -> Value {
    let context = json!({
        "message": format!("Email to {} sent", person.email),
        "subject": "Reset your password",
        "body": format!("<p>Hi {}, use <a href=\"https://id.platform.example/recover?token={}\">this link</a>.</p>", person.name, hex_token(rng, 20)),
        "from_email": "no-reply@platform.example",
        "to_email": [format!("{} <{}>", person.name, person.email)],
    });
    event(
        rng,
        at,
        "email_sent",
        "authentik.stages.email.tasks",
        json!({}),
        context,
        None,
    )
}

fn secret_rotated(rng: &mut impl Rng, at: Timestamp) -> Value {
    let name = format!("ci-deploy (expires={at:.0})");
    let context = json!({
        "token": model(&hex_token(rng, 32), "authentik_core", &name, "token"),
        "message": "Token ci-deploy's secret was rotated.",
    });
    event(
        rng,
        at,
        "secret_rotate",
        "authentik.core.models",
        json!({}),
        context,
        None,
    )
}

fn secret_view(rng: &mut impl Rng, people: &People, at: Timestamp) -> Value {
    let request = http(rng, "/api/v3/core/tokens/ci-deploy/view_key/", "GET");
    let context = json!({
        "secret": model(&hex_token(rng, 32), "authentik_core", "ci-deploy", "token"),
        "http_request": request,
    });
    event(
        rng,
        at,
        "secret_view",
        "authentik.core.api.tokens",
        user(&people.admin),
        context,
        Some(&people.admin.ip),
    )
}

fn event(
    rng: &mut impl Rng,
    at: Timestamp,
    action: &str,
    app: &str,
    user: Value,
    context: Value,
    client_ip: Option<&str>,
) -> Value {
    json!({
        "pk": uuid4(rng),
        "user": user,
        "action": action,
        "app": app,
        "context": context,
        "client_ip": client_ip,
        "created": django_time(at),
        "expires": django_time(later(at, super::RETENTION)),
    })
}

fn user(person: &Person) -> Value {
    json!({"pk": person.pk, "email": person.email, "username": person.username})
}

fn anonymous() -> Value {
    json!({"pk": 1, "email": "", "username": "AnonymousUser", "is_anonymous": true})
}

fn model(pk: &str, app: &str, name: &str, model_name: &str) -> Value {
    json!({"pk": pk, "app": app, "name": name, "model_name": model_name})
}

fn flow(rng: &mut impl Rng, slug: &str, method: &str) -> Map<String, Value> {
    let mut request = http(rng, &format!("/api/v3/flows/executor/{slug}/"), method);
    request["args"] = json!({"next": "/"});
    request
}

fn http(rng: &mut impl Rng, path: &str, method: &str) -> Map<String, Value> {
    let fields = [
        ("args", json!({})),
        ("path", path.into()),
        ("method", method.into()),
        ("request_id", hex_token(rng, 32).into()),
        ("user_agent", (*pick(rng, &BROWSERS)).into()),
    ];
    fields
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}
