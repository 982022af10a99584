//! JSON documents, read exactly as the pure engine reads them: the same values and the same errors.
//! Twin: `python/noetl_worker/engine/pure/document.py`.
//!
//! A document is its text and a flat list of nodes that point into it. Nothing is decoded before it is used, and a
//! whole subtree is skipped by one index. Integers keep every digit because they stay text.

use std::borrow::Cow;

use crate::error::EngineError;
pub use crate::reader::Kind;
use crate::reader::{hex4, refusal, Node, Reader};

/// A parsed document.
#[derive(Clone, Debug)]
pub struct Document<'a> {
    text: Cow<'a, str>,
    nodes: Vec<Node>,
}

static NULL_NODE: [Node; 1] = [Node { kind: Kind::Null, start: 0, end: 0, next: 1 }];

/// One value of a document. It borrows the document, so a copy is cheap.
#[derive(Clone, Copy, Debug)]
pub struct Value<'d> {
    text: &'d str,
    nodes: &'d [Node],
    at: usize,
}

impl<'a> Document<'a> {
    /// Parse a document.
    ///
    /// # Errors
    /// `json_utf8`, `json_syntax`, `json_depth`, `json_number`, `json_surrogate`, `json_size` (4 GiB and more): the
    /// first error in reading order.
    pub fn parse(data: &'a [u8]) -> Result<Self, EngineError> {
        let text = std::str::from_utf8(data)
            .map_err(|error| refusal("json_utf8", &format!("not UTF-8 at byte {}", error.valid_up_to())))?;
        if data.len() >= u32::MAX as usize {
            return Err(refusal("json_size", "a document of 4 GiB or more"));
        }
        let nodes = Reader::new(data).document()?;
        Ok(Self { text: Cow::Borrowed(text), nodes })
    }

    /// Return the whole document as a value.
    pub fn root(&self) -> Value<'_> {
        self.value(0)
    }

    /// Return the value at a node from `Value::index`.
    pub fn value(&self, index: usize) -> Value<'_> {
        Value { text: &self.text, nodes: &self.nodes, at: index }
    }

    /// Return the same document, which then owns its text.
    pub fn into_owned(self) -> Document<'static> {
        Document { text: Cow::Owned(self.text.into_owned()), nodes: self.nodes }
    }

    /// Return the text from which the document was parsed.
    pub fn source(&self) -> &str {
        &self.text
    }
}

impl<'d> Value<'d> {
    /// Return a null that belongs to no document, for missing paths and a missing right side.
    pub fn null() -> Self {
        Value { text: "", nodes: &NULL_NODE, at: 0 }
    }

