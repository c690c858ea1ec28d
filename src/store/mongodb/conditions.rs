//! A filter's conditions as queries. Its values are only ever compared, never interpreted: text becomes an escaped
//! pattern, and no operator comes from outside.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use jiff::Timestamp;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, RawBsonRef, RawDocument, Regex, doc};

use super::bson_date;
use crate::event::last_time;
use crate::store::{EventFilter, PageKey};

/// Fields of `EventFilter::text`.
const SEARCHED: [&str; 8] = [
    "action",
    "actor.id",
    "actor.email",
    "actor.name",
    "actor.ip",
    "target.type",
    "target.id",
    "target.name",
];

/// Before an id whose type is told with it.
const TYPED: &str = "bson:";

/// Levels of documents that an id may have.
const LEVELS: u8 = 8;

/// The filter's conditions on time alone.
pub(super) fn range_of(filter: &EventFilter) -> EventFilter {
    EventFilter {
        since: filter.since,
        until: filter.until,
        ..EventFilter::default()
    }
}

/// The filter's conditions in two where a page key ends them: for what is left of the key's own millisecond, and for what
/// is older. Of both an index that has one range of them tells where they begin, which it does not of the two together:
/// of a millisecond with many events each would be read again for each page.
pub(super) fn parted(filter: &EventFilter, before: Option<&PageKey>) -> Vec<Document> {
    let all = conditions(filter, None);
    let Some(before) = before else {
        return vec![all];
    };
    let mut own = all;
    if let Ok(at) = own.get_document_mut("at") {
        at.insert("$eq", bson_date(before.at));
    }
    let id = id_where(&before.id, has_few_levels);
    own.insert("$expr", doc! { "$lt": ["$_id", { "$literal": id }] });
    let until = filter.until.map_or(before.at, |until| until.min(before.at));
    let older = EventFilter {
        until: Some(until),
        ..filter.clone()
    };
    vec![own, conditions(&older, None)]
}

pub(super) fn conditions(filter: &EventFilter, before: Option<&PageKey>) -> Document {
    let mut query = Document::new();
    for (field, exact) in [
        ("source", &filter.source),
        ("tenantSlug", &filter.tenant),
        ("actor.ip", &filter.ip),
    ] {
        if let Some(exact) = exact {
            query.insert(field, exact);
        }
    }
    if let Some(outcome) = filter.outcome {
        query.insert("outcome", outcome.as_str());
    }
    if let Some(action) = &filter.action {
        match action.strip_suffix('*') {
            Some("") => {}
            // A range would be that of the collection's collation. A pattern knows none.
            Some(prefix) => {
                query.insert("action", pattern(&format!(r"\A{}", escape(prefix)), ""));
            }
            None => {
                query.insert("action", action);
            }
        }
    }

    // The bounds also keep out documents of others whose `at` is no date, or one that no timestamp can be.
    let mut at = doc! {
        "$gte": ceiling(filter.since.unwrap_or(Timestamp::MIN)),
        "$lte": bson_date(last_time()),
    };
    if let Some(until) = filter.until {
        at.insert("$lt", ceiling(until));
    }
    if let Some(before) = before {
        at.insert("$lte", bson_date(before.at));
        query.insert("$nor", already_seen("at", before));
    }
    query.insert("at", at);

    let mut all = Vec::new();
    if let Some(actor) = &filter.actor {
        let pattern = format!(r"\A{}\z", escape(actor));
        all.push(any_of(&["actor.id", "actor.email", "actor.name"], &pattern));
    }
    if let Some(target) = &filter.target {
        let pattern = format!(r"\A{}\z", escape(target));
        all.push(any_of(&["target.id", "target.name"], &pattern));
    }
    if let Some(text) = filter.text.as_deref().filter(|text| !text.is_empty()) {
        all.push(any_of(&SEARCHED, &escape(text)));
    }
    if !all.is_empty() {
        query.insert("$and", all);
    }
    query
}

/// What of the page key's own millisecond was on the page. Other than `$gte` by itself, this compares ids of any types, as
/// the sort does.
pub(super) fn already_seen(field: &str, before: &PageKey) -> [Document; 1] {
    let id = id_where(&before.id, has_few_levels);
    let seen = doc! { "$gte": ["$_id", { "$literal": id }] };
    [doc! { field: bson_date(before.at), "$expr": seen }]
}

/// An id as text. Daybook's own are object ids, those of others may be texts: both stand as they are, but for texts that
/// [`id_bson`] would take for something else. Of these and of all others the type is told too.
pub(super) fn id_text(id: &Bson) -> String {
    match id {
        Bson::ObjectId(id) => id.to_hex(),
        Bson::String(text) if id_bson(text) == *id => text.clone(),
        other => {
            let document = doc! { "": other }.to_vec().unwrap_or_default();
            format!("{TYPED}{}", BASE64.encode(document))
        }
    }
}

/// The id of which this is the [`id_text`], to be asked for.
pub(super) fn id_bson(text: &str) -> Bson {
    id_where(text, is_plain)
}

