//! The fitting of a result to an event: redaction, size and preview.
//! Twin: `python/noetl_worker/engine/pure/fit.py`.

use std::borrow::Cow;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use crate::document::{write_text, Document, Kind, Value};
use crate::error::EngineError;
use crate::redact::{holds_text, is_kept, is_reference, kept_keys, may_hold_credential, named_by, redact, Named};
use crate::secrets::{Secrets, MARK};
use crate::wrapped::lines_in_document;

/// Longest text of a preview, in bytes of UTF-8.
pub const TEXT_BYTES: usize = 512;
/// Smallest number of bytes in which a member fits: `"":1` and a comma.
const SMALLEST_MEMBER: i64 = 6;

/// Largest number of keys that are remembered. A document with ten thousand different keys would not profit from more.
const MAX_KNOWN_KEYS: usize = 256;

/// Rules for fitting a result into an event.
#[derive(Clone, Debug)]
pub struct Rules {
    /// Largest size of the compact JSON, inclusive.
    pub max_bytes: usize,
    /// Largest size of the preview.
    pub preview_bytes: usize,
    /// Largest number of nested levels of the preview.
    pub preview_depth: usize,
    /// Known secret values, replaced wherever they appear.
    pub secrets: Vec<String>,
    /// Known secret values, replaced only as whole words.
    pub secret_words: Vec<String>,
}

/// A result that was redacted and measured in one pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fitted {
    /// Compact JSON, redacted.
    pub body: Vec<u8>,
    /// Number of replacements.
    pub redactions: usize,
    /// A bounded summary if the body is over the budget.
    pub preview: Option<Vec<u8>>,
}

/// Redact a JSON document, measure its compact form, and make a preview if that is over the budget.
///
/// # Errors
/// `DocumentError`.
pub fn fit_result(data: &[u8], rules: &Rules) -> Result<Fitted, EngineError> {
    let document = Document::parse(data)?;
    // The whole text is searched once instead of each value. Escapes can hide a trigger or a secret from this search,
    // so texts with escapes are checked one by one.
    let mut prepared = Secrets::prepare(&rules.secrets, &rules.secret_words, &[]);
    let lines = prepared.as_ref().map_or(vec![], |secrets| lines_in_document(&document, secrets));
    if !lines.is_empty() {
        prepared = Secrets::prepare(&rules.secrets, &rules.secret_words, &lines);
    }
    let mut redacting = Redacting {
        is_plain: !may_hold_credential(document.source())
            && prepared.as_ref().is_none_or(|secrets| !secrets.is_in(document.source())),
        has_numbers: prepared.as_ref().is_some_and(Secrets::have_numbers),
        secrets: prepared,
        knows_only: false,
        count: 0,
        known_keys: HashMap::default(),
        out: Vec::with_capacity(data.len() + 64),
    };
    redacting.value(document.root());
    let (body, redactions) = (redacting.out, redacting.count);
    let preview = if body.len() > rules.max_bytes { Some(parse_and_preview(&body, rules)?) } else { None };
    Ok(Fitted { body, redactions, preview })
}

fn parse_and_preview(body: &[u8], rules: &Rules) -> Result<Vec<u8>, EngineError> {
    let document = Document::parse(body)?;
    let budget = i64::try_from(rules.preview_bytes).unwrap_or(i64::MAX);
    let preview = Preview { max_depth: rules.preview_depth };
    Ok(preview.value(document.root(), 1, budget).unwrap_or_else(|| b"null".to_vec()))
}

/// One walk through a document that writes it redacted.
struct Redacting<'d> {
    secrets: Option<Secrets<'d>>,
    /// True if no value without escapes contains anything to replace; keys are not included.
    is_plain: bool,
    /// True if a number may be a secret.
    has_numbers: bool,
    /// True inside a reference, which has to stay usable: only a text that is a secret as a whole is replaced.
    knows_only: bool,
    count: usize,
    /// Remembered keys, because rows repeat their keys.
    known_keys: HashMap<&'d str, Named, BuildHasherDefault<QuickHasher>>,
    out: Vec<u8>,
}

impl<'d> Redacting<'d> {
    fn value(&mut self, value: Value<'d>) {
        match value.kind() {
            Kind::Object => self.object(value),
            Kind::Array => {
                self.out.push(b'[');
                for (position, element) in value.elements().enumerate() {
                    if position > 0 {
                        self.out.push(b',');
                    }
                    self.value(element);
                }
                self.out.push(b']');
            }
            Kind::Text | Kind::Integer if self.is_plain => value.write(&mut self.out),
            Kind::EscapedText if self.is_plain && self.is_as_plain(value) => value.write(&mut self.out),
            Kind::Text | Kind::EscapedText => self.text(value),
            Kind::Integer | Kind::Float if self.has_numbers => self.number(value),
            _ => value.write(&mut self.out),
        }
    }

