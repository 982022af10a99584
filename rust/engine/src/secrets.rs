//! The known secrets of one call, and the search for them in texts.
//! Twin: `python/noetl_worker/engine/pure/secrets.py`.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashSet;
use std::sync::OnceLock;

use memchr::memmem::Finder;
use regex::bytes::Regex;

/// The mark that replaces a secret.
pub const MARK: &str = "[REDACTED]";
/// Smallest length, in characters, of a known secret to search for.
pub const MIN_SECRET_CHARS: usize = 4;
/// Characters by which a longer secret is found. It is replaced as far as the text agrees with it.
const LONGEST_HEAD: usize = 1_024;
/// Value of a link that leads nowhere.
const NONE: u32 = u32::MAX;
/// Largest number of secrets for which one vector search per secret is fastest. More are found in one pass over the
/// text.
const MAX_FINDERS: usize = 16;
/// Bytes of the shortest secret, by which secrets are looked up.
const HEAD: usize = 4;
/// Largest distance, in bytes, between two samples of a text.
const STRIDE: usize = 8;
/// Largest length of a sample, in bytes.
const WIDEST: usize = 8;
/// Pattern of escapes that may end in a letter or digit directly before a word, without being a part of that word.
const ESCAPE: &str = r"(?-u)(?:\\(?:[abfnrtv0]|x[0-9A-Fa-f]{2}|u[0-9A-Fa-f]{4})|%[0-9A-Fa-f]{2}|\[[0-9;]{0,12}m)\z";
const LONGEST_ESCAPE: usize = 14;
/// Beginning of a reference to a value in the plane's store.
const REFERENCE: &str = "noetl://";
/// Bytes before a secret that are searched for the beginning of a reference.
const LONGEST_REFERENCE: usize = 1024;

/// Known secrets of one call, ready to be searched for. Nothing is kept after the call.
///
/// The time of a search depends on the text's length alone. The secrets are sorted, and each is linked to the longest
/// other secret that it begins with. At a place in the text, the last secret not sorted after the text is the longest
/// one there, or begins with the longest one. No automaton is used: building one took ten times as long.
#[derive(Debug)]
pub struct Secrets<'s> {
    entries: Vec<Entry<'s>>,
    /// First bytes of each entry.
    heads: Vec<u32>,
    /// Secrets longer than `LONGEST_HEAD`, sorted.
    long: Vec<&'s str>,
    numbers: HashSet<&'s str>,
    finders: Vec<Finder<'s>>,
    /// Bytes between two samples of a text.
    stride: usize,
    /// Bytes of a sample.
    width: usize,
    /// Filter of the pieces of `width` bytes at the first `stride` places of each entry. A sample of a secret in a text
    /// equals one of these pieces.
    pieces: Filter,
    /// Filter of the heads of all entries, which excludes nearly all places without a secret.
    filter: Filter,
    are_plain: OnceCell<bool>,
}

/// One secret, or the head of long ones. Links are indexes in `Secrets::entries`, or `NONE`.
#[derive(Debug)]
struct Entry<'s> {
    text: &'s str,
    /// True for a whole secret.
    is_whole: bool,
    /// True for the head of long secrets.
    is_head: bool,
    /// True if the secret is replaced anywhere, false if only as a whole word.
    is_anywhere: bool,
    depth: u32,
    /// Link to the longest other secret that this one begins with.
    shorter: u32,
    /// Link that skips several of those, so that any secret of a chain is found in a few steps.
    jump: u32,
    /// Link to the longest shorter secret that is replaced where this one ends inside a word.
    within: u32,
    /// Link to the longest shorter secret that is replaced anywhere.
    anywhere: u32,
}

impl<'s> Entry<'s> {
    fn new(secret: &'s str, is_anywhere: bool) -> Self {
        let head = secret.char_indices().nth(LONGEST_HEAD).map_or(secret, |(end, _)| &secret[..end]);
        let is_whole = head.len() == secret.len();
        // A text does not contain a word of that length by chance.
        let (is_head, is_anywhere) = (!is_whole, is_anywhere || !is_whole);
        let (depth, shorter, jump, within, anywhere) = (0, NONE, NONE, NONE, NONE);
        Self { text: head, is_whole, is_head, is_anywhere, depth, shorter, jump, within, anywhere }
    }
}

