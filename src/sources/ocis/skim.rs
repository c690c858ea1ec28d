//! Whether a line is a read, for the many lines of which nobody wants to know more.
//!
//! It is [`ScannedLine`](super::record::ScannedLine) without anything to keep: the same lines pass, and the
//! tests hold both equal. Keys are not looked up but compared with the one that is expected next, and
//! the scan ends at an action that is none.

use super::verbs::READS;
use crate::event::flat;

/// The keys that a scanned line may have, quoted and with their colon, in the order of
/// [`KNOWN_KEYS`](super::record::KNOWN_KEYS).
const QUOTED: [&[u8]; 37] = [
    b"\"RemoteAddr\":",
    b"\"User\":",
    b"\"URL\":",
    b"\"Method\":",
    b"\"UserAgent\":",
    b"\"Time\":",
    b"\"App\":",
    b"\"Message\":",
    b"\"Action\":",
    b"\"CLI\":",
    b"\"Level\":",
    b"\"FileID\":",
    b"\"Owner\":",
    b"\"Path\":",
    b"\"OldPath\":",
    b"\"Key\":",
    b"\"Tags\":",
    b"\"ShareID\":",
    b"\"ItemType\":",
    b"\"ExpirationDate\":",
    b"\"SharePass\":",
    b"\"Permissions\":",
    b"\"ShareType\":",
    b"\"ShareWith\":",
    b"\"ShareOwner\":",
    b"\"ShareToken\":",
    b"\"Success\":",
    b"\"SpaceID\":",
    b"\"RootItem\":",
    b"\"Name\":",
    b"\"Type\":",
    b"\"NewName\":",
    b"\"GranteeUserID\":",
    b"\"GranteeGroupID\":",
    b"\"QuotaMaxBytes\":",
    b"\"UserID\":",
    b"\"GroupID\":",
];

const MESSAGE: usize = 7;
const ACTION: usize = 8;

/// Whether the line is surely an action that changes nothing. It only looks at lines in the very form in
/// which the services write them; of another one [`decode_line`](super::decode::decode_line) tells.
pub fn is_plain_read(line: &[u8]) -> bool {
    skim(line).is_some() && flat::is_plain(line)
}

/// `None`: no read, or not in the form.
fn skim(line: &[u8]) -> Option<()> {
    if line.first() != Some(&b'{') {
        return None;
    }
    let mut met = 0_u64;
    let mut expected = 0;
    let mut at = 1;
    loop {
        let key = key(line.get(at..)?, expected)?;
        expected = key + 1;
        if met & (1 << key) != 0 {
            return None;
        }
        met |= 1 << key;
        at += QUOTED[key].len();
        if line.get(at) == Some(&b'"') {
            let text = line.get(at + 1..)?;
            let length = memchr::memchr(b'"', text)?;
            if key == ACTION && !READS.iter().any(|read| read.as_bytes() == &text[..length]) {
                return None;
            }
            at += length + 2;
        } else {
            // These two are texts in every record.
            if key == ACTION || key == MESSAGE {
                return None;
            }
            at += flat::bare_length(line.get(at..)?)?;
        }
        match line.get(at)? {
            b',' => at += 1,
            b'}' => break,
            _ => return None,
        }
    }
    let is_record = met & (1 << MESSAGE) != 0 && met & (1 << ACTION) != 0;
    (is_record && at + 1 == line.len()).then_some(())
}

/// Which key the bytes begin with. Records have their keys in order, but each lacks some.
fn key(bytes: &[u8], expected: usize) -> Option<usize> {
    // Two letters tell most keys apart, without a call that compares all of it.
    let letters = bytes.get(1..3)?;
    let begins =
        |key: &&[u8]| key[1] == letters[0] && key[2] == letters[1] && bytes.starts_with(key);
    let rest = QUOTED.get(expected..).unwrap_or_default();
    let next = rest.iter().position(begins);
    next.map(|next| expected + next)
        .or_else(|| QUOTED.iter().position(begins))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use bytes::Bytes;

    use super::super::record::{KNOWN_KEYS, Record as _, ScannedLine, key};
    use super::*;

    /// What [`is_plain_read`] is a faster way to.
    pub(in crate::sources::ocis) fn is_scanned_read(line: &[u8]) -> bool {
        let line = flat::plain_text(&Bytes::copy_from_slice(line));
        line.as_ref()
            .and_then(ScannedLine::scan)
            .is_some_and(|line| {
                let action = line.string(key!("Action"));
                action.is_some_and(|action| READS.contains(&action))
                    && line.string(key!("Message")).is_some()
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2048))]

        /// Few keys in any order, so that many a line is a read but for one thing.
        #[test]
        fn it_never_differs_from_the_scan(
            before in r#"("(User|Path|CLI|Name|FileID|Actio)":("[a-zü:,{}]{0,4}"|true|null|-?[0-9]{1,20}|1\.0|\[\]),){0,2}"#,
            action in r#"("Action":("file_read"|"file_viewed"|"public_link_accessed"|"file_reads"|1|null)|),?"#,
            message in r#"("Message":("[a-z' ]{0,5}"|"[a-z' ]{0,5}"|false|"\\n"|"	")|),?"#,
            after in r#"(,?"(User|Path|Level|Action|Message|UserID)":("file_read"|"x"|0|-0|01|[0-9]{17,19}|fals)){0,2}"#,
            end in r#"(\}|\}|\}|\}\}|,\}|\} |)"#,
        ) {
            for line in [
                format!("{{{before}{action}{message}{after}{end}"),
                format!("{{{before}\"Action\":\"file_read\",\"Message\":\"\"{after}{end}"),
                format!("{{{message}\"Action\":\"file_read\"{after}{end}"),
            ] {
                let scanned = is_scanned_read(line.as_bytes());
                prop_assert_eq!(is_plain_read(line.as_bytes()), scanned, "{}", line);
            }
        }
    }

    #[test]
    fn both_lists_of_keys_are_one() {
        for (quoted, key) in QUOTED.iter().zip(KNOWN_KEYS) {
            assert_eq!(*quoted, format!("\"{key}\":").as_bytes());
        }
        assert_eq!(KNOWN_KEYS[MESSAGE], "Message");
        assert_eq!(KNOWN_KEYS[ACTION], "Action");
    }
}
