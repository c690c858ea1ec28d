//! Who acted, on what, and whose it is: read from an Authentik event.

use bytestring::ByteString;
use serde_json::{Map, Value};

use super::page::whole_number;
use crate::event::{Actor, Target, TenantHints};
use crate::sources::text::{fingerprint, is_address, scalar, text};

type Object = Map<String, Value>;

/// Written where the address of the client is unknown.
const UNKNOWN_IP: &str = "255.255.255.255";

/// Where a context names the model that an event is about, the most telling first.
const MODEL_KEYS: &[&str] = &[
    "model",
    "secret",
    "token",
    "authorized_application",
    "target",
    "export",
    "source",
    "mapping",
    "property_mapping",
    "provider",
    "application",
    "binding",
    "device",
    "stage",
];

/// The model whose key is a secret.
pub(super) const INVITATION: &str = "invitation";

/// The parts of an event that the functions here read.
pub(super) struct Parts<'a> {
    pub action: &'a str,
    pub user: Option<&'a Object>,
    pub context: &'a Object,
    pub client_ip: Option<&'a str>,
}

impl Parts<'_> {
    /// The actor: whoever really sits there. For a changed password the user is the one whose
    /// password it is, and who changed it is not told; under impersonation it is the other way round.
    pub fn actor(&self) -> Actor {
        let ip = self
            .client_ip
            .filter(|ip| *ip != UNKNOWN_IP)
            .map(Into::into);
        if self.action == "password_set" && !self.is_by_impersonator() {
            return Actor {
                ip,
                ..Actor::default()
            };
        }
        let user = self.known_user().map(acting);
        let told = |key: &str| user.and_then(|user| text(user, key));
        Actor {
            id: user.and_then(|user| scalar(user.get("pk"))),
            // For an unknown user the name that was typed stands here too.
            email: told("email")
                .filter(|email| is_address(email))
                .map(Into::into),
            name: told("username").or(self.typed()).map(Into::into),
            ip,
        }
    }

    /// The target.
    pub fn target(&self) -> Target {
        match self.action {
            "password_set" if self.is_by_impersonator() => Target::default(),
            // Authentik is told whom these are about: during a flow about another one, that user stands where whoever is
            // signed in stands else.
            "password_set" | "login" | "logout" => {
                self.user.map(acting).map(user_target).unwrap_or_default()
            }
            "login_failed" => {
                let mut target = self.known_user().map(user_target).unwrap_or_default();
                if let Some(typed) = self.typed() {
                    target.kind = Some(ByteString::from_static("user"));
                    target.name = Some(typed.into());
                }
                target
            }
            "impersonation_started" | "impersonation_ended" => {
                self.other().map(user_target).unwrap_or_default()
            }
            "user_write" => self.written_user(),
            "user_lockdown_triggered" => named("user", self.context.get("affected_user")),
            "update_available" => named("version", self.context.get("new_version")),
            "email_sent" => {
                let recipients = self.recipients();
                if recipients.is_empty() {
                    return Target::default();
                }
                Target {
                    kind: Some(ByteString::from_static("email")),
                    id: None,
                    name: Some(recipients.join(", ").into()),
                }
            }
            "invitation_used" => Target {
                id: invitation_id(self.context.get("invitation_uuid")),
                kind: Some(ByteString::from_static(INVITATION)),
                name: None,
            },
            _ => self
                .model()
                .or_else(|| self.other().map(user_target))
                .unwrap_or_default(),
        }
    }

    /// What the event tells about its tenant. Groups and the subject id are not in it.
    pub fn hints(&self) -> TenantHints {
        let mut hints = TenantHints::default();
        for user in [self.user.map(acting), self.other()].into_iter().flatten() {
            if let Some(email) = text(user, "email") {
                add(&mut hints.emails, email);
            }
        }
        if let Some(typed) = self.typed() {
            add(&mut hints.emails, typed);
        }
        if self.action == "email_sent" {
            for recipient in self.recipients() {
                add(&mut hints.recipients, address_of(recipient));
            }
        }
        hints
    }

    fn other(&self) -> Option<&Object> {
        other(self.user?, || is_in_flow(self.context))
    }

    fn is_by_impersonator(&self) -> bool {
        let acting = self.user.map(acting);
        acting.is_some_and(|user| user.contains_key("on_behalf_of"))
    }

    /// The name that was typed for a log-in that failed.
    fn typed(&self) -> Option<&str> {
        (self.action == "login_failed")
            .then(|| text(self.context, "username"))
            .flatten()
    }

    /// The user. Servers up to 2023.10 write the anonymous one of every log-in that failed: there
    /// the typed name alone tells whose it was to be.
    fn known_user(&self) -> Option<&Object> {
        self.user
            .filter(|user| self.typed().is_none() || !is_anonymous(user))
    }

    fn recipients(&self) -> Vec<&str> {
        match self.context.get("to_email") {
            Some(Value::String(to)) if !to.is_empty() => vec![to],
            Some(Value::Array(to)) => to.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        }
    }

    /// The user whom a flow wrote; its id is known only when that is the user of the event.
    fn written_user(&self) -> Target {
        let written = text(self.context, "username");
        let own = self.user.and_then(|user| text(user, "username"));
        match (written, self.user) {
            (Some(name), _) if own != Some(name) => named("user", self.context.get("username")),
            (_, Some(user)) => user_target(user),
            _ => Target::default(),
        }
    }

    fn model(&self) -> Option<Target> {
        MODEL_KEYS.iter().find_map(|key| {
            let model = self.context.get(*key)?.as_object()?;
            let kind = text(model, "model_name")?;
            let pk = model.get("pk");
            Some(Target {
                kind: Some(kind.into()),
                id: match kind {
                    INVITATION => invitation_id(pk),
                    _ => scalar(pk),
                },
                name: text(model, "name").map(Into::into),
            })
        })
    }
}

