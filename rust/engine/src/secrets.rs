//! The known secrets of one call, and where they are in a text.
//! Twin: `python/noetl_worker/engine/pure/secrets.py`.

use std::borrow::Cow;
use std::collections::HashSet;

use memchr::memmem::Finder;

use crate::redact::MARK;

/// A shorter known secret is not searched for.
pub const MIN_SECRET_CHARS: usize = 4;
/// One vector search each is the fastest up to here; above, one pass over the text for all of them.
const MAX_FINDERS: usize = 16;
/// Bytes of the shortest secret: what one is looked up by.
const HEAD: usize = 4;

/// Known secrets of one call, ready to be searched for. Nothing of them is kept after it.
///
/// No automaton: this is built for every call, and with 35 texts building one took 340 us, with 14,000 of
/// them 40 ms. This takes 5 us and 2 ms, a pass over two kilobytes of text included.
#[derive(Debug)]
pub struct Secrets<'s> {
    values: Vec<&'s str>,
    numbers: HashSet<&'s str>,
    finders: Vec<Finder<'s>>,
    /// First bytes of each secret and its place in `values`, in order; the longest of equal heads first.
    heads: Vec<(u32, u32)>,
    /// A bit for every head there is: few texts get past it without reason.
    filter: Filter,
}

impl<'s> Secrets<'s> {
    /// Prepare a set; None when no secret is long enough.
    pub fn prepare(secrets: &'s [String]) -> Option<Self> {
        // A piece of the mark cannot be told from the mark.
        let is_long = |secret: &&str| secret.chars().nth(MIN_SECRET_CHARS - 1).is_some() && !MARK.contains(secret);
        let mut values: Vec<&str> = secrets.iter().map(String::as_str).filter(is_long).collect();
        if values.is_empty() {
            return None;
        }
        let finders =
            if values.len() <= MAX_FINDERS { values.iter().map(|one| Finder::new(*one)).collect() } else { vec![] };
        values.sort_unstable_by_key(|secret| std::cmp::Reverse(secret.len()));
        let mut heads: Vec<(u32, u32)> =
            (0..).zip(&values).map(|(at, secret)| (head(secret.as_bytes()), at)).collect();
        heads.sort_unstable();
        let filter = Filter::of(&heads);
        let is_number = |secret: &&&str| secret.starts_with(|first: char| first == '-' || first.is_ascii_digit());
        let numbers = values.iter().filter(is_number).copied().collect();
        Some(Self { values, numbers, finders, heads, filter })
    }

    /// Whether a secret is somewhere in a text.
    pub fn is_in(&self, text: &str) -> bool {
        if self.finders.is_empty() {
            return self.first(text, 0).is_some();
        }
        self.finders.iter().any(|finder| finder.find(text.as_bytes()).is_some())
    }

    /// Whether a secret may be a number: few are, and documents are full of numbers.
    pub fn have_numbers(&self) -> bool {
        !self.numbers.is_empty()
    }

    /// Whether the text of a number is exactly a secret.
    pub fn include_number(&self, text: &str) -> bool {
        self.numbers.contains(text)
    }

    /// Replace every secret, from left to right, at one place the longest, and count them.
    pub fn replace<'t>(&self, text: &'t str, count: &mut usize) -> Cow<'t, str> {
        if !self.is_in(text) {
            return Cow::Borrowed(text);
        }
        let mut out = String::new();
        let mut start = 0;
        while let Some((at, secret)) = self.first(text, start) {
            out.push_str(&text[start..at]);
            out.push_str(MARK);
            start = at + secret.len();
            *count += 1;
        }
        out.push_str(&text[start..]);
        Cow::Owned(out)
    }

    fn first(&self, text: &str, from: usize) -> Option<(usize, &'s str)> {
        let bytes = &text.as_bytes()[from..];
        bytes.windows(HEAD).enumerate().find_map(|(at, window)| {
            let head = head(window);
            if !self.filter.may_hold(head) {
                return None;
            }
            let first = self.heads.partition_point(|(known, _)| *known < head);
            let same = self.heads[first..].iter().take_while(|(known, _)| *known == head);
            let mut secrets = same.map(|(_, place)| self.values[*place as usize]);
            secrets.find(|secret| bytes[at..].starts_with(secret.as_bytes())).map(|secret| (from + at, secret))
        })
    }
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
