//! Which parts of an audit line are secrets.
//!
//! Tokens of public links and invitations open files to whoever holds them. They stand under keys
//! of their own, but also in `Message`, and the removal of a link by its token writes the token
//! where the link's id belongs. An id and a token cannot be told apart there, so both are masked;
//! a fingerprint takes their place, which also stands in the link's other events.

use std::borrow::Cow;

use bytestring::ByteString;
use serde_json::{Map, Value};

use super::record::{KNOWN_KEYS, Record, ScannedLine, key};
use crate::event::letter;
use crate::event::mask::{self, MASK, SECRET_KEYS};
use crate::sources::text::{fingerprint, text};

/// Secret in this source besides the common list.
const OCIS_KEYS: &[&str] = &["InviteLink", "RecipientMail"];

/// What the message of a link's removal says before the link's id, or its token.
const LINK_REMOVAL: &str = "link with id:'";

/// What stands before a token in the text of a message.
const BEFORE_TOKEN: &[&str] = &["token '", LINK_REMOVAL, "accept-invite?token="];

/// The action that hands a token out without naming it a share's.
const INVITATION: &str = "science_mesh_invite_token_generated";

/// A shorter value of a secret key is not looked for in other fields: it would match by chance.
const SHORTEST_SOUGHT: usize = 6;

/// What masking leaves of a link's secrets, to find its events by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Fingerprints {
    /// Of a link's id.
    pub link: Option<String>,
    /// Of `ShareToken`.
    pub token: Option<String>,
}

/// Whether [`mask_line`] would leave a scanned line as it is. Its keys are known: of those only the
/// token is a secret.
pub(super) fn has_no_secret(line: &ScannedLine<'_>) -> bool {
    let is_link = line.text(key!("ShareType")) == Some("link");
    if is_link || line.text(key!("Action")) == Some(INVITATION) {
        return false;
    }
    if !line.has(key!("ShareToken")) {
        return true;
    }
    // Shares among users have the field too, empty.
    let speaks_of_a_token =
        |message: &str| BEFORE_TOKEN.iter().any(|phrase| message.contains(phrase));
    line.string(key!("ShareToken")) == Some("")
        && line.text(key!("ShareID")).is_none_or(|id| id.contains(':'))
        && !line.string(key!("Message")).is_some_and(speaks_of_a_token)
}

/// What is masked of a record beside the values of secret keys.
struct Secrets {
    fingerprints: Fingerprints,
    /// `ShareID` may be the token.
    is_link_removal: bool,
    /// `Message` may name the token.
    speaks_of_a_token: bool,
}

impl Secrets {
    fn of(record: &impl Record) -> Self {
        let is_of_type_link = record.text(key!("ShareType")) == Some("link");
        let is_link = is_of_type_link || record.has(key!("ShareToken"));
        let action = record.text(key!("Action"));
        let share_id = record.text(key!("ShareID")).or_else(|| {
            let is_new_link = is_of_type_link && action == Some("file_shared");
            is_new_link.then(|| new_link_id(record))?
        });
        let link = share_id.filter(|id| is_link && !id.contains(':'));
        Self {
            fingerprints: Fingerprints {
                link: link.map(fingerprint),
                token: record.text(key!("ShareToken")).map(fingerprint),
            },
            is_link_removal: is_of_type_link && action == Some("file_unshared"),
            speaks_of_a_token: is_link || action == Some(INVITATION),
        }
    }
}

/// The id of a new link, which stands in `Message` only. Ids hold no quote: a text with other quotes
/// is not this one.
fn new_link_id(record: &impl Record) -> Option<&str> {
    let parts: Vec<&str> = record.text(key!("Message"))?.split('\'').collect();
    match parts[..] {
        [
            "user ",
            _,
            " created a public link to file ",
            _,
            " with id ",
            id,
            "",
        ] if !id.is_empty() => Some(id),
        _ => None,
    }
}

/// Those of the secrets that are looked for in other fields, the longest first: an invitation's link contains
/// its token.
fn sought<'a>(secrets: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let mut sought: Vec<&str> = secrets
        .filter(|secret| secret.len() >= SHORTEST_SOUGHT && *secret != MASK)
        .collect();
    sought.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    sought
}

/// Masks a scanned line: what is left of it says what [`mask_line`] would leave of the object. `None` when a
/// number has to be masked.
pub(super) fn mask_scanned(line: &ScannedLine<'_>) -> Option<(ByteString, Fingerprints)> {
    let secrets = Secrets::of(line);
    let is_secret =
        |key| key == key!("ShareToken") || (key == key!("ShareID") && secrets.is_link_removal);
    let keys = [key!("ShareToken"), key!("ShareID")];
    let keys = keys.into_iter().filter(|key| is_secret(*key));
    if keys.clone().any(|key| line.is_number(key)) {
        return None;
    }
    let sought = sought(keys.filter_map(|key| line.string(key)));
    let masked = line.rewritten(|key, text| {
        if is_secret(key) {
            return (!text.is_empty()).then(|| MASK.to_owned());
        }
        let erased = erased(text, &sought);
        if key == key!("Message") && secrets.speaks_of_a_token {
            let masked = mask_phrases(erased.as_bytes());
            return Some(String::from_utf8_lossy(&masked).into_owned());
        }
        match erased {
            Cow::Owned(erased) => Some(erased),
            Cow::Borrowed(_) => None,
        }
    });
    Some((masked, secrets.fingerprints))
}

