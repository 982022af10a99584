//! Redaction of secrets before they leave the worker: by key, by known value, by the shape of a credential.
//! Redacting twice changes nothing more. For this, URLs come last, since other rules may leave a part of one behind.
//! Twin: `python/noetl_worker/engine/pure/redact.py`.

use std::borrow::Cow;
use std::sync::OnceLock;

use aho_corasick::{packed, AhoCorasick};
use regex::Regex;

use crate::document::{Kind, Value};
use crate::secrets::{Secrets, MARK};
use crate::wrapped::lines_in_text;

const SENSITIVE_WORDS: &[&str] = &[
    "password",
    "passwords",
    "passwd",
    "passphrase",
    "pwd",
    "pgpassword",
    "creds",
    "secret",
    "secrets",
    "token",
    "auth",
    "authorization",
    "authentication",
    "credential",
    "credentials",
    "cookie",
    "cookies",
    "bearer",
    "jwt",
    "pem",
    "cert",
    "apikey",
    "accesskey",
    "secretkey",
    "privatekey",
    "authtoken",
    "accesstoken",
    "refreshtoken",
    "sessionid",
    "dsn",
];
const SENSITIVE_PAIRS: &[(&str, &str)] = &[
    ("api", "key"),
    ("access", "key"),
    ("account", "key"),
    ("client", "key"),
    ("encryption", "key"),
    ("private", "key"),
    ("signing", "key"),
    ("ssh", "key"),
    ("pass", "word"),
    ("session", "id"),
    ("connection", "string"),
];
const DESCRIBING_WORDS: &[&str] = &[
    "name",
    "names",
    "type",
    "types",
    "kind",
    "url",
    "uri",
    "endpoint",
    "count",
    "counts",
    "length",
    "limit",
    "limits",
    "size",
    "budget",
    "usage",
    "expires",
    "expiry",
    "expiration",
    "ttl",
    "at",
    "in",
    "required",
    "enabled",
    "policy",
    "method",
    "path",
    "file",
    "version",
    "scope",
    "scopes",
    "status",
];
const PAGING_WORDS: &[&str] = &["page", "next", "prev", "previous", "continuation", "sync"];
/// Words after which `tokens` are secrets; elsewhere they are pieces of a text, or the number of them.
const TOKEN_WORDS: &[&str] = &[
    "access",
    "refresh",
    "id",
    "auth",
    "oauth",
    "api",
    "bearer",
    "session",
    "csrf",
    "xsrf",
    "secret",
    "security",
    "personal",
    "private",
    "service",
    "user",
    "client",
    "device",
    "bot",
    "login",
    "deploy",
    "registration",
    "verification",
    "invite",
];
const REFERENCE_KINDS: [&str; 2] = ["result_ref", "temp_ref"];
/// The only keys of a plain reference: it has no `extracted` and no preview.
const REFERENCE_FIELDS: &[&str] =
    &["kind", "ref", "store", "scope", "meta", "correlation", "expires_at", "uri", "ipc"];