impl<'s> Secrets<'s> {
    /// Prepare a set of secrets. `secrets` and the `lines` of wrapped secrets are replaced anywhere, `words` only as
    /// whole words. Return None when no secret is long enough.
    pub fn prepare(secrets: &'s [String], words: &'s [String], lines: &'s [String]) -> Option<Self> {
        // A secret that is a part of the mark would be found in every mark.
        let is_long = |secret: &str| secret.chars().nth(MIN_SECRET_CHARS - 1).is_some() && !MARK.contains(secret);
        let anywhere = secrets.iter().chain(lines).map(|secret| (secret.as_str(), true));
        let values = anywhere.chain(words.iter().map(|secret| (secret.as_str(), false)));
        let (mut entries, mut long, mut numbers) = (vec![], vec![], HashSet::new());
        for (secret, is_anywhere) in values.filter(|(secret, _)| is_long(secret)) {
            let entry = Entry::new(secret, is_anywhere);
            if entry.is_head {
                long.push(secret);
            }
            if secret.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
                numbers.insert(secret);
            }
            entries.push(entry);
        }
        if entries.is_empty() {
            return None;
        }
        entries.sort_unstable_by_key(|entry| (head(entry.text.as_bytes()), entry.text));
        entries.dedup_by(|same, kept| {
            let is_same = same.text == kept.text;
            kept.is_anywhere |= is_same && same.is_anywhere;
            kept.is_whole |= is_same && same.is_whole;
            kept.is_head |= is_same && same.is_head;
            is_same
        });
        long.sort_unstable();
        for number in 0..entries.len() {
            link(&mut entries, number);
        }
        let finders = if entries.len() <= MAX_FINDERS {
            entries.iter().map(|entry| Finder::new(entry.text)).collect()
        } else {
            vec![]
        };
        let heads: Vec<u32> = entries.iter().map(|entry| head(entry.text.as_bytes())).collect();
        let filter = Filter::new(&heads);
        let shortest = entries.iter().map(|entry| entry.text.len()).min().unwrap_or(HEAD);
        let width = (shortest / 2).clamp(HEAD, WIDEST);
        let stride = STRIDE.min(shortest - width + 1);
        let pieces_at = |at| entries.iter().map(move |entry| piece_key(&entry.text.as_bytes()[at..at + width]));
        let all: Vec<u32> = (0..stride).flat_map(pieces_at).collect();
        let (pieces, are_plain) = (Filter::new(&all), OnceCell::new());
        Some(Self { entries, heads, long, numbers, finders, stride, width, pieces, filter, are_plain })
    }

    /// Return true if a secret has to be replaced wherever it occurs.
    pub fn are_anywhere(&self) -> bool {
        self.entries.iter().any(|entry| entry.is_anywhere)
    }

    /// Return true if a secret is anywhere in a text, even inside a word. This is a quick check before `replace`.
    #[inline(never)]
    pub fn is_in(&self, text: &str) -> bool {
        if self.finders.is_empty() {
            return self.place(text, 0).is_some();
        }
        self.finders.iter().any(|finder| finder.find(text.as_bytes()).is_some())
    }

    /// Return true if the whole text is one of the secrets.
    pub fn include(&self, text: &str) -> bool {
        let found = self.entries.binary_search_by_key(&text, |entry| entry.text);
        found.is_ok_and(|number| self.entries[number].is_whole) || self.long.binary_search(&text).is_ok()
    }

    /// Return true if a secret may be a number. Few are, and documents are full of numbers.
    pub fn have_numbers(&self) -> bool {
        !self.numbers.is_empty()
    }

    /// Return true if no secret has a character that JSON has to escape. Then a document contains each secret as it is,
    /// unless it escapes more than necessary.
    pub fn are_never_escaped(&self) -> bool {
        *self.are_plain.get_or_init(|| {
            let is_escaped = |byte: u8| byte < b' ' || matches!(byte, b'"' | b'\\');
            !self.entries.iter().any(|entry| entry.text.bytes().any(is_escaped))
        })
    }

    /// Return true if the text of a number is exactly a secret.
    pub fn include_number(&self, text: &str) -> bool {
        self.numbers.contains(text)
    }

    /// Return true if a whole key has to be replaced: it is a secret, or contains one that is replaced anywhere.
    #[inline(never)]
    pub fn is_in_key(&self, key: &str) -> bool {
        self.is_in(key) && (self.include(key) || self.anywhere_in(key).any(|(at, _)| !is_in_reference(key, at)))
    }

    /// Replace secrets from left to right, the longest one at each place, and count them.
    #[inline(never)]
    pub fn replace<'t>(&self, text: &'t str, count: &mut usize) -> Cow<'t, str> {
        if !self.is_in(text) {
            return Cow::Borrowed(text);
        }
        let mut out = String::new();
        let (mut start, mut from) = (0, 0);
        while let Some((at, number)) = self.place(text, from) {
            let size = if is_in_reference(text, at) { 0 } else { self.size_to_replace(text, at, number) };
            from = at + size.max(1);
            if size > 0 {
                out.push_str(&text[start..at]);
                out.push_str(MARK);
                start = from;
                *count += 1;
            }
        }
        if start == 0 {
            return Cow::Borrowed(text);
        }
        out.push_str(&text[start..]);
        Cow::Owned(out)
    }

    /// Return start and end of each secret that is replaced anywhere, the longest one at each place.
    pub fn anywhere_in<'a>(&'a self, text: &'a str) -> impl Iterator<Item = (usize, usize)> + 'a {
        let mut from = 0;
        std::iter::from_fn(move || loop {
            let (at, number) = self.place(text, from)?;
            let size = self.size_anywhere(text, at, number);
            from = at + 1;
            if size > 0 {
                if text[at..at + size].chars().nth(LONGEST_HEAD).is_some() {
                    from = at + size;
                }
                return Some((at, at + size));
            }
        })
    }

    /// Return the next place where a secret begins, and the number of the longest one there.
    fn place(&self, text: &str, from: usize) -> Option<(usize, usize)> {
        let bytes = text.as_bytes();
        let mut looked = from.div_ceil(self.stride) * self.stride;
        while let Some(piece) = bytes.get(looked..looked + self.width) {
            if self.pieces.may_hold(piece_key(piece)) {
                for at in from.max((looked + 1).saturating_sub(self.stride))..=looked {
                    let head = head(&bytes[at..]);
                    let found = self.filter.may_hold(head).then(|| self.longest(head, &bytes[at..])).flatten();
                    if let Some(number) = found {
                        return Some((at, number));
                    }
                }
            }
            looked += self.stride;
        }
        None
    }

    /// Return the longest secret with which some bytes begin; `head` is the head of these bytes.
    fn longest(&self, head: u32, bytes: &[u8]) -> Option<usize> {
        let first = self.heads.partition_point(|known| *known < head);
        let end = first + self.heads[first..].partition_point(|known| *known == head);
        let before = self.entries[first..end].partition_point(|entry| entry.text.as_bytes() <= bytes);
        let mut number = (first + before).checked_sub(1).filter(|_| before > 0)?;
        let is_there = |number: usize| bytes.starts_with(self.entries[number].text.as_bytes());
        while !is_there(number) {
            let entry = &self.entries[number];
            let jump = entry_index(entry.jump).filter(|far| !is_there(*far));
            number = jump.or_else(|| entry_index(entry.shorter))?;
        }
        Some(number)
    }

    /// Return the bytes of the longest secret at a place that is replaced anywhere, or 0.
    fn size_anywhere(&self, text: &str, at: usize, number: usize) -> usize {
        let entry = &self.entries[number];
        self.size(text, at, if entry.is_anywhere { Some(number) } else { entry_index(entry.anywhere) })
    }

    /// Return the bytes of the longest secret at a place that is replaced there, or 0.
    fn size_to_replace(&self, text: &str, at: usize, number: usize) -> usize {
        let entry = &self.entries[number];
        let number = if entry.is_anywhere {
            Some(number)
        } else if goes_on(text, at) && !follows_escape(text.as_bytes(), at) {
            entry_index(entry.anywhere)
        } else if goes_on(text, at + entry.text.len()) {
            entry_index(entry.within)
        } else {
            Some(number)
        };
        self.size(text, at, number)
    }

    fn size(&self, text: &str, at: usize, number: Option<usize>) -> usize {
        let Some(entry) = number.map(|number| &self.entries[number]) else { return 0 };
        if !entry.is_head {
            return entry.text.len();
        }
        let rest = &text.as_bytes()[at..];
        let near = self.long.partition_point(|long| long.as_bytes() < rest);
        let both = self.long[near.saturating_sub(1)..].iter().take(2);
        let mut longest = both.map(|long| common_size(long.as_bytes(), rest)).max().unwrap_or(0);
        while !text.is_char_boundary(at + longest) {
            longest -= 1;
        }
        longest.max(entry.text.len())
    }
}

