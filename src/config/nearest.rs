//! The known word nearest to a mistyped one.

/// The candidate that few enough slips of the fingers turn into `word`, or that holds it whole.
pub(crate) fn nearest<'a>(word: &str, candidates: &[&'a str]) -> Option<&'a str> {
    let allowed = (word.chars().count() / 3).clamp(1, 3);
    let by_slips = candidates
        .iter()
        .map(|candidate| (slips(word, candidate), *candidate))
        .filter(|(slips, _)| *slips <= allowed)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate);
    by_slips.or_else(|| {
        let wordy = |candidate: &&&str| {
            word.len() >= 3 && candidate.split('_').any(|part| part == word)
                || candidate.len() >= 3 && word.split(['_', '-']).any(|part| part == **candidate)
        };
        candidates.iter().find(wordy).copied()
    })
}

/// Insertions, deletions, replacements and swaps of neighbours between two words, letters in any case.
fn slips(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut rows = vec![vec![0usize; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    for (j, cell) in rows[0].iter_mut().enumerate() {
        *cell = j;
    }
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn slips_are_recognised_and_strangers_are_not() {
        let keys = [
            "url",
            "timeout",
            "collections",
            "batch_events",
            "secret_files",
        ];
        let cases = [
            ("ulr", Some("url")),
            ("uri", Some("url")),
            ("timeuot", Some("timeout")),
            ("Timeout", Some("timeout")),
            ("collection", Some("collections")),
            ("secret_file", Some("secret_files")),
            ("batch", Some("batch_events")),
            ("store_url", Some("url")),
            ("password", None),
            ("x", None),
        ];
        for (word, near) in cases {
            assert_eq!(nearest(word, &keys), near, "{word}");
        }
    }
}