    fn node(self) -> &'d Node {
        &self.nodes[self.at]
    }

    /// Return the kind of this value.
    pub fn kind(self) -> Kind {
        self.node().kind
    }

    /// Return the value's node in its document, for `Document::value`.
    pub fn index(self) -> usize {
        self.at
    }

    /// Return the token as written: a number's text, or a text without its quotes.
    pub fn raw(self) -> &'d str {
        let node = self.node();
        &self.text[node.start as usize..node.end as usize]
    }

    /// Return true if this is a text.
    pub fn is_text(self) -> bool {
        matches!(self.kind(), Kind::Text | Kind::EscapedText)
    }

    /// Return the text with its escapes resolved, or None for any other kind.
    pub fn as_text(self) -> Option<Cow<'d, str>> {
        match self.kind() {
            Kind::Text => Some(Cow::Borrowed(self.raw())),
            Kind::EscapedText => Some(Cow::Owned(unescape(self.raw()))),
            _ => None,
        }
    }

    /// Return the beginning of a text in at most that many bytes, without splitting a character, and the bytes of the
    /// whole text. A large text is not unescaped for this.
    pub fn head(self, max_bytes: usize) -> (String, usize) {
        let raw = if self.is_text() { self.raw() } else { "" };
        let (mut head, mut size, mut is_full) = (String::new(), 0, false);
        for piece in pieces(raw) {
            let mut space = [0; 4];
            let text = match piece {
                Piece::Plain(plain) => plain,
                Piece::Escape(character) => &*character.encode_utf8(&mut space),
            };
            size += text.len();
            if !is_full {
                let mut end = text.len().min(max_bytes - head.len());
                while !text.is_char_boundary(end) {
                    end -= 1;
                }
                head.push_str(&text[..end]);
                is_full = end < text.len();
            }
        }
        (head, size)
    }

    /// Return true if a text has `\u`, `\t` or `\/`: escapes of characters that may also be written in another way.
    pub fn has_odd_escape(self) -> bool {
        let bytes = self.raw().as_bytes();
        let mut from = 0;
        while let Some(at) = memchr::memchr(b'\\', &bytes[from..]) {
            from += at + 2;
            if matches!(bytes.get(from - 1), Some(b'u' | b't' | b'/')) {
                return true;
            }
        }
        false
    }

    /// Return true if this text equals another; false for any other kind.
    pub fn is_text_equal(self, other: &str) -> bool {
        match self.kind() {
            Kind::Text => self.raw() == other,
            Kind::EscapedText => unescape(self.raw()) == other,
            _ => false,
        }
    }

    /// Return an integer's text. `-0` becomes `0`, because Python's integers have no negative zero.
    pub fn integer_text(self) -> &'d str {
        let raw = self.raw();
        if raw == "-0" {
            "0"
        } else {
            raw
        }
    }

    /// Return a number as the nearest double (an integer may become infinite), or 0 for any other kind.
    pub fn as_double(self) -> f64 {
        self.raw().parse().unwrap_or(0.0)
    }

    /// Return the number of elements or members as written, or 0 for any other kind.
    pub fn len(self) -> usize {
        match self.kind() {
            Kind::Array | Kind::Object => self.node().end as usize,
            _ => 0,
        }
    }

    /// Return true if `len` is 0.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Return the elements of an array; none for any other kind.
    pub fn elements(self) -> impl Iterator<Item = Value<'d>> {
        let mut at = self.at + 1;
        let count = if self.kind() == Kind::Array { self.len() } else { 0 };
        (0..count).map(move |_| {
            let element = Value { at, ..self };
            at = element.node().next as usize;
            element
        })
    }

    /// Return the members of an object as written, with repeated keys; none for any other kind.
    pub fn members(self) -> impl Iterator<Item = (Value<'d>, Value<'d>)> {
        let mut at = self.at + 1;
        let count = if self.kind() == Kind::Object { self.len() } else { 0 };
        (0..count).map(move |_| {
            let key = Value { at, ..self };
            let value = Value { at: at + 1, ..self };
            at = value.node().next as usize;
            (key, value)
        })
    }

    /// Return the members of an object as a dict has them: of equal keys the last value, at the place of the first.
    pub fn distinct_members(self) -> Vec<(Value<'d>, Value<'d>)> {
        let mut members: Vec<(Value<'d>, Value<'d>)> = self.members().collect();
        if has_repeated_key(&members) {
            let mut places = std::collections::HashMap::new();
            let mut kept: Vec<(Value<'d>, Value<'d>)> = Vec::with_capacity(members.len());
            for (key, value) in members {
                let place = *places.entry(key.as_text().unwrap_or_default()).or_insert(kept.len());
                if place == kept.len() {
                    kept.push((key, value));
                } else {
                    kept[place].1 = value;
                }
            }
            members = kept;
        }
        members
    }

    /// Return the value of a key; of equal keys the last one counts.
    pub fn get(self, name: &str) -> Option<Value<'d>> {
        self.members().filter(|(key, _)| key.is_text_equal(name)).last().map(|(_, value)| value)
    }

    /// Return the element at an index.
    pub fn element(self, index: usize) -> Option<Value<'d>> {
        if index < self.len() {
            self.elements().nth(index)
        } else {
            None
        }
    }

    /// Return the value at a path through objects (by key) and arrays (by index), or null if there is none.
    pub fn walk(self, path: &[Segment]) -> Value<'d> {
        let mut value = self;
        for segment in path {
            let next = match value.kind() {
                Kind::Object => value.get(&segment.key),
                Kind::Array => segment.index.and_then(|index| value.element(index)),
                _ => None,
            };
            match next {
                Some(found) => value = found,
                None => return Value::null(),
            }
        }
        value
    }

    /// Write compact JSON: raw non-ASCII text, short escapes, floats as Python prints them.
    pub fn write(self, out: &mut Vec<u8>) {
        match self.kind() {
            Kind::Null => out.extend_from_slice(b"null"),
            Kind::True => out.extend_from_slice(b"true"),
            Kind::False => out.extend_from_slice(b"false"),
            Kind::Integer => out.extend_from_slice(self.integer_text().as_bytes()),
            Kind::Float => write_float(self.raw(), out),
            Kind::Text => {
                out.push(b'"');
                out.extend_from_slice(self.raw().as_bytes());
                out.push(b'"');
            }
            Kind::EscapedText => {
                out.push(b'"');
                for piece in pieces(self.raw()) {
                    match piece {
                        Piece::Plain(plain) => out.extend_from_slice(plain.as_bytes()),
                        Piece::Escape(character) => write_escaped(character.encode_utf8(&mut [0; 4]), out),
                    }
                }
                out.push(b'"');
            }
            Kind::Array => {
                out.push(b'[');
                for (position, element) in self.elements().enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    element.write(out);
                }
                out.push(b']');
            }
            Kind::Object => {
                out.push(b'{');
                for (position, (key, value)) in self.distinct_members().into_iter().enumerate() {
                    if position > 0 {
                        out.push(b',');
                    }
                    key.write(out);
                    out.push(b':');
                    value.write(out);
                }
                out.push(b'}');
            }
        }
    }
}

