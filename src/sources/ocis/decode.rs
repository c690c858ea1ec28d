//! One line of an OCIS or OpenCloud audit log becomes an event, a filtered read or dead letters.
//!
//! - The key of an event is where its record stands: `<file key>:<byte offset>`. Redelivered lines
//!   are byte-identical to real repeats, so no hash of the content could be a key.
//! - A full disk leaves a cut record with the next one glued on. Only a line that is no JSON as a
//!   whole is split, before each `{"RemoteAddr":`: within a valid record those bytes cannot stand,
//!   because quotes within its strings are escaped.
//! - `Time` is often missing or of something else; then the time of reading stands in, and
//!   `metadata.daybook.at` says so. What Daybook adds to the record stands under that one key.

use std::fmt::Write as _;

use bytes::Bytes;
use bytestring::ByteString;
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::masks::{Fingerprints, has_no_secret, mask_letter, mask_line, mask_scanned};
use super::record::{Record, ScannedLine, key};
use super::verbs::{self, Verb};
use crate::event::flat;
use crate::event::json;
use crate::event::{
    Actor, AuditEvent, DeadLetter, DeadLetterReason, Decoded, Outcome, Payload, SourceName,
    SpaceLesson, Target, TenantHints, parse_time, to_millis,
};
use crate::sources::text::{LetterContext, REMARKS, is_too_deep, json_trouble};

/// Every record begins so.
const RECORD_START: &[u8] = br#"{"RemoteAddr":"#;

/// Where a line was read.
pub struct LineContext<'a> {
    /// The source.
    pub source: &'a SourceName,
    /// The identity of the file, the first part of every key.
    pub file_key: &'a str,
    /// The byte offset of the line's first byte.
    pub offset: u64,
    /// When it was read.
    pub read_at: Timestamp,
    /// Whether actions that change nothing are events too.
    pub include_reads: bool,
}

/// Decodes one line, given without its `\n`; a `\r` at its end is ignored. A blank line is
/// left out, a glued one yields a result for each of its parts, in order.
pub fn decode_line(line: &[u8], ctx: &LineContext<'_>) -> Vec<Decoded> {
    let mut all = Vec::new();
    decode_each(&Bytes::copy_from_slice(line), ctx, |decoded| {
        all.push(decoded);
    });
    all
}

/// The same, handed over one after the other. Events of a plain line are parts of it.
pub fn decode_each(line: &Bytes, ctx: &LineContext<'_>, mut take: impl FnMut(Decoded)) {
    match decode_scanned(line, ctx) {
        Some(decoded) => take(decoded),
        None => decode_parsed(line, ctx).into_iter().for_each(take),
    }
}

/// The short way for a line as the services write it.
fn decode_scanned(line: &Bytes, ctx: &LineContext<'_>) -> Option<Decoded> {
    let line = flat::plain_text(line)?;
    let record = ScannedLine::scan(&line)?;
    let (action, message) = (
        record.string(key!("Action"))?,
        record.string(key!("Message"))?,
    );
    let verb = verbs::verb(&record, action);
    if verb.is_read && !ctx.include_reads {
        return Some(Decoded::Filtered);
    }
    let happened = time(&record, &verb);
    let acting_user = acting_user(&record, action, message);
    let hints = hints(&record, &verb, acting_user);
    let (kept, fingerprints) = if has_no_secret(&record) {
        (line.clone(), Fingerprints::default())
    } else {
        mask_scanned(&record)?
    };
    let target = if kept == line {
        target(&record, &verb, &fingerprints)
    } else {
        target(&ScannedLine::scan(&kept)?, &verb, &fingerprints)
    };
    let remarks = remarks(&verb, happened.is_none(), &fingerprints);
    let event = AuditEvent {
        at: to_millis(happened.unwrap_or(ctx.read_at)),
        source: ctx.source.clone(),
        external_id: external_id(ctx, 0),
        outcome: Some(outcome(&record)),
        target,
        action: verb.action,
        actor: Actor {
            id: acting_user.map(|user| record.keep(user)),
            ..Actor::default()
        },
        tenant_slug: None,
        metadata: Payload::flat(kept, flat_remarks(&remarks)),
    };
    Some(Decoded::Event(Box::new(event), hints))
}

fn external_id(ctx: &LineContext<'_>, shift: usize) -> String {
    // As long as it can get, so that it grows once.
    let mut id = String::with_capacity(ctx.file_key.len() + 21);
    id.push_str(ctx.file_key);
    // Writing into a string cannot fail.
    let _infallible = write!(id, ":{}", ctx.offset + shift as u64);
    id
}

