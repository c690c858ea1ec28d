//! A filter's conditions as queries. Its values are only ever compared, never interpreted: text becomes an escaped
//! pattern, and no operator comes from outside.

use jiff::Timestamp;
use mongodb::bson::oid::ObjectId;
use mongodb::bson::{Bson, DateTime, Document, Regex, doc};

use super::bson_date;
use crate::store::keys::first_behind;
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

/// The filter's conditions on time alone.
pub(super) fn range_of(filter: &EventFilter) -> EventFilter {
    EventFilter {
        since: filter.since,
        until: filter.until,
        ..EventFilter::default()
    }
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
            Some(prefix) => {
                let mut range = doc! { "$gte": prefix };
                if let Some(behind) = first_behind(prefix) {
                    range.insert("$lt", behind);
                }
                query.insert("action", range);
            }
            None => {
                query.insert("action", action);
            }
        }
    }

    // The lower bound also keeps out documents of others whose `at` is no date.
    let mut at = doc! { "$gte": filter.since.map_or(DateTime::MIN, ceiling) };
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

/// What of the page key's own millisecond was on the page. `_id`s of one type compare by value; in
/// the sort, texts come after object ids.
pub(super) fn already_seen(field: &str, before: &PageKey) -> Vec<Document> {
    let at = bson_date(before.at);
    let id = id_bson(&before.id);
    let mut seen = vec![doc! { field: at, "_id": { "$gte": &id } }];
    if !matches!(id, Bson::ObjectId(_)) {
        seen.push(doc! { field: at, "_id": { "$type": "objectId" } });
    }
    seen
}

/// An event's id as it is stored: Daybook's own are object ids, those of others may be texts.
pub(super) fn id_bson(id: &str) -> Bson {
    let canonical = |oid: &ObjectId| oid.to_hex() == id;
    match ObjectId::parse_str(id).ok().filter(canonical) {
        Some(oid) => Bson::ObjectId(oid),
        None => Bson::String(id.to_owned()),
    }
}

fn any_of(fields: &[&str], text: &str) -> Document {
    let pattern = pattern(text);
    let alternatives = fields.iter().map(|field| doc! { *field: pattern.clone() });
    doc! { "$or": alternatives.collect::<Vec<_>>() }
}

/// A pattern that matches in any case of letters.
pub(super) fn pattern(pattern: &str) -> Bson {
    Bson::RegularExpression(Regex {
        pattern: pattern.try_into().expect("escape() leaves no NUL"),
        options: "i".try_into().expect("a literal without NUL"),
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
    use super::*;

    #[test]
    fn a_pattern_is_only_its_text() {
        assert_eq!(escape("a.b*c\0é$"), r"a\.b\*c\x00é\$");
    }

    #[test]
    fn bounds_between_milliseconds_round_up() {
        let at = Timestamp::from_nanosecond(-1_500_001).unwrap_or_default();
        assert_eq!(ceiling(at).timestamp_millis(), -1);
        let whole = Timestamp::from_millisecond(7).unwrap_or_default();
        assert_eq!(ceiling(whole).timestamp_millis(), 7);
    }
}