/// One step of a path: a key, and an index if the key can be read as one.
#[derive(Clone, Debug)]
pub struct Segment {
    key: String,
    index: Option<usize>,
}

impl Segment {
    /// Parse an index as `usize` does: `01` and `+1` are numbers; `-1`, "" and non-ASCII digits are not.
    pub fn new(key: &str) -> Self {
        Self { key: key.to_owned(), index: key.parse().ok() }
    }
}

/// Largest number of members of an object whose keys are compared pair by pair, which needs no allocation.
const PAIRWISE: usize = 12;

fn has_repeated_key(members: &[(Value<'_>, Value<'_>)]) -> bool {
    if members.len() < 2 {
        return false;
    }
    let is_plain = members.iter().all(|(key, _)| key.kind() == Kind::Text);
    if is_plain && members.len() <= PAIRWISE {
        return members
            .iter()
            .enumerate()
            .any(|(position, (key, _))| members[..position].iter().any(|(other, _)| other.raw() == key.raw()));
    }
    let mut seen = std::collections::HashSet::with_capacity(members.len());
    !members.iter().all(|(key, _)| seen.insert(key.as_text().unwrap_or_default()))
}

fn unescape(raw: &str) -> String {
    let mut text = String::with_capacity(raw.len());
    for piece in pieces(raw) {
        match piece {
            Piece::Plain(plain) => text.push_str(plain),
            Piece::Escape(character) => text.push(character),
        }
    }
    text
}

enum Piece<'d> {
    Plain(&'d str),
    Escape(char),
}

/// A text without its quotes, from escape to escape.
fn pieces(raw: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = raw;
    std::iter::from_fn(move || match memchr::memchr(b'\\', rest.as_bytes()) {
        Some(0) => {
            let (character, used) = match rest.as_bytes()[1] {
                b'b' => ('\u{8}', 2),
                b'f' => ('\u{c}', 2),
                b'n' => ('\n', 2),
                b'r' => ('\r', 2),
                b't' => ('\t', 2),
                b'u' => unescape_unicode(rest.as_bytes()),
                other => (char::from(other), 2),
            };
            rest = &rest[used..];
            Some(Piece::Escape(character))
        }
        _ if rest.is_empty() => None,
        found => {
            let (plain, after) = rest.split_at(found.unwrap_or(rest.len()));
            rest = after;
            Some(Piece::Plain(plain))
        }
    })
}

fn unescape_unicode(escape: &[u8]) -> (char, usize) {
    let high = hex4(&escape[2..]).unwrap_or(0);
    if !(0xD800..0xDC00).contains(&high) {
        return (char::from_u32(high).unwrap_or('\u{FFFD}'), 6);
    }
    let low = hex4(&escape[8..]).unwrap_or(0);
    let code = 0x10000 + ((high - 0xD800) << 10) + low.wrapping_sub(0xDC00);
    (char::from_u32(code).unwrap_or('\u{FFFD}'), 12)
}