const CREDENTIAL: &str = concat!(
    r"(?-u:\b)(?:[Bb]earer|BEARER)[ \t]+[A-Za-z0-9._~+/=-]{6,}",
    r"|(?-u:\b)(?:[Bb]asic|BASIC)[ \t]+[A-Za-z0-9+/]{8,}={0,2}",
    r"|(?-u:\b)eyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]*",
    r"|-----BEGIN [A-Z0-9 ]{1,64}-----(?s:.*?)(?:-----END [A-Z0-9 ]{1,64}-----|\z)",
    r"|(?-u:\b)sk-[A-Za-z0-9_-]{16,}",
    r"|(?-u:\b)gh[opsur]_[A-Za-z0-9]{16,}",
    r"|(?-u:\b)github_pat_[A-Za-z0-9_]{16,}",
    r"|(?-u:\b)AIza[A-Za-z0-9_-]{16,}",
    r"|(?-u:\b)ya29\.[A-Za-z0-9._-]{8,}",
    r"|(?-u:\b)xox[abeoprs]-[A-Za-z0-9-]{8,}",
);
/// The password in a URL, up to the last @ before the host: clients accept a password with an unescaped @.
const ADDRESS: &str = r#"(://[^/ \t\r\n:@?#]*:)([^/ \t\r\n@]+(?:@[^/ \t\r\n@"'<>,;]+)*)@"#;
/// Texts of which at least one is in every text that `CREDENTIAL` matches.
const TRIGGERS: [&str; 18] = [
    "earer ",
    "earer\t",
    "EARER",
    "asic ",
    "asic\t",
    "ASIC",
    "eyJ",
    "-----BEGIN ",
    "sk-",
    "gho_",
    "ghp_",
    "ghs_",
    "ghu_",
    "ghr_",
    "github_pat_",
    "AIza",
    "ya29.",
    "xox",
];
const ASSIGNMENT: &str = concat!(
    r"(?-u:\b)((?:[Pp][Aa][Ss][Ss][Ww][Oo][Rr][Dd]|[Pp][Aa][Ss][Ss][Ww][Dd]|[Pp][Ww][Dd]",
    r"|[Pp][Aa][Ss][Ss][Pp][Hh][Rr][Aa][Ss][Ee]|[Ss][Ee][Cc][Rr][Ee][Tt]|[Tt][Oo][Kk][Ee][Nn]",
    r"|[Aa][Pp][Ii][_-]?[Kk][Ee][Yy]|access_token|client_secret)=)",
    r#"((?:"[^"]*"|'[^']*')[^ \t\r\n&;,'"]*|[^ \t\r\n&;,'"]+)"#,
);

fn built(cell: &'static OnceLock<Option<Regex>>, pattern: &str) -> Option<&'static Regex> {
    cell.get_or_init(|| Regex::new(pattern).ok()).as_ref()
}

fn credential() -> Option<&'static Regex> {
    static CELL: OnceLock<Option<Regex>> = OnceLock::new();
    built(&CELL, CREDENTIAL)
}

fn address() -> Option<&'static Regex> {
    static CELL: OnceLock<Option<Regex>> = OnceLock::new();
    built(&CELL, ADDRESS)
}

fn assignment() -> Option<&'static Regex> {
    static CELL: OnceLock<Option<Regex>> = OnceLock::new();
    built(&CELL, ASSIGNMENT)
}

/// The search for triggers: a vector searcher if the processor has one, else an automaton, which visits every byte.
enum Triggers {
    Vector(packed::Searcher),
    Automaton(AhoCorasick),
    /// No search, because neither could be built: the regular expression searches every text.
    Nothing,
}

impl Triggers {
    fn get() -> &'static Self {
        static CELL: OnceLock<Triggers> = OnceLock::new();
        CELL.get_or_init(|| match (packed::Searcher::new(TRIGGERS), AhoCorasick::new(TRIGGERS)) {
            (Some(searcher), _) => Triggers::Vector(searcher),
            (None, Ok(automaton)) => Triggers::Automaton(automaton),
            (None, Err(_)) => Triggers::Nothing,
        })
    }

    fn is_in(&self, text: &str) -> bool {
        match self {
            Triggers::Vector(searcher) => searcher.find(text).is_some(),
            Triggers::Automaton(automaton) => automaton.is_match(text),
            Triggers::Nothing => true,
        }
    }
}

/// Return true if `CREDENTIAL` may match in a text. This filter is many times faster than the regular expression.
pub fn may_hold_credential(text: &str) -> bool {
    text.len() >= 6 && (may_hold_address(text) || Triggers::get().is_in(text))
}

fn may_hold_address(text: &str) -> bool {
    memchr::memchr(b'@', text.as_bytes()).is_some() && memchr::memmem::find(text.as_bytes(), b"://").is_some()
}

/// Conclusion from a key's name about its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// The value is not a secret.
    Nothing,
    /// The value is a secret, whatever it is.
    Secret,
    /// The value is secret if it contains a text: `access_tokens: 5` is only a number of tokens.
    Secrets,
}

