//! Characters that cannot be seen, or change how what stands around them is seen: by them one name
//! passes for another.

/// Whether a character between two others is such a one.
pub fn is_hidden(before: Option<char>, character: char, after: Option<char>) -> bool {
    match character {
        // Joiners belong to emoji and to some scripts; within Latin text they only hide.
        '\u{200c}' | '\u{200d}' => before.is_none_or(|before| before.is_ascii()),
        // Selectors choose a form of the emoji, ideograph or key before them; two choose nothing.
        '\u{fe00}'..='\u{fe0f}' => before.is_none_or(|before| {
            let is_key = after == Some('\u{20e3}');
            (before.is_ascii() && !is_key) || ('\u{fe00}'..='\u{fe0f}').contains(&before)
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
