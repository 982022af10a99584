//! The JSON parser: bytes to nodes, without recursion and without looking at a byte twice.
//! Twin: `DocumentReader` in `python/noetl_worker/engine/pure/document.py`.

use crate::error::{EngineError, Family};

/// Largest depth of nested arrays and objects in a document.
pub const MAX_DEPTH: usize = 512;
/// Largest number of digits of an integer; CPython's own default limit.
pub const MAX_INTEGER_DIGITS: usize = 4_300;

/// The kind of a JSON value. `1` and `1.0` are of different kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// null
    Null,
    /// true
    True,
    /// false
    False,
    /// A number without fraction and exponent.
    Integer,
    /// Any other number.
    Float,
    /// A text without escapes.
    Text,
    /// A text with escapes.
    EscapedText,
    /// An array.
    Array,
    /// An object.
    Object,
}

/// The node of one value. Nodes are in reading order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node {
    pub(crate) kind: Kind,
    /// First byte of the token (inside the quotes of a text).
    pub(crate) start: u32,
    /// Byte after the token; for containers the number of elements or members as written.
    pub(crate) end: u32,
    /// Index of the node after this one's subtree.
    pub(crate) next: u32,
}

/// The parser. It reads from left to right, and the first mistake decides the error.
pub(crate) struct Reader<'a> {
    data: &'a [u8],
    at: usize,
    nodes: Vec<Node>,
    /// Nodes of the open containers.
    open: Vec<u32>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0, nodes: Vec::with_capacity(data.len() / 10 + 8), open: Vec::with_capacity(16) }
    }

    pub(crate) fn document(mut self) -> Result<Vec<Node>, EngineError> {
        self.value()?;
        self.skip_space();
        if self.at != self.data.len() {
            return self.fail("json_syntax", "unexpected text after the document");
        }
        Ok(self.nodes)
    }

    /// Read one value without recursion.
    fn value(&mut self) -> Result<(), EngineError> {
        loop {
            if let Some(is_object) = self.scalar_or_open()? {
                if !self.closes(is_object) {
                    if is_object {
                        self.key()?;
                    }
                    continue;
                }
                self.close();
            }
            loop {
                let Some(container) = self.open.last() else { return Ok(()) };
                let container = *container as usize;
                let is_object = self.nodes[container].kind == Kind::Object;
                self.nodes[container].end += 1;
                if !self.ends(is_object)? {
                    if is_object {
                        self.key()?;
                    }
                    break;
                }
                self.close();
            }
        }
    }

    fn close(&mut self) {
        if let Some(container) = self.open.pop() {
            self.nodes[container as usize].next = self.nodes.len() as u32;
        }
    }

    /// Read a scalar (None) or the opening bracket of an object (true) or array (false).
    fn scalar_or_open(&mut self) -> Result<Option<bool>, EngineError> {
        self.skip_space();
        match self.peek() {
            b'"' => self.text()?,
            b'{' => return self.open_container(Kind::Object).map(Some),
            b'[' => return self.open_container(Kind::Array).map(Some),
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.word(b"true", Kind::True)?,
            b'f' => self.word(b"false", Kind::False)?,
            b'n' => self.word(b"null", Kind::Null)?,
            _ => return self.fail("json_syntax", "expected a value"),
        }
        Ok(None)
    }

    fn open_container(&mut self, kind: Kind) -> Result<bool, EngineError> {
        if self.open.len() == MAX_DEPTH {
            return self.fail("json_depth", &format!("more than {MAX_DEPTH} nested arrays and objects"));
        }
        self.open.push(self.nodes.len() as u32);
        self.nodes.push(Node { kind, start: self.at as u32, end: 0, next: 0 });
        self.at += 1;
        Ok(kind == Kind::Object)
    }

    fn word(&mut self, word: &[u8], kind: Kind) -> Result<(), EngineError> {
        if !self.data[self.at..].starts_with(word) {
            return self.fail("json_syntax", "expected a value");
        }
        self.token(kind, self.at, self.at + word.len());
        self.at += word.len();
        Ok(())
    }

    fn token(&mut self, kind: Kind, start: usize, end: usize) {
        let next = self.nodes.len() as u32 + 1;
        self.nodes.push(Node { kind, start: start as u32, end: end as u32, next });
    }

    fn closes(&mut self, is_object: bool) -> bool {
        self.skip_space();
        let closes = self.peek() == if is_object { b'}' } else { b']' };
        self.at += usize::from(closes);
        closes
    }

    fn ends(&mut self, is_object: bool) -> Result<bool, EngineError> {
        if self.closes(is_object) {
            return Ok(true);
        }
        if self.peek() != b',' {
            let closer = if is_object { '}' } else { ']' };
            return self.fail("json_syntax", &format!("expected ',' or '{closer}'"));
        }
        self.at += 1;
        Ok(false)
    }

    fn key(&mut self) -> Result<(), EngineError> {
        self.skip_space();
        if self.peek() != b'"' {
            return self.fail("json_syntax", "expected a key in double quotes");
        }
        self.text()?;
        self.skip_space();
        if self.peek() != b':' {
            return self.fail("json_syntax", "expected ':'");
        }
        self.at += 1;
        Ok(())
    }

    fn number(&mut self) -> Result<(), EngineError> {
        let start = self.at;
        let first = start + usize::from(self.data[start] == b'-');
        let whole = match self.data.get(first) {
            Some(b'0') => first + 1,
            Some(b'1'..=b'9') => self.digits(first),
            _ => return self.fail("json_syntax", "expected a value"),
        };
        let mut end = whole;
        if self.data.get(end) == Some(&b'.') && self.digits(end + 1) > end + 1 {
            end = self.digits(end + 1);
        }
        if matches!(self.data.get(end), Some(b'e' | b'E')) {
            let sign = usize::from(matches!(self.data.get(end + 1), Some(b'+' | b'-')));
            let after = self.digits(end + 1 + sign);
            if after > end + 1 + sign {
                end = after;
            }
        }
        if end == whole {
            if whole - first > MAX_INTEGER_DIGITS {
                return self.fail("json_number", &format!("an integer of more than {MAX_INTEGER_DIGITS} digits"));
            }
            self.token(Kind::Integer, start, end);
        } else {
            self.refuse_infinite(start, end)?;
            self.token(Kind::Float, start, end);
        }
        self.at = end;
        Ok(())
    }

    /// Check the range of a float. Only one with an exponent or a very long integer part can be out of range, so others
    /// are not converted here.
    fn refuse_infinite(&mut self, start: usize, end: usize) -> Result<(), EngineError> {
        let token = &self.data[start..end];
        let may_be = token.len() > 300 || memchr::memchr2(b'e', b'E', token).is_some();
        let is_infinite = may_be
            && std::str::from_utf8(token).ok().and_then(|text| text.parse::<f64>().ok()).is_none_or(f64::is_infinite);
        if is_infinite {
            return self.fail("json_number", "a number out of range");
        }
        Ok(())
    }

    fn digits(&self, from: usize) -> usize {
        let mut at = from;
        while self.data.get(at).is_some_and(u8::is_ascii_digit) {
            at += 1;
        }
        at
    }

    fn text(&mut self) -> Result<(), EngineError> {
        self.at += 1;
        let start = self.at;
        let mut kind = Kind::Text;
        loop {
            self.at = plain_end(self.data, self.at);
            match self.data.get(self.at) {
                Some(b'"') => {
                    self.token(kind, start, self.at);
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => {
                    kind = Kind::EscapedText;
                    self.escape()?;
                }
                None => return self.fail("json_syntax", "unterminated text"),
                Some(_) => return self.fail("json_syntax", "control character in text"),
            }
        }
    }

    fn escape(&mut self) -> Result<(), EngineError> {
        match self.data.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => {
                self.at += 2;
                return Ok(());
            }
            Some(b'u') => {}
            _ => return self.fail("json_syntax", "unknown escape"),
        }
        let high = self.hex4(self.at + 2)?;
        if !(0xD800..=0xDFFF).contains(&high) {
            self.at += 6;
            return Ok(());
        }
        if high >= 0xDC00 || !self.data[self.at + 6..].starts_with(b"\\u") {
            return self.fail("json_surrogate", "half of a surrogate pair");
        }
        if !(0xDC00..=0xDFFF).contains(&self.hex4(self.at + 8)?) {
            return self.fail("json_surrogate", "half of a surrogate pair");
        }
        self.at += 12;
        Ok(())
    }

    fn hex4(&self, at: usize) -> Result<u32, EngineError> {
        match self.data.get(at..).and_then(hex4) {
            Some(value) => Ok(value),
            None => self.fail("json_syntax", "unknown escape"),
        }
    }

    fn peek(&self) -> u8 {
        self.data.get(self.at).copied().unwrap_or(0)
    }

    fn skip_space(&mut self) {
        while matches!(self.data.get(self.at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    #[cold]
    fn fail<T>(&self, code: &'static str, what: &str) -> Result<T, EngineError> {
        Err(refusal(code, &format!("{what} at byte {}", self.at)))
    }
}

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

/// Find the first quote, backslash or control character, eight bytes at a time.
fn plain_end(data: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(chunk) = data.get(at..at + 8) {
        let word = u64::from_le_bytes(chunk.try_into().unwrap_or([0; 8]));
        let quote = word ^ (LOW * 0x22);
        let slash = word ^ (LOW * 0x5C);
        let special = (quote.wrapping_sub(LOW) & !quote) | (slash.wrapping_sub(LOW) & !slash);
        let control = word.wrapping_sub(LOW * 0x20) & !word;
        let found = (special | control) & HIGH;
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while data.get(at).is_some_and(|byte| !matches!(byte, b'"' | b'\\' | 0..=31)) {
        at += 1;
    }
    at
}

/// Read four hexadecimal digits at the start.
pub(crate) fn hex4(bytes: &[u8]) -> Option<u32> {
    bytes.get(..4)?.iter().try_fold(0, |value, byte| Some(value * 16 + char::from(*byte).to_digit(16)?))
}

pub(crate) fn refusal(code: &'static str, message: &str) -> EngineError {
    EngineError::new(Family::Document, code, message)
}