/// Return what a key says about its value, judged by whole words and pairs of words.
pub fn named_by(key: &str) -> Named {
    let words = split_words(key);
    let Some(last) = words.last() else { return Named::Nothing };
    if words.len() > 1 && is_one_of(last, DESCRIBING_WORDS) {
        return Named::Nothing;
    }
    let mut named = Named::Nothing;
    let mut previous = "";
    for (position, word) in words.iter().enumerate() {
        if is_secret_word(previous, word)
            && !(word.eq_ignore_ascii_case("token") && is_one_of(previous, PAGING_WORDS))
        {
            return Named::Secret;
        }
        let single = word.strip_suffix(['s', 'S']).unwrap_or_default();
        let is_plain =
            single.eq_ignore_ascii_case("token") && (position + 1 < words.len() || !is_one_of(previous, TOKEN_WORDS));
        if is_secret_word(previous, single) && !is_plain {
            named = Named::Secrets;
        }
        previous = word;
    }
    named
}

fn split_words(key: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let bytes = key.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let end = word_end(bytes, at);
        if end == at {
            at += 1;
        } else {
            words.push(&key[at..end]);
            at = end;
        }
    }
    words
}

fn is_secret_word(previous: &str, word: &str) -> bool {
    is_one_of(word, SENSITIVE_WORDS)
        || SENSITIVE_PAIRS
            .iter()
            .any(|(one, other)| previous.eq_ignore_ascii_case(one) && word.eq_ignore_ascii_case(other))
}

/// Return true if there is a text anywhere in a value. Keys do not count.
pub fn holds_text(value: Value<'_>) -> bool {
    match value.kind() {
        Kind::Text | Kind::EscapedText => true,
        Kind::Array => value.elements().any(holds_text),
        Kind::Object => value.distinct_members().into_iter().any(|(_, child)| holds_text(child)),
        _ => false,
    }
}

fn is_one_of(word: &str, list: &[&str]) -> bool {
    list.iter().any(|known| word.eq_ignore_ascii_case(known))
}

/// Return the end of the word that starts at `at`, or `at` if none does: `[A-Z]+(?![a-z])|[A-Z]?[a-z]+`.
fn word_end(bytes: &[u8], at: usize) -> usize {
    let run = |from: usize, is_wanted: fn(&u8) -> bool| {
        from + bytes[from..].iter().take_while(|byte| is_wanted(byte)).count()
    };
    let upper = run(at, u8::is_ascii_uppercase);
    let is_followed = bytes.get(upper).is_some_and(u8::is_ascii_lowercase);
    match upper - at {
        0 => run(at, u8::is_ascii_lowercase),
        1 if is_followed => run(upper, u8::is_ascii_lowercase),
        _ if is_followed => upper - 1,
        _ => upper,
    }
}

/// Return true if a value is only a reference to a value in a store (protocol/command.md#python-plane). An object that
/// contains a reference together with a value does not count.
pub fn is_reference(value: Value<'_>) -> bool {
    if value.kind() != Kind::Object {
        return false;
    }
    let members = value.distinct_members();
    match &members[..] {
        [(key, inner)] if key.is_text_equal("$noetl_ref") => is_keychain_entry(*inner),
        [(key, inner)] if key.is_text_equal("_ref") => inner.is_text() || is_located(*inner),
        _ => is_located(value),
    }
}

/// Return true if the value of `$noetl_ref` is a keychain entry.
fn is_keychain_entry(value: Value<'_>) -> bool {
    value.kind() == Kind::Object && value.get("kind").is_some_and(Value::is_text)
}

/// Return true for a reference that has an address and no part of the stored value.
fn is_located(value: Value<'_>) -> bool {
    value.kind() == Kind::Object
        && value.get("kind").is_some_and(is_reference_kind)
        && value.get("ref").is_some_and(Value::is_text)
        && value.members().all(|(key, _)| REFERENCE_FIELDS.iter().any(|name| key.is_text_equal(name)))
}

fn is_reference_kind(kind: Value<'_>) -> bool {
    REFERENCE_KINDS.iter().any(|known| kind.is_text_equal(known))
}

