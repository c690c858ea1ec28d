//! Text that somebody else wrote, shown so that it cannot lie about itself: what has no shape of
//! its own, or turns the order of what stands around it, becomes a chip with its name.

use maud::{Markup, html};

use crate::event::hidden::is_hidden;

/// How spaces come out where a text is shown.
#[derive(Clone, Copy, PartialEq)]
enum Spaces {
    /// Several as one.
    Joined,
    /// Each.
    Kept,
}

/// Shows a text in at most `limit` characters; what is left out is an ellipsis.
pub(super) fn visible(text: &str, mut limit: usize) -> Markup {
    shown(text, &mut limit, Spaces::Joined)
}

/// The same, in what others have left of a room, and where the style keeps spaces.
pub(super) fn visible_in(text: &str, room: &mut usize) -> Markup {
    shown(text, room, Spaces::Kept)
}

fn shown(text: &str, room: &mut usize, spaces: Spaces) -> Markup {
    let (pieces, is_whole) = clipped(text, room, spaces);
    html! {
        bdi {
            @for piece in &pieces {
                @match piece {
                    Piece::Plain(text) => (text),
                    Piece::Hidden(hidden) => span.chip title=(name(*hidden)) { (symbol(*hidden)) },
                }
            }
            @if !is_whole { span.clipped title="shortened" { "…" } }
        }
    }
}

/// The same as plain text, for titles and labels.
pub(super) fn visible_plain(text: &str, mut limit: usize) -> String {
    let mut plain = String::new();
    let (pieces, is_whole) = clipped(text, &mut limit, Spaces::Joined);
    for piece in pieces {
        match piece {
            Piece::Plain(text) => plain.push_str(text),
            Piece::Hidden(hidden) => plain.push_str(&symbol(hidden)),
        }
    }
    if !is_whole {
        plain.push('…');
    }
    plain
}

#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Plain(&'a str),
    Hidden(char),
}

impl Piece<'_> {
    /// In characters, as it is shown.
    fn length(&self) -> usize {
        match self {
            Self::Plain(text) => text.chars().count(),
            Self::Hidden(hidden) => symbol(*hidden).len(),
        }
    }
}

/// As much of a text as there is room for, and whether that is all of it.
fn clipped<'a>(text: &'a str, room: &mut usize, spaces: Spaces) -> (Vec<Piece<'a>>, bool) {
    let mut kept = Vec::new();
    let start = beginning(text, *room);
    for piece in pieces(start, spaces) {
        let length = piece.length();
        if length > *room {
            if let Piece::Plain(text) = piece {
                kept.push(Piece::Plain(beginning(text, *room)));
            }
            *room = 0;
            return (kept, false);
        }
        *room -= length;
        kept.push(piece);
    }
    (kept, start.len() == text.len())
}

/// At most so many characters.
fn beginning(text: &str, characters: usize) -> &str {
    let end = text.char_indices().nth(characters);
    end.map_or(text, |(end, _)| &text[..end])
}

fn pieces(text: &str, spaces: Spaces) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut plain_from = 0;
    let mut before = None;
    let mut characters = text.char_indices().peekable();
    while let Some((at, character)) = characters.next() {
        let after = characters.peek().map(|(_, after)| *after);
        let is_lost = before.is_none_or(|before| spaces == Spaces::Joined && is_blank(before));
        // Nobody sees how far a text reaches.
        let is_named = is_blank(character) && (is_lost || after.is_none());
        if is_named || is_hidden(before, character, after) {
            if plain_from < at {
                pieces.push(Piece::Plain(&text[plain_from..at]));
            }
            pieces.push(Piece::Hidden(character));
            plain_from = at + character.len_utf8();
        }
        before = Some(character);
    }
    if plain_from < text.len() {
        pieces.push(Piece::Plain(&text[plain_from..]));
    }
    pieces
}

/// Whether it takes room and shows nothing.
fn is_blank(character: char) -> bool {
    character.is_whitespace() || character == '\u{2800}'
}

/// What the control characters are called for short, from U+0000 on.
const CONTROLS: [&str; 32] = [
    "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS", "TAB", "LF", "VT", "FF", "CR",
    "SO", "SI", "DLE", "DC1", "DC2", "DC3", "DC4", "NAK", "SYN", "ETB", "CAN", "EM", "SUB", "ESC",
    "FS", "GS", "RS", "US",
];

/// Letters rather than the control pictures, which many fonts lack.
fn symbol(hidden: char) -> String {
    let short = CONTROLS.get(hidden as usize).copied();
    let short = short.or(match hidden {
        ' ' => Some("SP"),
        '\u{7f}' => Some("DEL"),
        _ => None,
    });
    short.map_or_else(|| code(hidden), str::to_owned)
}

fn code(character: char) -> String {
    format!("U+{:04X}", character as u32)
}