    /// Return true if the search of the whole source covered this text too, because no secret has any of the characters
    /// that are escaped in it. This avoids copying megabytes of lines.
    fn is_as_plain(&self, value: Value<'d>) -> bool {
        !value.has_odd_escape() && self.secrets.as_ref().is_none_or(Secrets::are_never_escaped)
    }

    /// Write a number, or the mark if it is a secret (a PIN, an account id).
    #[inline(never)] // keeps the recursive `value` small
    fn number(&mut self, value: Value<'d>) {
        let start = self.out.len();
        value.write(&mut self.out);
        // The number is compared as it is written here, not as in the source: 1234.50 is the secret 1234.5.
        let text = std::str::from_utf8(&self.out[start..]).unwrap_or_default();
        if self.secrets.as_ref().is_some_and(|secrets| secrets.include_number(text)) {
            self.count += 1;
            self.out.truncate(start);
            write_text(MARK, &mut self.out);
        }
    }

    #[inline(never)] // as above
    fn text(&mut self, value: Value<'d>) {
        let text = value.as_text().unwrap_or_default();
        let before = self.count;
        let redacted = match &self.secrets {
            Some(secrets) if self.knows_only && secrets.include(&text) => {
                self.count += 1;
                Cow::Borrowed(MARK)
            }
            _ if self.knows_only => Cow::Borrowed(text.as_ref()),
            secrets => redact(&text, secrets.as_ref(), &mut self.count),
        };
        if self.count == before && value.kind() == Kind::Text {
            value.write(&mut self.out);
        } else {
            write_text(&redacted, &mut self.out);
        }
    }

    fn object(&mut self, value: Value<'d>) {
        let members = value.distinct_members();
        let kept = kept_keys(&members);
        self.out.push(b'{');
        for (position, (key, child)) in members.into_iter().enumerate() {
            if position > 0 {
                self.out.push(b',');
            }
            self.key(key, position);
            self.out.push(b':');
            if !kept.is_empty() && is_kept(kept, key, child) {
                let outside = std::mem::replace(&mut self.knows_only, true);
                self.value(child);
                self.knows_only = outside;
            } else if !self.knows_only && self.hides(key, child) {
                self.count += 1;
                write_text(MARK, &mut self.out);
            } else {
                self.value(child);
            }
        }
        self.out.push(b'}');
    }

    /// Write a key, or a mark in place of the whole key. The position tells two such marks apart.
    #[inline]
    fn key(&mut self, key: Value<'d>, position: usize) {
        if self.is_plain && key.kind() == Kind::Text {
            key.write(&mut self.out);
        } else {
            self.doubtful_key(key, position);
        }
    }

    #[inline(never)] // as above
    fn doubtful_key(&mut self, key: Value<'d>, position: usize) {
        let text = key.as_text().unwrap_or_default();
        if self.secrets.as_ref().is_some_and(|secrets| secrets.is_in_key(&text)) {
            self.count += 1;
            write_text(&format!("{MARK}~{position}"), &mut self.out);
        } else {
            key.write(&mut self.out);
        }
    }

    /// Return true if a whole value is replaced because of its key. Null and booleans are never secret.
    #[inline]
    fn hides(&mut self, key: Value<'d>, value: Value<'d>) -> bool {
        match self.named(key) {
            Named::Nothing => false,
            Named::Secret => !matches!(value.kind(), Kind::Null | Kind::True | Kind::False) && !is_reference(value),
            Named::Secrets => holds_text(value) && !is_reference(value),
        }
    }

    #[inline]
    fn named(&mut self, key: Value<'d>) -> Named {
        if key.kind() == Kind::EscapedText {
            return named_by(&key.as_text().unwrap_or_default());
        }
        let raw = key.raw();
        if let Some(known) = self.known_keys.get(raw) {
            return *known;
        }
        let named = named_by(raw);
        if self.known_keys.len() < MAX_KNOWN_KEYS {
            self.known_keys.insert(raw, named);
        }
        named
    }
}

/// An FNV hasher over eight bytes at a time. Keys that collide on purpose cost time only up to `MAX_KNOWN_KEYS`.
struct QuickHasher(u64);