/// Return the keys of an object whose values may be references to keep; see `is_kept`.
pub fn kept_keys(members: &[(Value<'_>, Value<'_>)]) -> &'static [&'static str] {
    // One byte rules out most keys; this matters because every object is checked.
    let may_be = |key: Value<'_>| matches!(key.raw().as_bytes().first(), Some(b'$' | b'_' | b'r' | b'\\'));
    let is_kept = |key: Value<'_>| ["$noetl_ref", "_ref", "ref"].iter().any(|name| key.is_text_equal(name));
    if !members.iter().any(|(key, _)| may_be(*key) && is_kept(*key)) {
        return &[];
    }
    let is_located = members.iter().any(|(key, value)| key.is_text_equal("kind") && is_reference_kind(*value));
    if is_located {
        &["$noetl_ref", "_ref", "ref"]
    } else {
        &["$noetl_ref", "_ref"]
    }
}

/// Return true if the value of a key is a reference to keep; `kept` are the `kept_keys` of its object.
pub fn is_kept(kept: &[&str], key: Value<'_>, value: Value<'_>) -> bool {
    kept.iter().any(|name| key.is_text_equal(name))
        && (value.is_text() || is_located(value) || (key.is_text_equal("$noetl_ref") && is_keychain_entry(value)))
}

/// Replace known secrets, then texts that look like credentials.
pub fn redact<'t>(text: &'t str, secrets: Option<&Secrets<'_>>, count: &mut usize) -> Cow<'t, str> {
    let replaced = secrets.map_or(Cow::Borrowed(text), |secrets| secrets.replace(text, count));
    if !may_hold_credential(&replaced) {
        return replaced;
    }
    then(then(replaced, credentials, count), addresses, count)
}

/// Apply one more rule. A text without a match is not copied.
fn then<'t>(text: Cow<'t, str>, rule: fn(&str, &mut usize) -> Option<String>, count: &mut usize) -> Cow<'t, str> {
    match rule(&text, count) {
        Some(redacted) => Cow::Owned(redacted),
        None => text,
    }
}

fn credentials(text: &str, count: &mut usize) -> Option<String> {
    let mut out = String::new();
    let mut start = 0;
    for found in credential()?.find_iter(text).filter(|found| !is_only_prose(found.as_str())) {
        out.push_str(&text[start..found.start()]);
        out.push_str(MARK);
        start = found.end();
        *count += 1;
    }
    (start > 0).then(|| out + &text[start..])
}

/// Return true if a match is prose, such as "Basic authentication". The base64 of user and password is practically
/// never one plain word.
fn is_only_prose(found: &str) -> bool {
    let is_basic = found.get(..5).is_some_and(|head| head.eq_ignore_ascii_case("basic"));
    is_basic && is_prose(found[5..].trim_start_matches([' ', '\t']))
}

fn addresses(text: &str, count: &mut usize) -> Option<String> {
    if !may_hold_address(text) {
        return None;
    }
    values(text, address()?, count)
}

fn assignments(text: &str, count: &mut usize) -> Option<String> {
    values(text, assignment()?, count)
}

/// Replace the second group of every match, the secret, unless it is the mark already.
fn values(text: &str, expression: &Regex, count: &mut usize) -> Option<String> {
    let mut out = String::new();
    let mut start = 0;
    for found in expression.captures_iter(text) {
        let Some(value) = found.get(2).filter(|value| value.as_str() != MARK) else { continue };
        out.push_str(&text[start..value.start()]);
        out.push_str(MARK);
        start = value.end();
        *count += 1;
    }
    (start > 0).then(|| out + &text[start..])
}

fn is_prose(word: &str) -> bool {
    let rest = word.strip_prefix(|first: char| first.is_ascii_alphabetic()).unwrap_or(word);
    rest.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// Redact free text: known secrets, credentials by their shape, and the value of `password=...` and the like.
pub fn redact_text(text: &str, secrets: &[String], words: &[String]) -> String {
    let mut count = 0;
    let mut prepared = Secrets::prepare(secrets, words, &[]);
    let lines = prepared.as_ref().map_or(vec![], |secrets| lines_in_text(text, secrets));
    if !lines.is_empty() {
        prepared = Secrets::prepare(secrets, words, &lines);
    }
    let mut text = prepared.as_ref().map_or(Cow::Borrowed(text), |secrets| secrets.replace(text, &mut count));
    for rule in [credentials, assignments, addresses] {
        text = then(text, rule, &mut count);
    }
    text.into_owned()
}