fn name(hidden: char) -> String {
    let words = match hidden {
        '\0' => "null",
        '\t' => "tab",
        '\n' => "line feed",
        '\r' => "carriage return",
        '\u{1b}' => "escape",
        ' ' | '\u{2000}'..='\u{200a}' | '\u{202f}' | '\u{205f}' => "space",
        '\u{a0}' => "no-break space",
        '\u{ad}' => "soft hyphen",
        '\u{200b}' => "zero width space",
        '\u{200c}' => "zero width non-joiner",
        '\u{200d}' => "zero width joiner",
        '\u{200e}' => "left-to-right mark",
        '\u{200f}' => "right-to-left mark",
        '\u{61c}' => "Arabic letter mark",
        '\u{202a}' => "left-to-right embedding",
        '\u{202b}' => "right-to-left embedding",
        '\u{202c}' => "pop directional formatting",
        '\u{202d}' => "left-to-right override",
        '\u{202e}' => "right-to-left override",
        '\u{2066}' => "left-to-right isolate",
        '\u{2067}' => "right-to-left isolate",
        '\u{2068}' => "first strong isolate",
        '\u{2069}' => "pop directional isolate",
        '\u{2800}' => "blank Braille pattern",
        '\u{3000}' => "ideographic space",
        '\u{fe00}'..='\u{fe0f}' | '\u{180b}'..='\u{180d}' | '\u{180f}' => "variation selector",
        '\u{e0100}'..='\u{e01ef}' => "variation selector",
        '\u{feff}' => "byte order mark",
        control if control.is_control() => "control character",
        _ => "invisible character",
    };
    format!("{} {words}", code(hidden))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_text() {
        let shown = visible("<script>alert(1)</script> & \"x\"", 100).into_string();
        assert!(!shown.contains("<script"), "{shown}");
        assert!(
            shown.contains("&lt;script&gt;alert(1)&lt;/script&gt; &amp;"),
            "{shown}"
        );
    }

    #[test]
    fn nothing_turns_or_hides_text() {
        let shown = visible("invoice\u{202e}fdp.exe\0\u{200b}", 100).into_string();
        for hidden in ['\u{202e}', '\0', '\u{200b}'] {
            assert!(!shown.contains(hidden), "{shown:?}");
        }
        assert!(shown.contains("U+202E right-to-left override"), "{shown}");
        assert!(
            shown.contains(">NUL<") && shown.contains("U+200B"),
            "{shown}"
        );
        assert_eq!(visible_plain("a\nb\u{2066}c", 11), "aLFbU+2066c");
    }

    #[test]
    fn what_people_write_stays() {
        for text in [
            "Zoë Ångström",
            "👩‍💻 at work",
            "مریم می‌خواهد",
            "名前",
            "e\u{301}",
            "a\u{a0}b\u{3000}c",
            "❤\u{fe0f}\u{200d}🔥 1\u{fe0f}\u{20e3}",
            "\u{182d}\u{180b}",
        ] {
            assert_eq!(pieces(text, Spaces::Joined), [Piece::Plain(text)], "{text}");
        }
        assert_eq!(visible_plain("ad\u{200d}min", 11), "adU+200Dmin");
    }

    #[test]
    fn spaces_that_nobody_could_see_are_named() {
        for (text, shown) in [
            ("admin ", "adminSP"),
            (" admin", "SPadmin"),
            ("ad min", "ad min"),
            ("ad  min", "ad SPmin"),
            ("ad \u{2003}min", "ad U+2003min"),
            ("\u{a0}\u{2003}", "U+00A0U+2003"),
            ("\u{2800}", "U+2800"),
            ("\u{3000}", "U+3000"),
            ("   ", "SPSPSP"),
        ] {
            assert_eq!(visible_plain(text, 12), shown, "{text:?}");
        }
        // Where each has its width, only its ends are lost.
        let shown = visible_in("if a:\n    b  ", &mut 20).into_string();
        assert!(shown.contains(">LF</span>    b <span"), "{shown}");
        assert_eq!(shown.matches(">SP<").count(), 1, "{shown}");
    }

    #[test]
    fn selectors_and_fillers_that_hide_are_named() {
        for hidden in [
            '\u{180b}',
            '\u{17b5}',
            '\u{1d173}',
            '\u{fe00}',
            '\u{fe0f}',
            '\u{e0100}',
        ] {
            let shown = visible_plain(&format!("a{hidden}b"), 9);
            assert_eq!(shown, format!("a{}b", code(hidden)));
        }
        assert_eq!(visible_plain("❤\u{fe0f}\u{fe0f}", 9), "❤\u{fe0f}U+FE0F");
    }

    #[test]
    fn long_text_is_shortened_by_characters() {
        assert_eq!(visible_plain(&"ü".repeat(2000), 3), "üüü…");
        assert_eq!(visible_plain("üüü", 3), "üüü");
        let shown = visible(&"<".repeat(2000), 5).into_string();
        assert_eq!(shown.matches("&lt;").count(), 5);
    }

    #[test]
    fn what_hides_takes_as_much_room_as_it_is_shown_with() {
        let hidden = "\u{202e}".repeat(80);
        assert_eq!(visible_plain(&hidden, 80), "U+202E".repeat(13) + "…");
        let shown = visible(&hidden, 80).into_string();
        assert_eq!(shown.matches("class=\"chip\"").count(), 13);
        assert_eq!(visible_plain("\0abc", 6), "NULabc");
        assert_eq!(visible_plain("\0abc", 5), "NULab…");
    }
}
