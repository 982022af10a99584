//! The known secrets of one call, and where they are in a text.
//! Twin: `python/noetl_worker/engine/pure/secrets.py`.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::OnceLock;

use memchr::memmem::Finder;
use regex::bytes::Regex;

use crate::redact::MARK;

/// A shorter known secret is not searched for.
pub const MIN_SECRET_CHARS: usize = 4;
/// One vector search each is the fastest up to here; above, one pass over the text for all of them.
const MAX_FINDERS: usize = 16;
/// Bytes of the shortest secret: what one is looked up by.
const HEAD: usize = 4;
/// What a letter or digit directly before a word may be the end of, without being a part of that word.
const ESCAPE: &str = r"(?-u)(?:\\(?:[abfnrtv0]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})|%[0-9A-Fa-f]{2}|\[[0-9;]{0,12}m)\z";
const LONGEST_ESCAPE: usize = 14;
/// The beginning of a reference to a value that the plane keeps.
const REFERENCE: &str = "noetl://";
/// Bytes before a secret that are looked at for the beginning of a reference.
const LONGEST_REFERENCE: usize = 1024;

/// Known secrets of one call, ready to be searched for. Nothing of them is kept after it.
///
/// No automaton: this is built for every call, and with 35 texts building one took 340 us, with 14,000 of
/// them 40 ms. This takes 5 us and 2 ms, a pass over two kilobytes of text included.
#[derive(Debug)]
pub struct Secrets<'s> {
    /// Each with whether it is taken out as a whole word only.
    values: Vec<(&'s str, bool)>,
    numbers: HashSet<&'s str>,
    finders: Vec<Finder<'s>>,
    /// First bytes of each secret and its place in `values`, in order; the longest of equal heads first.
    heads: Vec<(u32, u32)>,
    /// A bit for every head there is: few texts get past it without reason.
    filter: Filter,
    are_plain: OnceCell<bool>,
}

impl<'s> Secrets<'s> {
    /// Prepare a set: texts that are taken out wherever they are, and `words`, which are taken out where they are whole
    /// words. None when no secret is long enough.
    pub fn prepare(secrets: &'s [String], words: &'s [String]) -> Option<Self> {
        // A piece of the mark cannot be told from the mark.
        let is_long = |secret: &str| secret.chars().nth(MIN_SECRET_CHARS - 1).is_some() && !MARK.contains(secret);
        let anywhere = secrets.iter().map(|secret| (secret.as_str(), false));
        let whole = words.iter().map(|secret| (secret.as_str(), true));
        let mut values: Vec<(&str, bool)> = anywhere.chain(whole).filter(|(secret, _)| is_long(secret)).collect();
        if values.is_empty() {
            return None;
        }
        let finders = if values.len() <= MAX_FINDERS {
            values.iter().map(|(one, _)| Finder::new(*one)).collect()
        } else {
            vec![]
        };
        values.sort_unstable_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
        let mut heads: Vec<(u32, u32)> =
            (0..).zip(&values).map(|(at, (secret, _))| (head(secret.as_bytes()), at)).collect();
        heads.sort_unstable();
        let filter = Filter::of(&heads);
        let is_number = |secret: &&str| secret.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        let numbers = values.iter().map(|(secret, _)| *secret).filter(is_number).collect();
        Some(Self { values, numbers, finders, heads, filter, are_plain: OnceCell::new() })
    }

    /// Whether a secret is somewhere in a text, be it inside of a word: a quick look before `replace`.
    pub fn is_in(&self, text: &str) -> bool {
        if self.finders.is_empty() {
            return self.first(text, 0, |_, _, _| true).is_some();
        }
        self.finders.iter().any(|finder| finder.find(text.as_bytes()).is_some())
    }

    /// Whether a text is one of the secrets, and nothing else.
    pub fn include(&self, text: &str) -> bool {
        let bytes = text.as_bytes();
        self.starting_at(head(bytes), bytes).any(|(secret, _)| secret == text)
    }

    /// Whether a secret may be a number: few are, and documents are full of numbers.
    pub fn have_numbers(&self) -> bool {
        !self.numbers.is_empty()
    }

    /// Whether no secret has a character that JSON has to escape: each stands in a document as it is, unless that
    /// escapes more than it has to.
    pub fn are_never_escaped(&self) -> bool {
        *self.are_plain.get_or_init(|| {
            let is_escaped = |byte: u8| byte < b' ' || matches!(byte, b'"' | b'\\');
            !self.values.iter().any(|(secret, _)| secret.bytes().any(is_escaped))
        })
    }

    /// Whether the text of a number is exactly a secret.
    pub fn include_number(&self, text: &str) -> bool {
        self.numbers.contains(text)
    }

    /// Whether a key has to go, as a whole: it is a secret, or has one in it that no innocent text has.
    pub fn is_in_key(&self, key: &str) -> bool {
        let is_strong = |at: usize, _: &str, is_word: bool| !is_word && !is_in_reference(key, at);
        self.is_in(key) && (self.include(key) || self.first(key, 0, is_strong).is_some())
    }

