//! What a JSON text may have in it, found by one search of its bytes.
//! Twin: `python/noetl_worker/engine/pure/marks.py`.

use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

/// `{{`, `{%` or `{#` in a text.
pub const TEMPLATES: u8 = 1;
/// A field in the result store, or a keychain entry.
pub const REFERENCES: u8 = 2;
/// A key that names a secret, or an address, which may have a password in it.
pub const SECRETS: u8 = 4;
/// An escape may write any ASCII character.
pub const ALL: u8 = TEMPLATES | REFERENCES | SECRETS;

/// None of one mark begins with the end of another mark's, so a search without overlaps misses no mark.
const FOUND_BY: &[(&str, u8)] = &[
    ("\\u00", ALL),
    ("{{", TEMPLATES),
    ("{%", TEMPLATES),
    ("{#", TEMPLATES),
    ("_ref", REFERENCES),
    ("pass", SECRETS),
    ("pwd", SECRETS),
    ("cred", SECRETS),
    ("secret", SECRETS),
    ("token", SECRETS),
    ("auth", SECRETS),
    ("cookie", SECRETS),
    ("bearer", SECRETS),
    ("jwt", SECRETS),
    ("pem", SECRETS),
    ("cert", SECRETS),
    ("key", SECRETS),
    ("session", SECRETS),
    ("dsn", SECRETS),
    ("connection", SECRETS),
    ("://", SECRETS),
    (":\\/", SECRETS),
];

/// The sum of the marks of a JSON text.
#[must_use]
pub fn find_marks(data: &[u8]) -> u8 {
    static CELL: OnceLock<Option<AhoCorasick>> = OnceLock::new();
    let searcher = CELL.get_or_init(|| {
        let texts = FOUND_BY.iter().map(|(text, _)| text);
        AhoCorasick::builder().ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA)).build(texts).ok()
    });
    let Some(searcher) = searcher else { return ALL };
    let mut found = 0;
    for place in searcher.find_iter(data) {
        found |= FOUND_BY[place.pattern().as_usize()].1;
        if found == ALL {
            break;
        }
    }
    found
}
