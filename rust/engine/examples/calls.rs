//! One engine call made many times without Python. `benches/check_gates.py` subtracts its time to get the binding's.
//!
//! `calls decode|match|fit COUNT FILE...`: the files are the call's arguments.

use std::hint::black_box;
use std::process::ExitCode;
use std::sync::Arc;

use noetl_worker_engine::{decode_notification, fit_result, CaseTable, EngineError, Outcome, Rules};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, name, count, files @ ..] = &arguments[..] else { return ExitCode::from(2) };
    let inputs: Result<Vec<Vec<u8>>, _> = files.iter().map(std::fs::read).collect();
    match (count.parse(), inputs) {
        (Ok(count), Ok(inputs)) if run(name, count, &inputs).is_ok() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn run(name: &str, count: usize, inputs: &[Vec<u8>]) -> Result<(), EngineError> {
    match (name, inputs) {
        ("decode", [notification]) => {
            for _ in 0..count {
                black_box(decode_notification(black_box(notification))?);
            }
        }
        ("match", [cases, variables, data]) => {
            let table = Arc::new(CaseTable::compile(cases)?);
            for _ in 0..count {
                // This resumes as the binding does. Without this caller the compiler would inline more than there.
                if let Outcome::Needs(pending) = table.first_match(black_box(variables), Some(black_box(data)))? {
                    black_box(pending.resume(b"null")?);
                }
            }
        }
        ("fit", [data]) => {
            let secrets = vec!["hunter2hunter2".to_owned(), "another-secret".to_owned()];
            let rules =
                Rules { max_bytes: 102_400, preview_bytes: 4_096, preview_depth: 8, secrets, secret_words: vec![] };
            for _ in 0..count {
                black_box(fit_result(black_box(data), &rules)?);
            }
        }
        _ => {}
    }
    Ok(())
}
