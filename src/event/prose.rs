//! Secrets in text that is no JSON: a console's line, a command, a header, a string within JSON.
//!
//! By the same list of keys as [`super::mask`]: what follows `key=` or `key: `, a header's whole
//! line, what follows `Bearer`, and the password of an address (`://user:password@host`).

use super::mask::{LONGEST_KEY, MASK, is_secret_key};

/// Headers whose value has several words.
const HEADERS: [&str; 4] = [
    "authorization",
    "proxy-authorization",
    "cookie",
    "set-cookie",
];

/// What stands before a secret without a key.
const SCHEMES: [&str; 2] = ["bearer", "basic"];

/// A shorter word behind a scheme is part of a sentence.
const SHORTEST_CREDENTIAL: usize = 8;

/// Masks what follows keys, headers and schemes.
pub(super) fn mask_prose(raw: &[u8], keys: &[&str]) -> Vec<u8> {
    let mut masked = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        if raw[at..].starts_with(b"://") {
            let (kept, end) = address(raw, at);
            masked.extend_from_slice(&raw[at..kept]);
            if end > kept {
                masked.extend_from_slice(MASK.as_bytes());
            }
            at = end;
            continue;
        }
        let word = at + run(&raw[at..], is_of_word);
        if word == at {
            masked.push(raw[at]);
            at += 1;
            continue;
        }
        let secret = secret_after(raw, (at, word), keys);
        let (begin, end) = secret.unwrap_or((word, word));
        masked.extend_from_slice(&raw[at..begin]);
        if end > begin {
            masked.extend_from_slice(MASK.as_bytes());
        }
        at = end;
    }
    masked
}

/// Masks the passwords of the addresses in a text, and nothing else. `None` when there is none.
pub fn mask_addresses(text: &str) -> Option<String> {
    let mut masked = String::new();
    let mut copied = 0;
    for (at, _) in text.match_indices("://") {
        let (password, end) = address(text.as_bytes(), at);
        if end > password {
            masked.push_str(&text[copied..password]);
            masked.push_str(MASK);
            copied = end;
        }
    }
    (copied > 0).then(|| masked + &text[copied..])
}

fn is_of_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.') || !byte.is_ascii()
}

fn run(bytes: &[u8], is_part: impl Fn(u8) -> bool) -> usize {
    let end = bytes.iter().position(|byte| !is_part(*byte));
    end.unwrap_or(bytes.len())
}

fn is_one_of(word: &[u8], names: &[&str]) -> bool {
    names
        .iter()
        .any(|name| word.eq_ignore_ascii_case(name.as_bytes()))
}

/// Where the secret lies that a word speaks of.
fn secret_after(raw: &[u8], (begin, end): (usize, usize), keys: &[&str]) -> Option<(usize, usize)> {
    let word = &raw[begin..end];
    let blanks = |at: usize| at + run(&raw[at..], |byte| matches!(byte, b' ' | b'\t'));
    let after = blanks(end);
    if is_one_of(word, &SCHEMES) && after > end {
        let length = run(&raw[after..], is_of_credential);
        return (length >= SHORTEST_CREDENTIAL).then_some((after, after + length));
    }
    let is_secret = word.len() <= LONGEST_KEY
        && std::str::from_utf8(word).is_ok_and(|word| is_secret_key(word, keys));
    if !is_secret || !matches!(raw.get(after), Some(b'=' | b':')) {
        return None;
    }
    let value = blanks(after + 1);
    let quote = value + run(&raw[value..], |byte| byte == b'\\');
    let length = match raw.get(quote) {
        Some(quoting @ (b'"' | b'\'')) => {
            let inner = quote + 1;
            return Some((inner, inner + run(&raw[inner..], |byte| byte != *quoting)));
        }
        _ if is_one_of(word, &HEADERS) => run(&raw[value..], |byte| {
            !matches!(byte, b'\n' | b'\r' | b'"' | b'\'')
        }),
        _ => run(&raw[value..], is_of_value),
    };
    Some((value, value + length))
}

/// See RFC 7235, `token68`.
fn is_of_credential(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte)
}

fn is_of_value(byte: u8) -> bool {
    !byte.is_ascii_whitespace() && !b"\"'<>,;&)]}".contains(&byte)
}

/// Whether a byte can stand in an address before its path, its query and its fragment; quotes do not, though RFC 3986
/// allows one.
fn is_of_authority(byte: u8) -> bool {
    !byte.is_ascii_whitespace() && !b"\"'<>/?#".contains(&byte)
}