fn outcome(line: &impl Record) -> Outcome {
    match line.flag(key!("Success")) {
        Some(false) => Outcome::Failure,
        _ => Outcome::Success,
    }
}

fn decode_parsed(line: &[u8], ctx: &LineContext<'_>) -> Vec<Decoded> {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    if line.iter().all(u8::is_ascii_whitespace) {
        return vec![Decoded::Filtered];
    }
    let whole = decode_record(line, 0, ctx);
    let Err(trouble) = whole else {
        return vec![whole.unwrap_or_else(|letter| Decoded::Dead(*letter))];
    };
    let starts = part_starts(line);
    if starts.len() < 2 {
        return vec![Decoded::Dead(*trouble)];
    }
    let ends = starts.iter().skip(1).copied().chain([line.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(start, end)| {
            decode_record(&line[*start..end], *start, ctx)
                .unwrap_or_else(|letter| Decoded::Dead(*letter))
        })
        .collect()
}

/// Where the parts of a glued line begin; the first is 0.
fn part_starts(line: &[u8]) -> Vec<usize> {
    let mut starts = vec![0];
    let mut at = 1;
    while at < line.len() {
        if line[at] == b'{' && line[at..].starts_with(RECORD_START) {
            starts.push(at);
            at += RECORD_START.len();
        } else {
            at += 1;
        }
    }
    starts
}

/// Decodes what should be exactly one record, `shift` bytes into the line.
fn decode_record(
    part: &[u8],
    shift: usize,
    ctx: &LineContext<'_>,
) -> Result<Decoded, Box<DeadLetter>> {
    let position = external_id(ctx, shift);
    let letters = LetterContext {
        source: ctx.source,
        at: ctx.read_at,
    };
    let refuse = |position: String, reason, detail: String| {
        Box::new(letters.letter(position, reason, detail, part, mask_letter))
    };
    let value = match json::from_slice(part) {
        Ok(value) => value,
        Err(error) => {
            let (reason, detail) = trouble(part, &error);
            return Err(refuse(position, reason, detail));
        }
    };
    let Value::Object(line) = value else {
        let detail = "JSON, but not an audit record (an object)".to_owned();
        return Err(refuse(position, DeadLetterReason::UnexpectedShape, detail));
    };
    let (Some(action), Some(message)) = (
        line.get("Action").and_then(Value::as_str),
        line.get("Message").and_then(Value::as_str),
    ) else {
        let detail = "an object without the texts Action and Message is no audit record; \
                      the audit file needs a path of its own (AUDIT_LOG_TO_FILE=true, AUDIT_FILEPATH) \
                      and AUDIT_FORMAT=json"
            .to_owned();
        return Err(refuse(position, DeadLetterReason::UnexpectedShape, detail));
    };
    let verb = verbs::verb(&line, action);
    if verb.is_read && !ctx.include_reads {
        return Ok(Decoded::Filtered);
    }
    let acting_user = acting_user(&line, action, message).map(ByteString::from);
    let (event, hints) = event(line, verb, acting_user, position, ctx);
    Ok(Decoded::Event(Box::new(event), hints))
}

/// What is wrong with text that is no JSON, and what to set.
fn trouble(part: &[u8], error: &serde_json::Error) -> (DeadLetterReason, String) {
    if is_too_deep(error) {
        return (DeadLetterReason::UnexpectedShape, json_trouble(error));
    }
    if let Err(utf8) = std::str::from_utf8(part) {
        // Bytes missing at the very end are a cut, not a wrong encoding.
        if utf8.error_len().is_some() {
            let detail = format!("bytes that are no UTF-8 at byte {}", utf8.valid_up_to());
            return (DeadLetterReason::InvalidUtf8, detail);
        }
    }
    if part.trim_ascii_start().first() == Some(&b'{') {
        return (
            DeadLetterReason::Malformed,
            format!(
                "a record that is cut off or damaged: {}",
                json_trouble(error)
            ),
        );
    }
    if looks_minimal(part) {
        let detail = "the minimal audit format, which lacks most fields; set AUDIT_FORMAT=json";
        return (DeadLetterReason::Malformed, detail.to_owned());
    }
    let detail = "not an audit record: console output, or the end of a cut record; \
                  set AUDIT_LOG_TO_FILE=true, AUDIT_LOG_TO_CONSOLE=false, AUDIT_FILEPATH and AUDIT_FORMAT=json";
    (DeadLetterReason::Malformed, detail.to_owned())
}