/// The same for those of an odd type of which a condition on them and their levels holds.
fn id_where(text: &str, condition: fn(RawBsonRef<'_>, u8) -> bool) -> Bson {
    let object_id = ObjectId::parse_str(text).map(Bson::ObjectId).ok();
    let id = object_id.or_else(|| typed_id(text, condition));
    id.filter(|id| id_text(id) == text)
        .unwrap_or_else(|| Bson::String(text.to_owned()))
}

fn typed_id(text: &str, condition: fn(RawBsonRef<'_>, u8) -> bool) -> Option<Bson> {
    let document = BASE64.decode(text.strip_prefix(TYPED)?).ok()?;
    let id = RawDocument::from_bytes(&document).ok()?.get("").ok()??;
    condition(id, LEVELS).then(|| Bson::try_from(id).ok())?
}

/// Whether a value has no more levels: it may come from anybody.
fn has_few_levels(value: RawBsonRef<'_>, levels: u8) -> bool {
    let inner = |value| levels > 0 && has_few_levels(value, levels - 1);
    match value {
        RawBsonRef::Document(fields) => fields
            .iter()
            .all(|field| field.is_ok_and(|(_, value)| inner(value))),
        RawBsonRef::Array(items) => items.into_iter().all(|item| item.is_ok_and(inner)),
        _ => true,
    }
}

/// Whether every query takes it for the value that it is, and it has no more levels: it may come from anybody.
fn is_plain(value: RawBsonRef<'_>, levels: u8) -> bool {
    match value {
        RawBsonRef::Document(fields) => fields.iter().all(|field| {
            field.is_ok_and(|(name, value)| {
                levels > 0 && !name.as_str().starts_with('$') && is_plain(value, levels - 1)
            })
        }),
        RawBsonRef::Array(_)
        | RawBsonRef::RegularExpression(_)
        | RawBsonRef::JavaScriptCodeWithScope(_)
        | RawBsonRef::Undefined => false,
        _ => true,
    }
}

fn any_of(fields: &[&str], text: &str) -> Document {
    let pattern = pattern(text, "i");
    let alternatives = fields.iter().map(|field| doc! { *field: pattern.clone() });
    doc! { "$or": alternatives.collect::<Vec<_>>() }
}

/// A pattern; with the option `i` in any case of letters.
pub(super) fn pattern(pattern: &str, options: &str) -> Bson {
    Bson::RegularExpression(Regex {
        pattern: pattern.try_into().expect("escape() leaves no NUL"),
        options: options.try_into().expect("a literal without NUL"),
    })
}

/// The text as a pattern that matches just it. Letters and digits of any script stand for
/// themselves, and whatever else is ASCII may be escaped.
pub(super) fn escape(text: &str) -> String {
    let mut pattern = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\0' => pattern.push_str(r"\x00"),
            '\n' => pattern.push_str(r"\n"),
            other => {
                if other.is_ascii() && !other.is_ascii_alphanumeric() && !other.is_ascii_control() {
                    pattern.push('\\');
                }
                pattern.push(other);
            }
        }
    }
    pattern
}

/// The first whole millisecond not before: stored dates have no finer part.
pub(super) fn ceiling(at: Timestamp) -> DateTime {
    let floor = at.as_nanosecond().div_euclid(1_000_000);
    let rest = i128::from(at.as_nanosecond().rem_euclid(1_000_000) != 0);
    DateTime::from_millis(i64::try_from(floor + rest).unwrap_or(i64::MAX))
}

#[cfg(test)]
mod tests {
    use mongodb::bson::Uuid;

    use super::*;

    #[test]
    fn a_pattern_is_only_its_text() {
        assert_eq!(escape("a.b*c\0é$"), r"a\.b\*c\x00é\$");
    }

    fn typed(id: Bson) -> String {
        let document = doc! { "": id }.to_vec().expect("a document");
        format!("{TYPED}{}", BASE64.encode(document))
    }

    #[test]
    fn an_id_is_read_back_from_its_text() {
        let object_id = ObjectId::from_bytes([0xab; 12]);
        let hex = object_id.to_hex();
        for text in ["", "7", "null", "bson:", "bson:7", &hex.to_uppercase()] {
            assert_eq!(id_text(&text.into()), text);
            assert_eq!(id_bson(text), Bson::from(text));
        }
        assert_eq!(id_text(&object_id.into()), hex);
        assert_eq!(id_bson(&hex), Bson::from(object_id));
        let alike = typed(hex.as_str().into());
        for id in [
            Bson::Null,
            Bson::Int32(7),
            Bson::Int64(7),
            Bson::Double(7.5),
            Bson::Boolean(true),
            DateTime::MAX.into(),
            Uuid::from_bytes([7; 16]).into(),
            doc! { "source": "ocis", "day": { "month": 7 } }.into(),
            // Texts that would be taken for others.
            hex.as_str().into(),
            alike.as_str().into(),
        ] {
            let text = id_text(&id);
            assert_eq!(text, typed(id.clone()));
            assert_eq!(id_bson(&text), id);
        }
    }

    #[test]
    fn an_id_of_anybody_is_no_more_than_a_value() {
        let deep = (0..100).fold(Bson::Null, |inner, _| doc! { "a": inner }.into());
        for other in [
            deep,
            Bson::Array(Vec::new()),
            doc! { "$ne": null }.into(),
            doc! { "a": { "$ne": 1 } }.into(),
            doc! { "a": [1] }.into(),
            pattern("", ""),
            Bson::Undefined,
            // Those that stand as they are.
            ObjectId::from_bytes([7; 12]).into(),
            "a text".into(),
        ] {
            let text = typed(other);
            assert_eq!(id_bson(&text), Bson::String(text));
        }
    }

    #[test]
    fn bounds_between_milliseconds_round_up() {
        let at = Timestamp::from_nanosecond(-1_500_001).unwrap_or_default();
        assert_eq!(ceiling(at).timestamp_millis(), -1);
        let whole = Timestamp::from_millisecond(7).unwrap_or_default();
        assert_eq!(ceiling(whole).timestamp_millis(), 7);
    }
}