/// Set the links of an entry. The entries before it must have theirs.
fn link(entries: &mut [Entry<'_>], number: usize) {
    let (before, after) = entries.split_at_mut(number);
    let entry = &mut after[0];
    let mut shorter = number.checked_sub(1);
    while let Some(place) = shorter.filter(|place| !entry.text.starts_with(before[*place].text)) {
        shorter = entry_index(before[place].shorter);
    }
    let Some(place) = shorter else { return };
    let (near, link) = (&before[place], place as u32);
    let depth_of = |link: u32| entry_index(link).map_or(-1, |place| i64::from(before[place].depth));
    let farther = entry_index(near.jump).map_or(NONE, |far| before[far].jump);
    let is_even =
        near.jump != NONE && i64::from(near.depth) - depth_of(near.jump) == depth_of(near.jump) - depth_of(farther);
    entry.depth = near.depth + 1;
    entry.shorter = link;
    entry.jump = if is_even { farther } else { link };
    entry.anywhere = if near.is_anywhere { link } else { near.anywhere };
    let goes = near.is_anywhere || !goes_on(entry.text, near.text.len());
    entry.within = if goes { link } else { near.within };
}

fn entry_index(link: u32) -> Option<usize> {
    (link != NONE).then_some(link as usize)
}

/// Return the number of bytes that two texts have in common at their beginning.
fn common_size(one: &[u8], other: &[u8]) -> usize {
    one.iter().zip(other).take_while(|(left, right)| left == right).count()
}

/// Return true if a place is inside a word: between two letters.
fn goes_on(text: &str, at: usize) -> bool {
    let is_word = |letter: Option<char>| letter.is_some_and(is_letter);
    is_word(text[..at].chars().next_back()) && is_word(text[at..].chars().next())
}

/// Return true if a character is part of words. Ranges are used, so that no version of Unicode matters. Letters of
/// scripts without blanks between words (from U+2000) do not count.
fn is_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || ('\u{c0}'..'\u{2000}').contains(&letter)
}