/// Masks a decoded line.
pub(super) fn mask_line(line: &mut Map<String, Value>) -> Fingerprints {
    let Secrets {
        fingerprints,
        is_link_removal,
        speaks_of_a_token,
    } = Secrets::of(line);

    let features = mask_features(line);
    let secrets = line
        .iter()
        .filter(|(key, _)| is_secret(key) || (is_link_removal && *key == "ShareID"))
        .filter_map(|(_, value)| value.as_str())
        .chain(features.iter().map(|(_, value)| &**value));
    let sought: Vec<String> = sought(secrets).into_iter().map(str::to_owned).collect();

    for (key, value) in line.iter_mut() {
        if is_secret(key) {
            mask::mask_leaves(value);
        } else {
            mask::mask_value(value, SECRET_KEYS);
            erase(value, &sought);
        }
    }
    if is_link_removal && let Some(id) = line.get_mut("ShareID") {
        mask::mask_leaves(id);
    }
    if let Some(Value::String(message)) = line.get_mut("Message") {
        for (name, value) in features {
            *message = message.replace(&format!("{name}={value}"), &format!("{name}={MASK}"));
        }
    }
    if speaks_of_a_token && let Some(Value::String(message)) = line.get_mut("Message") {
        *message = String::from_utf8_lossy(&mask_phrases(message.as_bytes())).into_owned();
    }
    fingerprints
}

/// Masks bytes that are no record: a cut line, the minimal format, a console's noise.
pub(super) fn mask_letter(raw: &[u8]) -> Vec<u8> {
    let mut keys: Vec<&str> = SECRET_KEYS.iter().chain(OCIS_KEYS).copied().collect();
    let removal = LINK_REMOVAL.as_bytes();
    if raw.windows(removal.len()).any(|window| window == removal) {
        keys.push("ShareID");
    }
    mask_phrases(&letter::mask_letter(raw, &keys))
}

fn is_secret(key: &str) -> bool {
    // Nearly every key is one of these; comparing it with all patterns takes far longer.
    let is_harmless = KNOWN_KEYS.contains(&key) && key != "ShareToken";
    !is_harmless && is_secret_by_pattern(key)
}

fn is_secret_by_pattern(key: &str) -> bool {
    mask::is_secret_key(key, SECRET_KEYS) || mask::is_secret_key(key, OCIS_KEYS)
}

/// `Features` says a feature's name in one field and its values in others. Gives the names and values
/// that it masked: `Message` says them again.
fn mask_features(line: &mut Map<String, Value>) -> Vec<(String, String)> {
    let mut masked = Vec::new();
    let Some(Value::Array(features)) = line.get_mut("Features") else {
        return masked;
    };
    for feature in features.iter_mut().filter_map(Value::as_object_mut) {
        let Some(name) = text(feature, "Name").filter(|name| is_secret(name)) else {
            continue;
        };
        let name = name.to_owned();
        for (key, value) in feature.iter_mut() {
            if key == "Name" {
                continue;
            }
            match value {
                Value::String(text) if !text.is_empty() => {
                    masked.push((name.clone(), text.clone()))
                }
                Value::Number(number) => masked.push((name.clone(), number.to_string())),
                _ => {}
            }
            mask::mask_leaves(value);
        }
    }
    masked
}

fn erase(value: &mut Value, sought: &[String]) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(erased) = erased(text, sought) {
                *text = erased;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| erase(item, sought)),
        Value::Object(map) => map.values_mut().for_each(|inner| erase(inner, sought)),
        _ => {}
    }
}

fn erased<'a>(text: &'a str, sought: &[impl AsRef<str>]) -> Cow<'a, str> {
    let mut text = Cow::Borrowed(text);
    for secret in sought {
        if text.contains(secret.as_ref()) {
            text = Cow::Owned(text.replace(secret.as_ref(), MASK));
        }
    }
    text
}

