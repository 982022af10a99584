//! Marks of what a JSON text may contain (templates, references, secrets), found by one search of its bytes.
//! Twin: `python/noetl_worker/engine/pure/marks.py`.

use std::sync::OnceLock;

use aho_corasick::{AhoCorasick, MatchKind};

/// Mark for `{{`, `{%` or `{#` in a text.
pub const TEMPLATES: u8 = 1;
/// Mark for a field in the result store, or a keychain entry.
pub const REFERENCES: u8 = 2;
/// Mark for a key that names a secret, or a URL, which may contain a password.
pub const SECRETS: u8 = 4;
/// All marks, for a text with an escape that may write any ASCII character.
pub const ALL: u8 = TEMPLATES | REFERENCES | SECRETS;

/// Bytes, in lower case, that set each mark.
const FOUND_BY: [(u8, &[&str]); 4] = [
    (ALL, &["\\u00"]),
    (TEMPLATES, &["{{", "{%", "{#"]),
    (REFERENCES, &["_ref"]),
    (
        SECRETS,
        &[
            "pass",
            "pwd",
            "cred",
            "secret",
            "token",
            "auth",
            "cookie",
            "bearer",
            "jwt",
            "pem",
            "cert",
            "key",
            "session",
            "dsn",
            "connection",
            "://",
            ":\\/",
        ],
    ),
];
/// Bytes that are copied in lower case at a time, so that the copy stays in the processor's first cache.
const PART: usize = 8 * 1024;

/// Return the sum of the marks of a JSON text.
#[must_use]
pub fn find_marks(data: &[u8]) -> u8 {
    static CELL: OnceLock<Option<Vec<(u8, AhoCorasick)>>> = OnceLock::new();
    let searchers = CELL.get_or_init(|| {
        // On lower case the searcher compares many bytes at once; a search that ignores case goes byte by byte.
        let search = |texts: &[&str]| AhoCorasick::builder().match_kind(MatchKind::LeftmostFirst).build(texts).ok();
        FOUND_BY.iter().map(|(mark, texts)| Some((*mark, search(texts)?))).collect()
    });
    let Some(searchers) = searchers else { return ALL };
    // A match may begin in one part and end in the next.
    let longest = searchers.iter().map(|(_, searcher)| searcher.max_pattern_len()).max().unwrap_or(1);
    let (mut found, mut buffer) = (0, [0; PART]);
    for start in (0..data.len()).step_by(PART + 1 - longest) {
        let part = &data[start..data.len().min(start + PART)];
        let lower = &mut buffer[..part.len()];
        lower.copy_from_slice(part);
        lower.make_ascii_lowercase();
        for (mark, searcher) in searchers {
            if found & mark != *mark && searcher.is_match(&*lower) {
                found |= mark;
            }
        }
        if found == ALL {
            break;
        }
    }
    found
}
