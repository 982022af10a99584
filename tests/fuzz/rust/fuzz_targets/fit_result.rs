//! Rules, a secret and a document: what comes out is JSON, holds no known secret and keeps its budget.
//! Input: `max_bytes`, `preview_bytes` and `preview_depth` as one byte each, the secret, the separator, the document.
#![no_main]

use libfuzzer_sys::fuzz_target;
use noetl_worker_engine::redact::{is_kept, kept_keys, MARK};
use noetl_worker_engine::secrets::MIN_SECRET_CHARS;
use noetl_worker_engine::{fit_result, Document, Fitted, Kind, Rules, Value};
use noetl_worker_fuzz::{is_json, parts};

/// A number and a word that the seeds have: every input is checked with these too.
const SECRETS: [&str; 2] = ["31337", "hunter2hunter2"];
/// `null` is the preview that always fits.
const SMALLEST_PREVIEW: usize = 4;

fuzz_target!(|data: &[u8]| {
    let [head, data] = parts(data);
    let [max_bytes, preview_bytes, depth, secret @ ..] = head else { return };
    let rules = Rules {
        max_bytes: usize::from(*max_bytes) * 4,
        preview_bytes: usize::from(*preview_bytes) * 4,
        preview_depth: usize::from(depth % 8),
        secrets: SECRETS.into_iter().map(str::to_owned).chain(drawn(secret)).collect(),
        secret_words: vec![],
    };
    let Ok(fitted) = fit_result(data, &rules) else { return };
    assert!(is_json(data), "accepted what is not JSON");
    check(&fitted, &rules);
    let again = fit_result(&fitted.body, &rules).expect("the body is a document");
    if may_hide_more(Document::parse(&fitted.body).expect("the body is a document").root()) {
        let third = fit_result(&again.body, &rules).expect("the body is a document");
        assert_eq!(text(&third.body), text(&again.body), "a third pass changes the body");
    } else {
        assert_eq!(text(&again.body), text(&fitted.body), "a second pass changes the body");
        assert_eq!(again.preview, fitted.preview);
    }
});

/// Where a second pass hides more, once: a secret cut out of a key can leave a sensitive word
/// (`next_page_31337token`), and a credential with a blank cut out of a text can leave a URL (`://Bearer abcdef:x@`).
fn may_hide_more(value: Value<'_>) -> bool {
    let found = value.as_text().unwrap_or_default();
    (found.contains(MARK) && found.contains("://"))
        || value
            .members()
            .any(|(key, child)| key.as_text().unwrap_or_default().contains(MARK) || may_hide_more(child))
        || value.elements().any(may_hide_more)
}

/// A secret that neither the mark nor the keys of a preview can hold by themselves: letters and digits, both.
fn drawn(bytes: &[u8]) -> Option<String> {
    let secret = std::str::from_utf8(bytes).ok()?;
    let is_plain = secret.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_mixed = secret.bytes().any(|b| b.is_ascii_digit()) && secret.bytes().any(|b| b.is_ascii_lowercase());
    (is_plain && is_mixed && secret.len() >= MIN_SECRET_CHARS).then(|| secret.to_owned())
}

fn check(fitted: &Fitted, rules: &Rules) {
    assert!(is_json(&fitted.body), "the body is not JSON");
    assert_eq!(fitted.preview.is_some(), fitted.body.len() > rules.max_bytes, "a preview without need, or none");
    let body = Document::parse(&fitted.body).expect("the body is a document");
    let mut written = Vec::new();
    body.root().write(&mut written);
    assert_eq!(text(&written), text(&fitted.body), "the body is not canonical");
    no_secret(body.root(), &rules.secrets);
    let Some(preview) = &fitted.preview else { return };
    assert!(is_json(preview), "the preview is not JSON");
    assert!(preview.len() <= rules.preview_bytes.max(SMALLEST_PREVIEW), "the preview is too long");
    no_secret(Document::parse(preview).expect("the preview is a document").root(), &rules.secrets);
}

/// References stay as they are (the plane resolves them by their text), everything else is looked at.
fn no_secret(value: Value<'_>, secrets: &[String]) {
    let members = value.distinct_members();
    let kept = kept_keys(&members);
    for (key, child) in members {
        no_secret(key, secrets);
        if !is_kept(kept, key, child) {
            no_secret(child, secrets);
        }
    }
    for element in value.elements() {
        no_secret(element, secrets);
    }
    let found = value.as_text().unwrap_or_default();
    let is_left = |secret: &String| found.contains(secret.as_str()) && !found.contains("noetl://");
    assert!(!secrets.iter().any(is_left), "a secret in {found:?}");
    if value.kind() == Kind::Integer {
        assert!(!secrets.iter().any(|secret| secret == value.integer_text()), "a secret number");
    }
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("the engine writes UTF-8")
}