impl Default for QuickHasher {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for QuickHasher {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.0 = (self.0 ^ u64::from_le_bytes(word)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        }
    }

    fn finish(&self) -> u64 {
        self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

/// Each call gets a budget in bytes and returns JSON within it, or None when nothing useful fits.
struct Preview {
    max_depth: usize,
}

impl Preview {
    fn value(&self, value: Value<'_>, depth: usize, budget: i64) -> Option<Vec<u8>> {
        let made = match value.kind() {
            Kind::Object if depth > self.max_depth => mark("_keys", value.len()),
            Kind::Object => self.object(value, depth, budget),
            Kind::Array if depth > self.max_depth => mark("_count", value.len()),
            Kind::Array => self.array(value, depth, budget),
            Kind::Text | Kind::EscapedText => head(value),
            _ => {
                let mut out = Vec::new();
                value.write(&mut out);
                out
            }
        };
        (size(&made) <= budget).then_some(made)
    }

    fn array(&self, value: Value<'_>, depth: usize, budget: i64) -> Vec<u8> {
        let Some(first) = value.element(0) else { return b"[]".to_vec() };
        if value.len() == 1 {
            return match self.value(first, depth + 1, budget - 2) {
                Some(only) => [b"[", &only[..], b"]"].concat(),
                None => mark("_count", 1),
            };
        }
        let mark = mark("_count", value.len());
        match self.value(first, depth + 1, budget - 3 - size(&mark)) {
            Some(first) => [b"[", &first[..], b",", &mark[..], b"]"].concat(),
            None => mark,
        }
    }

    /// Return the preview of an object. Scalars get their space first, so that a `row_count` after a thousand rows
    /// survives; containers share the rest.
    fn object(&self, value: Value<'_>, depth: usize, budget: i64) -> Vec<u8> {
        let mark_text = mark("_keys", value.len());
        let mark_text = &mark_text[1..mark_text.len() - 1];
        let mut room = budget - 2 - size(mark_text) - 1;
        let mut made: Vec<(usize, Vec<u8>)> = Vec::new();
        let mut containers = Vec::new();
        let mut longest_cut = 0;
        for (position, (key, child)) in value.members().enumerate() {
            if matches!(child.kind(), Kind::Object | Kind::Array) {
                containers.push((position, key, child));
                continue;
            }
            if room < SMALLEST_MEMBER {
                break;
            }
            if let Some(piece) = self.member(key, child, depth, room) {
                room -= size(&piece) + 1;
                made.push((position, piece));
                let (_, length) = child.head(0);
                longest_cut = longest_cut.max(if length > TEXT_BYTES { length } else { 0 });
            }
        }
        let count = containers.len();
        for (done, (position, key, child)) in containers.into_iter().enumerate() {
            if room < SMALLEST_MEMBER {
                break;
            }
            if let Some(piece) = self.member(key, child, depth, room / (count - done) as i64) {
                room -= size(&piece) + 1;
                made.push((position, piece));
            }
        }
        made.sort_by_key(|(position, _)| *position);
        let is_complete = made.len() == value.len();
        let mut pieces: Vec<Vec<u8>> = made.into_iter().map(|(_, piece)| piece).collect();
        let cut = mark("_len", longest_cut);
        let cut = &cut[1..cut.len() - 1];
        if !is_complete {
            pieces.push(mark_text.to_vec());
        } else if longest_cut > 0 && size(cut) <= room + size(mark_text) {
            pieces.push(cut.to_vec());
        }
        [b"{", &pieces.join(&b',')[..], b"}"].concat()
    }

    fn member(&self, key: Value<'_>, child: Value<'_>, depth: usize, room: i64) -> Option<Vec<u8>> {
        let mut piece = Vec::new();
        key.write(&mut piece);
        piece.push(b':');
        let value = self.value(child, depth + 1, room - size(&piece))?;
        piece.extend_from_slice(&value);
        Some(piece)
    }
}

fn size(bytes: &[u8]) -> i64 {
    i64::try_from(bytes.len()).unwrap_or(i64::MAX)
}

fn mark(name: &str, number: usize) -> Vec<u8> {
    format!("{{\"_truncated\":true,\"{name}\":{number}}}").into_bytes()
}

/// Cut a text to 512 bytes of UTF-8 without splitting a character.
fn head(value: Value<'_>) -> Vec<u8> {
    let (text, _) = value.head(TEXT_BYTES);
    let mut out = Vec::with_capacity(text.len() + 2);
    write_text(&text, &mut out);
    out
}