/// Masks what follows one of the phrases, up to the next quote or the end.
fn mask_phrases(message: &[u8]) -> Vec<u8> {
    let mut masked = Vec::with_capacity(message.len());
    let mut at = 0;
    while at < message.len() {
        let phrase = BEFORE_TOKEN
            .iter()
            .find(|phrase| message[at..].starts_with(phrase.as_bytes()));
        let Some(phrase) = phrase else {
            masked.push(message[at]);
            at += 1;
            continue;
        };
        masked.extend_from_slice(phrase.as_bytes());
        at += phrase.len();
        let rest = &message[at..];
        let length = rest
            .iter()
            .position(|byte| matches!(byte, b'\'' | b'"' | b'\n'))
            .unwrap_or(rest.len());
        if length > 0 {
            masked.extend_from_slice(MASK.as_bytes());
        }
        at += length;
    }
    masked
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    fn masked(line: Value) -> (Value, Fingerprints) {
        let Value::Object(mut line) = line else {
            panic!("an object");
        };
        let fingerprints = mask_line(&mut line);
        (Value::Object(line), fingerprints)
    }

    #[test]
    fn of_the_known_keys_only_the_token_is_a_secret() {
        let secrets = KNOWN_KEYS
            .into_iter()
            .filter(|key| is_secret_by_pattern(key));
        assert_eq!(secrets.collect::<Vec<_>>(), ["ShareToken"]);
    }

    #[test]
    fn a_link_removed_by_its_token_keeps_only_fingerprints() {
        let (created, of_creation) = masked(json!({
            "Action": "file_shared", "ShareType": "link", "ShareToken": "LbxuPJKsQbHVwYn", "ShareID": "",
            "Message": "user 'a' created a public link to file 'f' with id 'pZnNcDoBwGhTQxZ'"}));
        assert_eq!(created["ShareToken"], MASK);
        assert!(
            created["Message"]
                .as_str()
                .unwrap()
                .contains("pZnNcDoBwGhTQxZ")
        );

        let (removed, of_removal) = masked(json!({
            "Action": "file_unshared", "ShareType": "link", "ShareID": "LbxuPJKsQbHVwYn",
            "Message": "user 'a' removed public link with id:'LbxuPJKsQbHVwYn'"}));
        assert!(
            !removed.to_string().contains("LbxuPJKsQbHVwYn"),
            "{removed}"
        );
        assert_eq!(of_removal.link, of_creation.token);
    }

    #[test]
    fn a_new_link_has_the_fingerprint_of_the_id_in_its_message() {
        let print = |action: &str, kind: &str, message: &str| {
            let line = json!({"Action": action, "ShareType": kind, "ShareID": "",
                "ShareToken": "LbxuPJKsQbHVwYn", "Message": message});
            masked(line).1.link
        };
        let new = "user 'a' created a public link to file 'f' with id 'pZnNcDoBwGhTQxZ'";
        let wanted = Some(fingerprint("pZnNcDoBwGhTQxZ"));
        assert_eq!(print("file_shared", "link", new), wanted);
        assert_eq!(print("file_shared", "user", new), None);
        assert_eq!(print("share_updated", "link", new), None);
        for other in [
            "",
            "the user 'a' created a public link to file 'f' with id 'x'",
            "user 'a' created a public link to file 'f' with id 'x",
            "user 'a' created a public link to file 'f' with id 'x' ",
            "user 'a' created a public link to file 'f' with id ''",
            "user 'a' created a public link to file 'f' with id 'x' with id 'y'",
        ] {
            assert_eq!(print("file_shared", "link", other), None, "{other}");
        }
    }

    #[test]
    fn an_invitation_loses_token_link_and_recipient() {
        let (invite, _) = masked(json!({
            "Action": "science_mesh_invite_token_generated", "RecipientMail": "bob@other.example",
            "Token": "ab-1", "InviteLink": "https://c.example/accept-invite?token=ab-1",
            "Message": "user 'u' generated a ScienceMesh invite with token 'ab-1'"}));
        let shown = invite.to_string();
        assert!(
            !shown.contains("ab-1") && !shown.contains("bob@"),
            "{shown}"
        );
    }

    #[test]
    fn a_feature_that_is_a_secret_is_masked() {
        let (line, _) = masked(json!({"Features": [
            {"Name": "password", "Value": "x", "OldValue": "y"},
            {"Name": "email", "Value": "m@example.org", "OldValue": null}]}));
        assert_eq!(
            line["Features"][0],
            json!({"Name": "password", "Value": "***", "OldValue": "***"})
        );
        assert_eq!(line["Features"][1]["Value"], "m@example.org");
    }

    #[test]
    fn a_feature_that_is_a_secret_is_masked_in_the_message_too() {
        for secret in [json!("hunter2secret"), json!("x1"), json!(4711)] {
            let said = secret.as_str().map_or(secret.to_string(), str::to_owned);
            let (line, _) = masked(json!({
                "Message": format!("user 'a' changed user b's features:password={said} email=m@example.org "),
                "Features": [
                    {"Name": "password", "Value": secret, "OldValue": null},
                    {"Name": "email", "Value": "m@example.org", "OldValue": null}]}));
            let wanted = "user 'a' changed user b's features:password=*** email=m@example.org ";
            assert_eq!(line["Message"], wanted);
        }
    }

    #[test]
    fn a_name_that_speaks_of_tokens_stays() {
        let line = json!({"Action": "file_delete", "Path": "./my token 'notes'.txt",
            "Message": "user 'u' trashed file 's$t!n/my token 'notes'.txt'"});
        assert_eq!(masked(line.clone()).0, line);
    }

    #[test]
    fn cut_text_is_masked_to_its_end() {
        for (raw, wanted) in [
            ("link with token 'Lbx", "link with token '***"),
            ("link with token '' was", "link with token '' was"),
            (r#""ShareToken":"Lbx"#, r#""ShareToken":"***"#),
            (r#""RecipientMail":"b@o","#, r#""RecipientMail":"***","#),
        ] {
            assert_eq!(mask_letter(raw.as_bytes()), wanted.as_bytes());
        }
    }
}