fn follows_escape(text: &[u8], at: usize) -> bool {
    static CELL: OnceLock<Option<Regex>> = OnceLock::new();
    let expression = CELL.get_or_init(|| Regex::new(ESCAPE).ok()).as_ref();
    expression.is_some_and(|escape| escape.is_match(&text[at.saturating_sub(LONGEST_ESCAPE)..at]))
}

/// Return true if a place is inside a reference, which is of use only as a whole.
fn is_in_reference(text: &str, at: usize) -> bool {
    let end = text.len().min(at + REFERENCE.len());
    let around = &text.as_bytes()[at.saturating_sub(LONGEST_REFERENCE)..end];
    let Some(found) = memchr::memmem::rfind(around, REFERENCE.as_bytes()) else { return false };
    let before = around[found..].len().saturating_sub(end - at);
    !around[found..][..before].iter().any(|byte| !byte.is_ascii_graphic() || b"\"'<>\\".contains(byte))
}

fn head(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |first: &[u8; HEAD]| u32::from_be_bytes(*first))
}

/// Return the key of a piece of four to eight bytes in the filter.
fn piece_key(piece: &[u8]) -> u32 {
    head(piece).wrapping_mul(0x85eb_ca6b) ^ head(&piece[piece.len() - HEAD..])
}

#[derive(Debug)]
struct Filter {
    bits: Vec<u64>,
    shift: u32,
}

impl Filter {
    fn new(heads: &[u32]) -> Self {
        let size = (heads.len() * 32).next_power_of_two().clamp(1 << 12, 1 << 24);
        let mut filter = Self { bits: vec![0; size / 64], shift: 32 - size.ilog2() };
        for head in heads {
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