/// The password of the address whose `://` begins at `at`: where it lies, or where the authority ends.
fn address(raw: &[u8], at: usize) -> (usize, usize) {
    let begin = at + 3;
    let length = run(&raw[begin..], is_of_authority);
    let authority = &raw[begin..begin + length];
    let host = authority.iter().rposition(|byte| *byte == b'@');
    let password = authority.iter().position(|byte| *byte == b':');
    match (password, host) {
        (Some(colon), Some(host)) if colon < host => (begin + colon + 1, begin + host),
        _ => (begin, begin),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use proptest::prelude::*;

    use super::super::mask::SECRET_KEYS;
    use super::*;

    fn masked(raw: &str) -> String {
        String::from_utf8(mask_prose(raw.as_bytes(), SECRET_KEYS)).unwrap()
    }

    #[test]
    fn secrets_are_masked_where_they_are_said() {
        let cases = [
            ("token=abc def", "token=*** def"),
            (
                "password: hunter2, user: alice",
                "password: ***, user: alice",
            ),
            ("PASSWORD = \"two words\" x", "PASSWORD = \"***\" x"),
            ("x-api-key:'a b'", "x-api-key:'***'"),
            (
                "Authorization: Bearer abc\nnext",
                "Authorization: ***\nnext",
            ),
            ("Cookie: a=b; c=d", "Cookie: ***"),
            (
                "{\"m\":\"Authorization: Basic YQ==\",\"n\":1",
                "{\"m\":\"Authorization: ***\",\"n\":1",
            ),
            ("with bearer eyJhbGciOi.x-y_z~ now", "with bearer *** now"),
            ("a bearer of news", "a bearer of news"),
            (
                "GET /x?token=abc&next=/ HTTP",
                "GET /x?token=***&next=/ HTTP",
            ),
            ("mongodb://me:p@ss@host/db", "mongodb://me:***@host/db"),
            ("https://host:8080/a@b", "https://host:8080/a@b"),
            ("level=info msg=ok", "level=info msg=ok"),
            ("the token expired", "the token expired"),
            ("token:", "token:"),
            ("\"Token\":\"***\"", "\"Token\":\"***\""),
            ("über-token=ü rest", "über-token=*** rest"),
        ];
        for (raw, wanted) in cases {
            assert_eq!(masked(raw), wanted, "{raw}");
        }
    }

    #[test]
    fn passwords_of_addresses_are_masked_alone() {
        for (text, wanted) in [
            (
                "oci://me:hunter2@host:443/a:b@c",
                Some("oci://me:***@host:443/a:b@c"),
            ),
            (
                "from ldap://ü:p@ss@a to redis://:é@b/0",
                Some("from ldap://ü:***@a to redis://:***@b/0"),
            ),
            (
                "redis://:pa&ss;(w,o)rd]@cache:6379/0",
                Some("redis://:***@cache:6379/0"),
            ),
            ("https://id:9443?login_hint=a@b", None),
            ("https://id:9443#a@b", None),
            ("'http://a:80','b@c'", None),
            ("ssh://git@host:22/x", None),
            ("http://me:@host:80", None),
            ("a://b://c", None),
            ("password: hunter2 of a:b@c", None),
        ] {
            assert_eq!(mask_addresses(text).as_deref(), wanted, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_masked(raw in proptest::collection::vec(any::<u8>(), 0..300)) {
            mask_prose(&raw, SECRET_KEYS);
        }

        #[test]
        fn any_addresses_can_be_masked(text in "([:/@aé ]|://){0,40}") {
            let masked = mask_addresses(&text).unwrap_or(text);
            prop_assert_eq!(mask_addresses(&masked).unwrap_or_else(|| masked.clone()), masked);
        }

        #[test]
        fn what_speaks_of_no_secret_stays(raw in "[ a-z=:/.,é\"\\\\-]{0,80}") {
            let is_harmless = !["://", "bearer", "basic"].iter().any(|word| raw.contains(word));
            prop_assume!(is_harmless);
            prop_assert_eq!(String::from_utf8(mask_prose(raw.as_bytes(), &["none-of-these"])).unwrap(), raw);
        }

        #[test]
        fn a_secret_does_not_survive(
            before in "[a-z \"{}]{0,20}",
            key in "(password|api_key|Authorization|client-secret|token) ?[=:] ?",
            secret in "[A-Z0-9]{10}",
        ) {
            let out = masked(&format!("{before} {key}{secret}"));
            prop_assert!(!out.contains(&secret), "{}", out);
        }
    }
}
