//! One event as a line of `daybook tail`.

use std::fmt::Write as _;

use anyhow::Context;
use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr as _;

use crate::event::Outcome;
use crate::store::StoredEvent;

use crate::cli::output::{escaped, visible};

/// How one event looks.
pub(super) struct Line {
    pub(super) json: bool,
    pub(super) color: bool,
    /// Whether a cell may be cut: on a terminal, never in a pipe.
    pub(super) cut: bool,
    /// How long the whole line may be.
    pub(super) columns: Option<usize>,
    pub(super) zone: TimeZone,
}

/// Time, tenant, source, outcome, action, actor: how wide they are. The target and the address after
/// them are as wide as they have to be.
const WIDTHS: [usize; 6] = [19, 10, 10, 7, 28, 30];
const LAST_WIDTH: usize = 60;
/// With fewer columns there is no room for all of them.
const ROOMY: usize = 140;

impl Line {
    pub(super) fn write(
        &self,
        event: &StoredEvent,
        text: &mut String,
    ) -> Result<(), anyhow::Error> {
        if self.json {
            let json = serde_json::to_string(event).context("an event as JSON")?;
            text.push_str(&escaped(&json, |_| false));
            text.push('\n');
            return Ok(());
        }
        let at = event.at.to_zoned(self.zone.clone());
        let (actor, target) = (&event.actor, &event.target);
        let who = actor
            .email
            .as_ref()
            .or(actor.name.as_ref())
            .or(actor.id.as_ref());
        let what = target.name.as_ref().or(target.id.as_ref());
        let mut last = String::new();
        if let Some(what) = what {
            match &target.kind {
                Some(kind) => last = format!("{} {}", visible(kind), visible(what)),
                None => last = visible(what),
            }
        }
        let outcome = event.outcome.map_or("-", |outcome| outcome.as_str());
        let cells = [
            at.strftime("%Y-%m-%d %H:%M:%S").to_string(),
            visible(event.tenant_slug.as_deref().unwrap_or("-")),
            visible(&event.source),
            outcome.to_owned(),
            visible(&event.action),
            visible(who.map_or("-", |who| who)),
        ];
        let outcome_color = match event.outcome {
            Some(Outcome::Success) => "32",
            Some(Outcome::Failure) => "31",
            Some(Outcome::Unknown) => "33",
            None => "2",
        };
        let colors = ["2", "35", "34", outcome_color, "1", "36"];
        let mut room = self.columns.unwrap_or(usize::MAX);
        for ((cell, width), color) in cells.iter().zip(self.widths()).zip(colors) {
            if width == 0 {
                continue;
            }
            let cell = self.fitted(cell, width.min(room));
            let padding = width.saturating_sub(cell.width()) + 1;
            self.colored(&cell, color, text);
            text.extend(std::iter::repeat_n(' ', padding));
            room = room.saturating_sub(width + 1);
        }
        let last = self.fitted(&last, LAST_WIDTH.min(room));
        text.push_str(&last);
        if let Some(ip) = &actor.ip {
            if !last.is_empty() {
                text.push(' ');
                room = room.saturating_sub(last.width() + 1);
            }
            let from = self.fitted(&format!("from {}", visible(ip)), LAST_WIDTH.min(room));
            self.colored(&from, "2", text);
        }
        text.truncate(text.trim_end_matches(' ').len());
        text.push('\n');
        Ok(())
    }

    /// On a narrow terminal the source, which most actions begin with, makes room for who did what,
    /// and those two share what is left.
    fn widths(&self) -> [usize; 6] {
        let Some(columns) = self.columns.filter(|columns| *columns < ROOMY) else {
            return WIDTHS;
        };
        let [time, tenant, _, outcome, action, actor] = WIDTHS;
        let blanks = 4;
        let room = columns.saturating_sub(time + outcome + blanks);
        let tenant = tenant.min(room / 5);
        let half = (room - tenant) / 2;
        [time, tenant, 0, outcome, action.min(half), actor.min(half)]
    }

    /// Cut to a width, with an ellipsis, where cells may be cut.
    fn fitted(&self, cell: &str, width: usize) -> String {
        if !self.cut || cell.width() <= width {
            return cell.to_owned();
        }
        if width == 0 {
            return String::new();
        }
        let ends: Vec<usize> = cell.char_indices().map(|(end, _)| end).collect();
        // As a string: a selector after a character widens it. The ellipsis takes a column.
        let fitting = ends.partition_point(|end| cell[..*end].width() < width);
        let end = ends[fitting.saturating_sub(1)];
        format!("{}…", &cell[..end])
    }