fn add(addresses: &mut Vec<ByteString>, address: &str) {
    if is_address(address) && !addresses.iter().any(|known| known == address) {
        addresses.push(address.into());
    }
}

/// Where mail to `Name <address>` goes. Everybody chooses their own name, and it may look like
/// somebody else's address.
fn address_of(recipient: &str) -> &str {
    recipient
        .strip_suffix('>')
        .and_then(|rest| rest.rsplit_once('<'))
        .map_or(recipient, |(_, address)| address)
}

fn user_target(user: &Object) -> Target {
    let id = scalar(user.get("pk"));
    let name = text(user, "username").map(Into::into);
    Target {
        kind: (id.is_some() || name.is_some()).then(|| ByteString::from_static("user")),
        id,
        name,
    }
}

/// The key of an invitation is the token in its link: whoever knows it may enrol. So it is told by a
/// fingerprint, the same whether or not the key stands there with dashes.
fn invitation_id(key: Option<&Value>) -> Option<ByteString> {
    Some(fingerprint(&scalar(key)?.replace('-', "")).into())
}

fn named(kind: &'static str, name: Option<&Value>) -> Target {
    let name = scalar(name);
    Target {
        kind: name.is_some().then(|| ByteString::from_static(kind)),
        id: None,
        name,
    }
}

/// Who acts: an administrator who impersonates somebody, or whoever is signed in to a flow about another
/// user. Where nobody is signed in, a flow counts as the deed of the one whom it is about.
pub(super) fn acting(user: &Object) -> &Object {
    signed_in(user).unwrap_or(user)
}

/// The other user whom the event names: the one in whose name an administrator acts, else the one whom a
/// flow is about.
pub(super) fn other(user: &Object, is_in_flow: impl FnOnce() -> bool) -> Option<&Object> {
    let impersonated = object(acting(user), "on_behalf_of");
    impersonated.or_else(|| (signed_in(user).is_some() && is_in_flow()).then_some(user))
}

/// Whether an event comes of a flow, as far as it tells. A flow that was left stays in the session, and
/// Authentik names its user in all that is done there.
pub(super) fn is_in_flow(context: &Object) -> bool {
    let path = object(context, "http_request").and_then(|request| text(request, "path"));
    path.is_none_or(|path| path.contains("/flows/executor/"))
}

fn signed_in(user: &Object) -> Option<&Object> {
    object(user, "authenticated_as").filter(|signed_in| {
        let key = real_user_key(signed_in);
        key.is_some() && key != real_user_key(user)
    })
}

fn object<'a>(map: &'a Object, key: &str) -> Option<&'a Object> {
    map.get(key).and_then(Value::as_object)
}

fn is_anonymous(user: &Object) -> bool {
    user.get("is_anonymous") == Some(&Value::Bool(true))
        || text(user, "username") == Some("AnonymousUser")
}

/// The key of a real user: neither the anonymous one nor the shell's, which is 0.
pub(super) fn real_user_key(user: &Object) -> Option<i64> {
    if is_anonymous(user) {
        return None;
    }
    let key = whole_number(user.get("pk")?.as_number()?)?;
    i64::try_from(key).ok().filter(|key| *key > 0)
}
