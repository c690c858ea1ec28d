//! Characters that cannot be seen, or change how what stands around them is seen: by them one name
//! passes for another.

/// Whether a character between two others is such a one.
pub fn is_hidden(before: Option<char>, character: char, after: Option<char>) -> bool {
    match character {
        // Joiners belong to emoji and to some scripts; within others they only hide.
        '\u{200c}' | '\u{200d}' => before.is_none_or(has_one_form),
        // Selectors choose a form of the emoji, ideograph or key before them; two choose nothing.
        '\u{fe00}'..='\u{fe0f}' => before.is_none_or(|before| match before {
            '0'..='9' | '#' | '*' => after != Some('\u{20e3}'),
            '©' | '®' => false,
            '\u{fe00}'..='\u{fe0f}' => true,
            other => has_one_form(other),
        }),
        '\u{180b}'..='\u{180d}' | '\u{180f}' => {
            !before.is_some_and(|before| ('\u{1807}'..='\u{18aa}').contains(&before))
        }
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{180e}' => true,
        '\u{17b4}' | '\u{17b5}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' => true,
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' => true,
        '\u{e0000}'..='\u{e0fff}' | '\u{e000}'..='\u{f8ff}' => true,
        '\u{f0000}'..='\u{10ffff}' => true,
        other => other.is_control(),
    }
}

/// Whether a character is of the Latin, Greek, Cyrillic or Armenian script or stands among them: no joiner
/// changes how these look.
fn has_one_form(character: char) -> bool {
    matches!(character, '\0'..='\u{58f}' | '\u{1e00}'..='\u{1fff}')
}

/// The characters of a text, each with whether it is hidden there.
pub fn told_apart(text: &str) -> impl Iterator<Item = (char, bool)> {
    let mut characters = text.chars().peekable();
    let mut before = None;
    std::iter::from_fn(move || {
        let character = characters.next()?;
        let hidden = is_hidden(before, character, characters.peek().copied());
        before = Some(character);
        Some((character, hidden))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hides(text: &str) -> bool {
        told_apart(text).any(|(_, is_hidden)| is_hidden)
    }

    #[test]
    fn joiners_and_selectors_hide_where_they_change_nothing() {
        for before in [
            "",
            "Rob",
            "René",
            "Zoë",
            "Zoe\u{308}",
            "Ἀθηνᾶ",
            "Việt",
            "Иван",
            "Արամ",
            "(",
            "7",
            "#",
        ] {
            for hidden in ['\u{200c}', '\u{200d}', '\u{fe00}', '\u{fe0e}', '\u{fe0f}'] {
                let text = format!("{before}{hidden}");
                assert!(hides(&text), "{}", text.escape_unicode());
            }
        }
    }

    #[test]
    fn joiners_and_selectors_with_a_purpose_stay() {
        for text in [
            "©\u{fe0f}",
            "®\u{fe0e}",
            "7\u{fe0f}\u{20e3}",
            "#\u{fe0f}\u{20e3}",
            "*\u{fe0f}\u{20e3}",
            "™\u{fe0f}",
            "❤\u{fe0f}\u{200d}🔥",
            "葛\u{fe00}",
            "می\u{200c}خواهد",
            "क्\u{200d}ष",
        ] {
            assert!(!hides(text), "{}", text.escape_unicode());
        }
    }
}