    fn colored(&self, cell: &str, color: &str, text: &mut String) {
        if self.color && !cell.is_empty() {
            let _infallible = write!(text, "\u{1b}[{color}m{cell}\u{1b}[0m");
        } else {
            text.push_str(cell);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::event::hidden::told_apart;
    use crate::event::{Actor, Target};

    fn event(name: &str) -> StoredEvent {
        StoredEvent {
            id: "1".to_owned(),
            at: Timestamp::UNIX_EPOCH,
            ingested_at: Timestamp::UNIX_EPOCH,
            source: "stalwart".to_owned(),
            external_id: "x".to_owned(),
            action: "stalwart.auth_failed".to_owned(),
            outcome: Some(Outcome::Failure),
            actor: Actor {
                name: Some(name.into()),
                ip: Some("192.0.2.1".into()),
                ..Actor::default()
            },
            target: Target {
                kind: Some("account".into()),
                name: Some(name.into()),
                id: None,
            },
            tenant_slug: None,
            metadata: serde_json::Map::new(),
        }
    }

    fn line(json: bool, color: bool, cut: bool) -> Line {
        Line {
            json,
            color,
            cut,
            columns: None,
            zone: TimeZone::UTC,
        }
    }

    fn shown(line: &Line, name: &str) -> String {
        let mut text = String::new();
        line.write(&event(name), &mut text).unwrap();
        text
    }

    const HOSTILE: &[&str] = &[
        "a\u{1b}[31mred",
        "a\rb",
        "a\nb",
        "\u{9b}2J",
        "\u{202e}txt.exe",
        "\u{7}\u{8}",
        "e\u{200b}vil",
        "<script>alert(1)</script>",
        "=1+1",
        "\u{e0041}tag",
        "a\u{e0100}\u{e01ef}b",
        "\u{2066}iso\u{2069}",
        "ad\u{34f}min\u{3164}",
    ];

    /// Two columns each, the last three only together: a heart, a keycap, a flag.
    const WIDE: &[&str] = &[
        "长",
        "\u{2764}\u{fe0f}",
        "1\u{fe0f}\u{20e3}",
        "\u{1f1e9}\u{1f1ea}",
    ];

    #[test]
    fn a_line_fits_the_terminal() {
        for columns in 1..200 {
            let line = Line {
                columns: Some(columns),
                ..line(false, false, true)
            };
            for character in WIDE {
                let text = shown(&line, &character.repeat(200));
                let text = text.trim_end_matches('\n');
                assert!(text.width() <= columns, "{columns}: {text}");
                let wanted = columns >= 60;
                assert!(!wanted || text.contains("failure stalwart.au"), "{text}");
            }
        }
    }

    #[test]
    fn nothing_hostile_acts_on_the_terminal() {
        for name in HOSTILE {
            for json in [false, true] {
                let text = shown(&line(json, false, true), name);
                assert_eq!(text.matches('\n').count(), 1, "{text:?}");
                let bare = text.trim_end_matches('\n');
                assert!(
                    !told_apart(bare).any(|(_, is_hidden)| is_hidden),
                    "{text:?}"
                );
            }
            let json = shown(&line(true, false, true), name);
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(read["actor"]["name"], **name);
        }
    }

    #[test]
    fn columns_stand_under_each_other_and_cells_are_cut_on_a_terminal_only() {
        let long = "长".repeat(2000);
        let cut = shown(&line(false, false, true), &long);
        assert!(cut.width() < 250, "{cut}");
        assert!(shown(&line(false, false, false), &long).contains(&long));
        let place = |text: &str| text.find("account").map(|at| text[..at].width());
        assert_eq!(place(&cut), place(&shown(&line(false, false, true), "bob")));
    }

    #[test]
    fn an_outcome_has_its_colour() {
        for (outcome, wanted) in [
            (Some(Outcome::Success), "\u{1b}[32msuccess\u{1b}[0m"),
            (Some(Outcome::Failure), "\u{1b}[31mfailure\u{1b}[0m"),
            (Some(Outcome::Unknown), "\u{1b}[33munknown\u{1b}[0m"),
            (None, "\u{1b}[2m-\u{1b}[0m"),
        ] {
            let event = StoredEvent {
                outcome,
                ..event("bob")
            };
            let mut text = String::new();
            line(false, true, true).write(&event, &mut text).unwrap();
            assert!(text.contains(wanted), "{text:?}");
            text.clear();
            line(false, false, true).write(&event, &mut text).unwrap();
            assert!(!text.contains('\u{1b}'), "{text:?}");
        }
    }
}
