//! RFC 4180: CRLF, quotes where needed, a header. A cell that a spreadsheet would take for a
//! formula gets an apostrophe in front, which spreadsheets show as text.

use std::borrow::Cow;

use bytestring::ByteString;
use csv::{QuoteStyle, Terminator, WriterBuilder};

use crate::store::StoredEvent;

const COLUMNS: [&str; 16] = [
    "at",
    "id",
    "ingestedAt",
    "source",
    "externalId",
    "action",
    "outcome",
    "actor.id",
    "actor.email",
    "actor.name",
    "actor.ip",
    "target.type",
    "target.id",
    "target.name",
    "tenantSlug",
    "metadata",
];

pub(super) fn head() -> Vec<u8> {
    let mut out = Vec::new();
    row(COLUMNS.map(Cow::Borrowed), &mut out);
    out
}

fn text(text: &Option<ByteString>) -> Cow<'_, str> {
    Cow::Borrowed(text.as_deref().unwrap_or_default())
}

pub(super) fn write(event: &StoredEvent, out: &mut Vec<u8>) {
    let metadata = serde_json::to_string(&event.metadata).unwrap_or_default();
    let (actor, target) = (&event.actor, &event.target);
    let cells: [Cow<'_, str>; COLUMNS.len()] = [
        Cow::Owned(event.at.to_string()),
        Cow::Borrowed(&event.id),
        Cow::Owned(event.ingested_at.to_string()),
        Cow::Borrowed(&event.source),
        Cow::Borrowed(&event.external_id),
        Cow::Borrowed(&event.action),
        Cow::Borrowed(event.outcome.map_or("", |outcome| outcome.as_str())),
        text(&actor.id),
        text(&actor.email),
        text(&actor.name),
        text(&actor.ip),
        text(&target.kind),
        text(&target.id),
        text(&target.name),
        Cow::Borrowed(event.tenant_slug.as_deref().unwrap_or_default()),
        Cow::Owned(metadata),
    ];
    row(cells.map(defused), out);
}

fn row(cells: [Cow<'_, str>; COLUMNS.len()], out: &mut Vec<u8>) {
    // Spreadsheets separate cells by these where decimals have a comma. Some then take a line that is
    // quoted throughout for one cell.
    let quote_style = if cells.iter().any(|cell| cell.contains([';', '\t'])) {
        QuoteStyle::Always
    } else {
        QuoteStyle::Necessary
    };
    let mut writer = WriterBuilder::new()
        .terminator(Terminator::CRLF)
        .quote_style(quote_style)
        .from_writer(out);
    // Into memory, and each row has as many cells as the first: neither can fail.
    let _infallible = writer.write_record(cells.iter().map(|cell| cell.as_bytes()));
    let _infallible = writer.flush();
}

/// Spreadsheets take a cell for a formula by its first character, the full-width forms too; some pass
/// over what cannot be seen before it.
fn defused(cell: Cow<'_, str>) -> Cow<'_, str> {
    let is_unseen = |character: char| character.is_control() || character.is_whitespace();
    let begins_formula = cell.trim_start_matches(is_unseen).starts_with([
        '=', '+', '-', '@', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}',
    ]);
    if begins_formula || cell.starts_with(char::is_control) {
        Cow::Owned(format!("'{cell}"))
    } else {
        cell
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formulas_are_text() {
        for cell in [
            "=1+1",
            "+1",
            "-1",
            "@SUM(A1)",
            "\t=1",
            "\r=1",
            "\n",
            "\0=1",
            "\0",
            " =1",
            "\u{a0}\t+1",
            "\u{ff1d}1",
            "\u{ff0b}1",
            "\u{ff0d}1",
            "\u{ff20}1",
        ] {
            assert_eq!(defused(Cow::Borrowed(cell)), format!("'{cell}"));
        }
        for cell in ["a=1", " a=1", "a\0=1", " ", ""] {
            assert_eq!(defused(Cow::Borrowed(cell)), cell);
        }
    }

    #[test]
    fn a_cell_with_any_separator_is_quoted() {
        for (cell, written) in [
            ("x;=HYPERLINK(1)", ",\"x;=HYPERLINK(1)\","),
            ("x\t=1", ",\"x\t=1\","),
            ("x,1", ",\"x,1\","),
            ("say \"hi\"; no", ",\"say \"\"hi\"\"; no\","),
            ("x=1", ",x=1,"),
        ] {
            let mut cells = COLUMNS.map(|_| Cow::Borrowed(""));
            cells[9] = Cow::Borrowed(cell);
            let mut out = Vec::new();
            row(cells, &mut out);
            let text = String::from_utf8_lossy(&out);
            assert!(text.contains(written), "{text}");
        }
    }

    #[test]
    fn the_head_is_a_row() {
        assert!(
            head().starts_with(b"at,id,ingestedAt,source,") && head().ends_with(b"metadata\r\n")
        );
    }
}
