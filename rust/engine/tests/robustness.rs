//! Tests with random damage to every input: nothing panics, and every output can be read again.
//! `NOETL_WORKER_FUZZ_SECONDS` makes them longer; a failure prints its seed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use noetl_worker_engine::{
    decide, decode_notification, find_marks, fit_result, redact_text, CaseTable, Document, Outcome, Rules,
};

const SEEDS: &[&str] = &[
    r#"{"execution_id":767498442217095171,"event_id":"12","command_id":"1:a:3","step":"s","trace":{"t":"00-1"}}"#,
    r#"[{"when":[{"left":"result.a.0","op":"matches","right":"^a{1,3}(?i)[b-d]$"}],"then":{"exit":{"status":"x"}}}]"#,
    r#"[{"when":[["{{ a }}","in",["{{ b }}",1.0]]],"then":{"set_var":{"name":"n","value":[null,{"k":1e-7}]}}}]"#,
    r#"{"password":"x","a":[{"id":1,"t":"Bearer abcdef123"},{"id":2}],"e":"\ud83d\ude00\u0001é","b":1,"b":-0}"#,
    r#"{"auth":{"$noetl_ref":{}},"u":"postgres://a:b@c/d","p":"-----BEGIN X-----\nabc","n":[1e15,1e16,5e-324,99]}"#,
];

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % sides.max(1) as u64).unwrap_or(0)
    }

    fn damaged(&mut self) -> Vec<u8> {
        let mut data = SEEDS[self.roll(SEEDS.len())].as_bytes().to_vec();
        for _ in 0..self.roll(6) {
            let at = self.roll(data.len());
            match self.roll(5) {
                0 if !data.is_empty() => data[at] = u8::try_from(self.roll(256)).unwrap_or(0),
                1 => data.truncate(at),
                2 => data.insert(at, b"{}[]\",:\\0e-. "[self.roll(13)]),
                3 if at < data.len() => {
                    data.remove(at);
                }
                _ => {
                    let other = SEEDS[self.roll(SEEDS.len())].as_bytes();
                    let from = self.roll(other.len());
                    data.splice(at..at, other[from..(from + self.roll(30)).min(other.len())].to_vec());
                }
            }
        }
        data
    }
}

#[test]
fn damaged_inputs_never_panic_and_outputs_can_be_read() {
    let seconds = std::env::var("NOETL_WORKER_FUZZ_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(1.0);
    let end = Instant::now() + Duration::from_secs_f64(seconds);
    let mut dice = Dice(0x5EED_0001);
    while Instant::now() < end {
        let seed = dice.0;
        let outcome = std::panic::catch_unwind(|| one_round(&mut Dice(seed)));
        assert!(outcome.is_ok(), "seed {seed:#x}");
        dice.roll(2);
    }
}

fn one_round(dice: &mut Dice) {
    let inputs = [dice.damaged(), dice.damaged(), dice.damaged()];
    let [one, two, three] = &inputs;
    drop(decode_notification(one));
    let _ = find_marks(one);
    drop(decide(one, "eq", Some(two)));
    assert!(decide(one, "eq", Some(one)).unwrap_or(true), "not equal to itself");
    if let Ok(table) = CaseTable::compile(one) {
        if let Ok(Outcome::Needs(pending)) = Arc::new(table).first_match(two, Some(three)) {
            drop(pending.resume(three));
        }
    }
    let secrets = vec!["abcd".to_owned(), "1:a:3".to_owned()];
    let secret_words = vec!["true".to_owned(), "_ref".to_owned()];
    drop(redact_text(&String::from_utf8_lossy(one), &secrets, &secret_words));
    let (max_bytes, preview_bytes) = (dice.roll(60), 20 + dice.roll(100));
    let rules = Rules { max_bytes, preview_bytes, preview_depth: 3, secrets, secret_words };
    if let Ok(fitted) = fit_result(one, &rules) {
        let again = Document::parse(&fitted.body).expect("the body is JSON");
        let mut written = Vec::new();
        again.root().write(&mut written);
        assert_eq!(written, fitted.body, "the body is not canonical");
        if let Some(preview) = fitted.preview {
            assert!(Document::parse(&preview).is_ok(), "the preview is not JSON");
            assert!(preview.len() <= rules.preview_bytes.max(4), "the preview is too long");
        }
    }
}