/// Write a text with its quotes, escaped as Python's encoder does.
pub fn write_text(text: &str, out: &mut Vec<u8>) {
    out.push(b'"');
    write_escaped(text, out);
    out.push(b'"');
}

fn write_escaped(text: &str, out: &mut Vec<u8>) {
    let bytes = text.as_bytes();
    let mut start = 0;
    for (at, byte) in bytes.iter().enumerate() {
        let short: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            8 => b"\\b",
            12 => b"\\f",
            0..=31 => b"",
            _ => continue,
        };
        out.extend_from_slice(&bytes[start..at]);
        if short.is_empty() {
            out.extend_from_slice(format!("\\u{byte:04x}").as_bytes());
        } else {
            out.extend_from_slice(short);
        }
        start = at + 1;
    }
    out.extend_from_slice(&bytes[start..]);
}

/// Write a float as Python's `repr` does, from its JSON text.
fn write_float(raw: &str, out: &mut Vec<u8>) {
    if is_printed_already(raw.as_bytes()) {
        out.extend_from_slice(raw.as_bytes());
        return;
    }
    let value: f64 = raw.parse().unwrap_or(0.0);
    let scientific = format!("{value:e}");
    let (mantissa, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |rest| ("-", rest));
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let digits = even_digits(value, exponent, digits.len()).unwrap_or(digits);
    let printed = if (-4..16).contains(&exponent) {
        fixed(&digits, exponent)
    } else {
        let (first, rest) = digits.split_at(1);
        let point = if rest.is_empty() { "" } else { "." };
        let mark = if exponent < 0 { '-' } else { '+' };
        format!("{first}{point}{rest}e{mark}{:02}", exponent.abs())
    };
    out.extend_from_slice(sign.as_bytes());
    out.extend_from_slice(printed.as_bytes());
}

/// Return the digits of a double midway between its two shortest texts, if the lower text is even. Python's `repr`
/// takes the lower text then (562949953421312.25 is ...2.2), Rust always takes the upper one. A double midway has at
/// most 18 digits, and so at most 25 binary places.
fn even_digits(value: f64, exponent: i32, shortest: usize) -> Option<String> {
    const PLACES: f64 = (1u32 << 25) as f64;
    const MOST_DIGITS: usize = 45;
    if value.abs() >= 1e16 || (value * PLACES).fract() != 0.0 {
        return None;
    }
    let exact = format!("{:.MOST_DIGITS$e}", value.abs());
    let digits: String = exact.split('e').next()?.chars().filter(char::is_ascii_digit).collect();
    let lower = digits.trim_end_matches('0').strip_suffix('5')?;
    let is_even = matches!(lower.as_bytes().last(), Some(b'0' | b'2' | b'4' | b'6' | b'8'));
    let (first, rest) = lower.split_at_checked(1)?;
    let is_short = format!("{first}.{rest}e{exponent}").parse() == Ok(value.abs());
    (is_even && is_short && lower.len() == shortest).then(|| lower.to_owned())
}

fn fixed(digits: &str, exponent: i32) -> String {
    if exponent < 0 {
        return format!("0.{}{digits}", "0".repeat(exponent.unsigned_abs() as usize - 1));
    }
    let whole = exponent.unsigned_abs() as usize + 1;
    if digits.len() <= whole {
        format!("{digits}{}.0", "0".repeat(whole - digits.len()))
    } else {
        format!("{}.{}", &digits[..whole], &digits[whole..])
    }
}

/// Return true if `repr(float(raw))` is `raw`. Up to 15 digits round-trip through a double, so only the form decides.
fn is_printed_already(raw: &[u8]) -> bool {
    let digits = raw.strip_prefix(b"-").unwrap_or(raw);
    if digits.len() > 16 {
        return false;
    }
    let Some(point) = memchr::memchr(b'.', digits) else { return false };
    let (whole, fraction) = (&digits[..point], &digits[point + 1..]);
    if fraction.contains(&b'e') || fraction.contains(&b'E') {
        return false;
    }
    let is_small = whole == b"0" && fraction.iter().take(4).all(|digit| *digit == b'0');
    fraction == b"0" || (fraction.last() != Some(&b'0') && !is_small)
}
