//! Encoded secrets that a program broke into lines: `base64`, `xxd`, `xxd -p`, `od -tx1`, `hexdump -C`.
//! The lines over which a secret is spread are treated as secrets too.
//! Twin: `python/noetl_worker/engine/pure/wrapped.py`.

use std::sync::OnceLock;

use regex::bytes::Regex;

use crate::document::{Document, Value};
use crate::secrets::Secrets;

const DUMPED: &str = concat!(
    r"(?s-u)\A(?:[0-9a-fA-F]{6,16}: ((?:[0-9a-fA-F]{2,8} )+) .*",
    r"|(?:[0-9a-fA-F]{6,16})?((?: {1,2}[0-9a-fA-F]{2})+) *(?:[|>].*)?)\z",
);
/// Beginning of the second line of a hex dump.
const LINE_OF_DUMP: &str = r"(?-u)\A(?:[0-9a-fA-F]{6,16}:?)? {1,2}[0-9a-fA-F]{2,8} ";
/// Beginning of a hex dump of up to 16 bytes, or of the first line of a longer dump.
const ONE_LINE: &str = r"(?-u)\A(?:0{7,16}:?)? {1,2}[0-9a-fA-F]{2,8} ";
/// Smallest number of digits before a line break in a text that a program may have broken into lines.
const WIDTH: usize = 40;
const BLANKS: [char; 5] = [' ', '\t', '\r', '\x0b', '\x0c'];

/// A line's part of an encoded text. It ends at `digits_end` in the joined digits of all lines, and the text from
/// `start` to `end` is replaced if the part is secret.
struct Piece {
    digits_end: usize,
    start: usize,
    end: usize,
    is_dump: bool,
}

fn built(cell: &'static OnceLock<Option<Regex>>, pattern: &str) -> Option<&'static Regex> {
    cell.get_or_init(|| Regex::new(pattern).ok()).as_ref()
}

fn dumped() -> Option<&'static Regex> {
    static CELL: OnceLock<Option<Regex>> = OnceLock::new();
    built(&CELL, DUMPED)
}

fn dump_line() -> Option<&'static Regex> {
    static CELL: OnceLock<Option<Regex>> = OnceLock::new();
    built(&CELL, LINE_OF_DUMP)
}

fn one_line() -> Option<&'static Regex> {
    static CELL: OnceLock<Option<Regex>> = OnceLock::new();
    built(&CELL, ONE_LINE)
}

/// Return the lines of a document's texts and keys over which a secret is spread.
pub fn lines_in_document(document: &Document<'_>, secrets: &Secrets<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let source = document.source().as_bytes();
    let has_break = |first: usize| memchr::memmem::find(&source[first..], b"\\n").is_some();
    if secrets.are_anywhere() && memchr::memchr(b'\\', source).is_some_and(has_break) {
        lines_in_value(document.root(), secrets, &mut lines);
    }
    lines
}

fn lines_in_value(value: Value<'_>, secrets: &Secrets<'_>, lines: &mut Vec<String>) {
    if value.is_text() {
        if may_be_broken_as_written(value.raw().as_bytes()) {
            let text = value.as_text().unwrap_or_default();
            if may_be_broken(text.as_bytes()) {
                lines.extend(lines_in_text(&text, secrets));
            }
        }
        return;
    }
    for (key, child) in value.members() {
        lines_in_value(key, secrets, lines);
        lines_in_value(child, secrets, lines);
    }
    for element in value.elements() {
        lines_in_value(element, secrets, lines);
    }
}

/// Return true if a text, as written with its escapes, may have been broken into lines. This is a quick check.
fn may_be_broken_as_written(raw: &[u8]) -> bool {
    let may_begin = matches!(raw.first(), Some(b' ' | b'0' | b'\\'));
    let has_any =
        |rest: &[u8]| [&b"\\n"[..], b"\\u00"].iter().any(|escape| memchr::memmem::find(rest, escape).is_some());
    may_begin || memchr::memchr(b'\\', raw).is_some_and(|first| has_any(&raw[first..]))
}

/// Return true if a text looks as if a program broke it into lines.
fn may_be_broken(text: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"_+/-".contains(byte);
    let is_broken = |at: usize| {
        let line = text[..at].strip_suffix(b"\r").unwrap_or(&text[..at]);
        line.len() >= WIDTH && line[line.len() - WIDTH..].iter().all(is_digit)
            || dump_line().is_some_and(|begin| begin.is_match(&text[at + 1..]))
    };
    one_line().is_some_and(|begin| begin.is_match(text)) || memchr::memchr_iter(b'\n', text).any(is_broken)
}

/// Return the lines of a text that a secret is spread over or dumped in. Overlapping stretches are joined.
pub fn lines_in_text(text: &str, secrets: &Secrets<'_>) -> Vec<String> {
    let mut lines = Vec::new();
    let is_dump = || dumped().is_some_and(|dump| dump.is_match(text.as_bytes()));
    if !secrets.are_anywhere() || (memchr::memchr(b'\n', text.as_bytes()).is_none() && !is_dump()) {
        return lines;
    }
    let (pieces, joined) = split_pieces(text);
    let (mut start, mut end) = (0, 0);
    for (first_digit, last_digit) in secrets.anywhere_in(&joined) {
        let first = &pieces[pieces.partition_point(|piece| piece.digits_end <= first_digit)];
        let last = &pieces[pieces.partition_point(|piece| piece.digits_end < last_digit)];
        if first.digits_end == last.digits_end && !first.is_dump {
            continue; // the secret is within one line and found without this module
        }
        if first.start >= end {
            if end > 0 {
                lines.push(text[start..end].to_owned());
            }
            start = first.start;
        }
        end = end.max(last.end);
    }
    if end > 0 {
        lines.push(text[start..end].to_owned());
    }
    lines
}

/// Return each line's part of an encoded text, and all parts joined.
/// In a line with several words, the first may end an encoded text and the last may begin one.
fn split_pieces(text: &str) -> (Vec<Piece>, String) {
    let (mut pieces, mut joined) = (Vec::new(), String::new());
    let mut start = 0;
    for line in text.split('\n') {
        let (end, bare) = (start + line.len(), line.trim_end_matches('\r'));
        let mut add = |digits: &str, start: usize, end: usize, is_dump: bool| {
            joined.extend(digits.split(' '));
            pieces.push(Piece { digits_end: joined.len(), start, end, is_dump });
        };
        if is_word(bare) {
            add(bare, start, end, false);
        } else if let Some(digits) = dump_digits(bare) {
            add(digits, start, end, true);
        } else {
            let words = bare.trim_matches(BLANKS);
            let first = words.split(BLANKS).next().unwrap_or_default();
            let last = words.rsplit(BLANKS).next().unwrap_or_default();
            let first_start = line.find(first).unwrap_or_default();
            let last_start = line.rfind(last).unwrap_or_default();
            add(first, start, start + first_start + first.len(), false);
            add("\0", end, end, false);
            add(last, start + last_start, end, false);
        }
        start = end + 1;
    }
    (pieces, joined)
}

fn is_word(line: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=_-".contains(&byte);
    !line.is_empty() && line.bytes().all(is_digit)
}

fn dump_digits(line: &str) -> Option<&str> {
    if !line.starts_with(|first: char| first == ' ' || first.is_ascii_hexdigit()) {
        return None;
    }
    let found = dumped()?.captures(line.as_bytes())?;
    let digits = found.get(1).or_else(|| found.get(2))?;
    Some(&line[digits.range()])
}
