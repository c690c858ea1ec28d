//! A payload as a tree that can be read, hostile text included.

use maud::{Markup, html};
use serde_json::{Map, Value};

use super::text::visible_in;

/// A payload may be 16 MiB; a page shows so many values and characters of it.
const MOST_VALUES: usize = 2_000;
const MOST_CHARACTERS: usize = 200_000;
const DEEPEST: usize = 40;

/// Lists deeper than this are indented no further: a phone has room for so many steps.
const INDENTED: usize = 6;

struct Room {
    values: usize,
    characters: usize,
    /// Whether something was too deep.
    is_cut: bool,
}

/// The tree.
pub(super) fn tree(payload: &Map<String, Value>) -> Markup {
    let mut room = Room {
        values: MOST_VALUES,
        characters: MOST_CHARACTERS,
        is_cut: false,
    };
    let tree = object(payload, 0, &mut room);
    html! {
        div.tree { (tree) }
        @if room.values == 0 || room.characters == 0 {
            p.hint { "This is the beginning of a long payload; all of it is in the JSON." }
        }
        @if room.is_cut {
            p.hint { "Values more than " (DEEPEST) " levels deep are left out; all of them are in the JSON." }
        }
    }
}

fn object(map: &Map<String, Value>, depth: usize, room: &mut Room) -> Markup {
    if map.is_empty() {
        return html! { span.null { "{}" } };
    }
    let mut rows = Vec::new();
    for (key, item) in map {
        if room.values == 0 || room.characters == 0 {
            break;
        }
        rows.push((text(key, room), value(item, depth, room)));
    }
    html! {
        dl class=[indent(depth)] { @for (key, value) in rows { div { dt { (key) } dd { (value) } } } }
    }
}

fn array(items: &[Value], depth: usize, room: &mut Room) -> Markup {
    if items.is_empty() {
        return html! { span.null { "[]" } };
    }
    let mut rows = Vec::new();
    for item in items {
        if room.values == 0 || room.characters == 0 {
            break;
        }
        rows.push(value(item, depth, room));
    }
    html! { ol class=[indent(depth)] { @for row in rows { li { (row) } } } }
}

fn value(value: &Value, depth: usize, room: &mut Room) -> Markup {
    room.values = room.values.saturating_sub(1);
    match value {
        Value::Null => html! { span.null { "null" } },
        Value::Bool(truth) => html! { span.word { (truth) } },
        Value::Number(number) => html! { span.number { (number) } },
        Value::String(string) if string.is_empty() => html! { span.null { "empty" } },
        Value::String(string) => html! { span.text { (text(string, room)) } },
        Value::Array(_) | Value::Object(_) if depth >= DEEPEST => {
            room.is_cut = true;
            html! { span.null { "…" } }
        }
        Value::Array(items) => array(items, depth + 1, room),
        Value::Object(map) => object(map, depth + 1, room),
    }
}

fn indent(depth: usize) -> Option<&'static str> {
    (depth > INDENTED).then_some("deep")
}

fn text(text: &str, room: &mut Room) -> Markup {
    visible_in(text, &mut room.characters)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_and_values_are_only_text() {
        let payload =
            json!({"<img src=x onerror=alert(1)>": ["</dd><script>1</script>", "\u{202e}"]});
        let shown = tree(payload.as_object().unwrap()).into_string();
        assert!(
            !shown.contains("<img") && !shown.contains("<script"),
            "{shown}"
        );
        assert!(
            !shown.contains('\u{202e}') && shown.contains("U+202E"),
            "{shown}"
        );
    }

    #[test]
    fn a_huge_payload_is_cut_and_says_so() {
        let wide = json!({"all": vec![json!("x"); 100_000]});
        let long = json!({"text": "y".repeat(1 << 20)});
        for payload in [wide, long] {
            let shown = tree(payload.as_object().unwrap()).into_string();
            assert!(shown.len() < 400_000, "{}", shown.len());
            assert!(shown.contains("beginning of a long payload"));
        }
    }

    #[test]
    fn a_deep_payload_is_cut_and_says_so() {
        let nested = |levels| (0..levels).fold(json!("x"), |inner, _| json!({ "in": [inner] }));
        let shown = |levels| tree(nested(levels).as_object().unwrap()).into_string();
        assert!(shown(100).contains("levels deep are left out"));
        assert!(shown(10).contains("<ol class=\"deep\">"));
        assert!(!shown(10).contains("left out"));
        assert!(!shown(3).contains("class=\"deep\""));
    }

    #[test]
    fn numbers_are_exact() {
        let payload: Value = serde_json::from_str(r#"{"n":12345678901234567890.10}"#).unwrap();
        let shown = tree(payload.as_object().unwrap()).into_string();
        assert!(shown.contains("12345678901234567890.10"), "{shown}");
    }
}