/// The minimal format writes `<action>)` and, on the next line, three blanks and the message.
pub(crate) fn looks_minimal(part: &[u8]) -> bool {
    if part.starts_with(b"   ") {
        return true;
    }
    part.strip_suffix(b")").is_some_and(|action| {
        action
            .iter()
            .all(|byte| byte.is_ascii_lowercase() || *byte == b'_')
    })
}

/// Who did it. `Message` is believed before `User`, which names a space's owner for new files.
fn acting_user<'a>(line: &'a impl Record, action: &str, message: &'a str) -> Option<&'a str> {
    let is_link_visit = action == "public_link_accessed";
    // The receiving side of a group share is written as if the group were a user.
    let is_group = line.text(key!("ShareType")) == Some("group")
        && !line.has(key!("ShareOwner"))
        && action != "file_shared";
    if is_link_visit || is_group {
        return None;
    }
    let named = message
        .strip_prefix("user '")
        .and_then(|rest| rest.split_once('\''))
        .map(|(user, _)| user)
        .filter(|user| !user.is_empty());
    let user = || line.text(key!("User")).filter(|_| action != "file_create");
    named.or_else(user)
}

fn event(
    mut line: Map<String, Value>,
    verb: Verb,
    acting_user: Option<ByteString>,
    external_id: String,
    ctx: &LineContext<'_>,
) -> (AuditEvent, TenantHints) {
    let hints = hints(&line, &verb, acting_user.as_deref());
    let happened = time(&line, &verb);
    let outcome = outcome(&line);
    let fingerprints = mask_line(&mut line);
    let target = target(&line, &verb, &fingerprints);
    remark(&mut line, remarks(&verb, happened.is_none(), &fingerprints));
    let event = AuditEvent {
        at: to_millis(happened.unwrap_or(ctx.read_at)),
        source: ctx.source.clone(),
        external_id,
        action: verb.action,
        outcome: Some(outcome),
        actor: Actor {
            id: acting_user,
            ..Actor::default()
        },
        target,
        tenant_slug: None,
        metadata: line.into(),
    };
    (event, hints)
}

/// When it happened, if the line tells. A visited link's `Time` is that of the link's creation.
fn time(line: &impl Record, verb: &Verb) -> Option<Timestamp> {
    let visited =
        verb.action == "ocis.public_link_accessed" && line.flag(key!("Success")) == Some(true);
    if visited {
        return None;
    }
    let at = parse_time(line.text(key!("Time"))?)?;
    // An unset time is written as the year 1.
    (at > Timestamp::UNIX_EPOCH).then_some(at)
}

/// What Daybook has to say of a record, by its keys, in their order; all plain text.
type Remarks<'a> = Vec<(&'static str, &'a str)>;

fn remarks<'a>(verb: &Verb, read_time: bool, prints: &'a Fingerprints) -> Remarks<'a> {
    let all = [
        ("action", verb.origin.mark()),
        ("at", read_time.then_some("read time")),
        ("link", prints.link.as_deref()),
        ("token", prints.token.as_deref()),
    ];
    let said = all.into_iter().filter_map(|(key, said)| Some((key, said?)));
    said.collect()
}

fn remark(line: &mut Map<String, Value>, remarks: Remarks<'_>) {
    if remarks.is_empty() {
        return;
    }
    let owned = |(key, said): (&str, &str)| (key.to_owned(), json!(said));
    let mut remarks: Map<String, Value> = remarks.into_iter().map(owned).collect();
    if let Some(original) = line.remove(REMARKS) {
        remarks.insert("original".to_owned(), original);
    }
    line.insert(REMARKS.to_owned(), Value::Object(remarks));
}

/// The same for a line that is kept as text, which has no key of that name.
fn flat_remarks(remarks: &Remarks<'_>) -> Option<(&'static str, String)> {
    let quoted = |(key, said): &(&str, &str)| format!("\"{key}\":\"{said}\"");
    let members: Vec<String> = remarks.iter().map(quoted).collect();
    (!members.is_empty()).then(|| (REMARKS, format!("{{{}}}", members.join(","))))
}