    /// Replace every secret, from left to right, at one place the longest, and count them.
    pub fn replace<'t>(&self, text: &'t str, count: &mut usize) -> Cow<'t, str> {
        if !self.is_in(text) {
            return Cow::Borrowed(text);
        }
        let goes = |at: usize, secret: &str, is_word: bool| {
            (!is_word || is_whole_word(text, at, secret)) && !is_in_reference(text, at)
        };
        let mut out = String::new();
        let mut start = 0;
        while let Some((at, secret)) = self.first(text, start, goes) {
            out.push_str(&text[start..at]);
            out.push_str(MARK);
            start = at + secret.len();
            *count += 1;
        }
        if start == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(&text[start..]);
        Cow::Owned(out)
    }

    fn first(
        &self,
        text: &str,
        from: usize,
        is_wanted: impl Fn(usize, &str, bool) -> bool,
    ) -> Option<(usize, &'s str)> {
        let bytes = &text.as_bytes()[from..];
        bytes.windows(HEAD).enumerate().find_map(|(at, window)| {
            let head = head(window);
            if !self.filter.may_hold(head) {
                return None;
            }
            let mut secrets = self.starting_at(head, &bytes[at..]);
            secrets
                .find(|(secret, is_word)| is_wanted(from + at, secret, *is_word))
                .map(|(secret, _)| (from + at, secret))
        })
    }

    /// The secrets that some bytes begin with, the longest first; `head` is that of the bytes.
    fn starting_at<'b>(&'b self, head: u32, bytes: &'b [u8]) -> impl Iterator<Item = (&'s str, bool)> + 'b {
        let first = self.heads.partition_point(|(known, _)| *known < head);
        let same = self.heads[first..].iter().take_while(move |(known, _)| *known == head);
        let secrets = same.map(|(_, place)| self.values[*place as usize]);
        secrets.filter(move |(secret, _)| bytes.starts_with(secret.as_bytes()))
    }
}

/// Whether what stands at a place is no part of a longer word. A side where the secret has a sign has no word.
fn is_whole_word(text: &str, at: usize, secret: &str) -> bool {
    let end = at + secret.len();
    let is_word = |letter: Option<char>| letter.is_some_and(is_letter);
    let goes_on = is_word(secret.chars().next_back()) && is_word(text[end..].chars().next());
    let has_begun = is_word(secret.chars().next()) && is_word(text[..at].chars().next_back());
    !goes_on && (!has_begun || follows_escape(text.as_bytes(), at))
}

/// What words are made of. By ranges, so that it does not depend on a version of Unicode; in scripts without blanks
/// between words (from U+2000) a letter says nothing.
fn is_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || ('\u{c0}'..'\u{2000}').contains(&letter)
}

fn follows_escape(text: &[u8], at: usize) -> bool {
    static CELL: OnceLock<Option<Regex>> = OnceLock::new();
    let expression = CELL.get_or_init(|| Regex::new(ESCAPE).ok()).as_ref();
    expression.is_some_and(|escape| escape.is_match(&text[at.saturating_sub(LONGEST_ESCAPE)..at]))
}

/// Whether a secret is a part of a reference, which is of use only as a whole.
fn is_in_reference(text: &str, at: usize) -> bool {
    let end = text.len().min(at + REFERENCE.len());
    let around = &text.as_bytes()[at.saturating_sub(LONGEST_REFERENCE)..end];
    let Some(found) = memchr::memmem::rfind(around, REFERENCE.as_bytes()) else { return false };
    let before = around[found..].len().saturating_sub(end - at);
    !around[found..][..before].iter().any(|byte| !byte.is_ascii_graphic() || b"\"'<>\\".contains(byte))
}

fn head(bytes: &[u8]) -> u32 {
    bytes.iter().take(HEAD).fold(0, |head, byte| head << 8 | u32::from(*byte))
}

#[derive(Debug)]
struct Filter {
    bits: Vec<u64>,
    shift: u32,
}

impl Filter {
    fn of(heads: &[(u32, u32)]) -> Self {
        let size = (heads.len() * 16).next_power_of_two().clamp(1 << 12, 1 << 24);
        let mut filter = Self { bits: vec![0; size / 64], shift: 32 - size.ilog2() };
        for (head, _) in heads {
            let (word, bit) = filter.place(*head);
            filter.bits[word] |= bit;
        }
        filter
    }

    fn may_hold(&self, head: u32) -> bool {
        let (word, bit) = self.place(head);
        self.bits[word] & bit != 0
    }

    fn place(&self, head: u32) -> (usize, u64) {
        let hash = head.wrapping_mul(0x9e37_79b1) >> self.shift;
        (hash as usize / 64, 1 << (hash % 64))
    }
}