fn target(line: &impl Record, verb: &Verb, fingerprints: &Fingerprints) -> Target {
    let own = |key| line.text(key).map(|text| line.keep(text));
    let is_link = line.text(key!("ShareType")) == Some("link");
    let of = |kind, id, name| Target {
        kind: Some(ByteString::from_static(kind)),
        id,
        name,
    };
    let path = || own(key!("Path")).filter(|path| path != ".");
    let name = verb.action.strip_prefix("ocis.").unwrap_or(&verb.action);
    match name {
        "container_create" => of("folder", own(key!("FileID")), path()),
        "file_shared" if is_link => of("link", own(key!("FileID")), path()),
        "file_shared" => of("file", own(key!("FileID")), path()),
        "file_unshared" if is_link => {
            of("link", fingerprints.link.as_deref().map(Into::into), None)
        }
        "public_link_accessed" => of(
            "link",
            own(key!("ShareID")).or_else(|| own(key!("FileID"))),
            None,
        ),
        "science_mesh_invite_token_generated" => of(
            "invitation",
            None,
            line.rare_text("Description").map(|text| line.keep(text)),
        ),
        _ if name.starts_with("share_") || name == "file_unshared" => {
            let kind = if is_link { "link" } else { "share" };
            of(kind, own(key!("ShareID")), None)
        }
        _ if line.has(key!("FileID")) => of("file", own(key!("FileID")), path()),
        _ if line.has(key!("SpaceID")) => of(
            "space",
            line.text(key!("SpaceID")).map(|id| line.keep(space_of(id))),
            own(key!("NewName")).or_else(|| own(key!("Name"))),
        ),
        _ if line.has(key!("GroupID")) => of("group", own(key!("GroupID")), None),
        _ if line.has(key!("UserID")) => of("user", own(key!("UserID")), None),
        _ if line.has(key!("ShareID")) => of("share", own(key!("ShareID")), None),
        _ => Target::default(),
    }
}

/// The space within `storage$space!node`; without a storage id the text itself, up to the node.
fn space_of(id: &str) -> &str {
    let after_storage = id.split_once('$').map_or(id, |(_, space)| space);
    after_storage.split('!').next().unwrap_or(after_storage)
}

/// What the line tells about its tenant: the place first, then whose it is, then who acted.
fn hints(line: &impl Record, verb: &Verb, acting_user: Option<&str>) -> TenantHints {
    let mut hints = TenantHints::default();
    let add = |list: &mut Vec<ByteString>, item: &str| {
        if !item.is_empty() && !list.iter().any(|known| known == item) {
            list.push(line.keep(item));
        }
    };
    let mut space = |id: &str| add(&mut hints.spaces, id);
    if let Some(id) = line.text(key!("SpaceID")) {
        space(space_of(id));
    }
    if let Some(id) = line.text(key!("FileID")).filter(|id| id.contains('$')) {
        space(space_of(id));
    }
    if let Some(id) = line.text(key!("ShareID")) {
        let mut parts = id.split(':');
        if let (Some(_), Some(id), Some(_), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        {
            space(id);
        }
    }
    let mut subjects = Vec::new();
    for key in [key!("UserID"), key!("ShareOwner"), key!("Owner")] {
        if let Some(user) = line.text(key) {
            add(&mut subjects, user);
        }
    }
    if let Some(user) = acting_user {
        add(&mut subjects, user);
    }
    // For new files `User` is the space's owner or a manager of it: not the actor, but of the tenant.
    let is_group = line.text(key!("ShareType")) == Some("group");
    if let Some(user) = line
        .text(key!("User"))
        .filter(|_| !is_group || acting_user.is_some())
    {
        add(&mut subjects, user);
    }
    hints.subjects = subjects;
    hints.learn = lesson(line, verb, acting_user);
    hints
}

/// What a line about a space teaches. The name of a personal space is its user's display name, or
/// what the user chose instead, and anybody can choose any: it teaches nothing about a tenant. A
/// line that tells no type is known by the space's id, which is its user's.
fn lesson(line: &impl Record, verb: &Verb, acting_user: Option<&str>) -> Option<SpaceLesson> {
    let name = match &*verb.action {
        "ocis.space_created" | "ocis.space_updated" => line.text(key!("Name")),
        "ocis.space_renamed" => line.text(key!("NewName")),
        _ => return None,
    };
    let space = space_of(line.text(key!("SpaceID"))?);
    let alias = ["Opaque", "Opqaue"]
        .iter()
        .find_map(|key| line.inner_text(key, "spaceAlias"));
    let is_personal = line.text(key!("Type")) == Some("personal")
        || alias.is_some_and(|alias| alias.starts_with("personal/"))
        || acting_user == Some(space);
    // A project space is its own owner: no user.
    let owner = line
        .text(key!("Owner"))
        .filter(|owner| is_personal || *owner != space);
    Some(SpaceLesson {
        space: space.into(),
        owner: owner.map(Into::into),
        name: name.filter(|_| !is_personal).map(Into::into),
    })
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
