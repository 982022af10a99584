//! Cases, variables, data and a rendered template: no panic, and what the table says about itself is true.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use noetl_worker_engine::document::write_text;
use noetl_worker_engine::{decide, CaseTable, Document, Outcome};
use noetl_worker_fuzz::{is_json, parts};

/// Rendered sides of one match; each one gets further, so that more than this is a circle only in a huge table.
const MAX_RENDERED: usize = 64;

fuzz_target!(|data: &[u8]| {
    let [cases, variables, tool_data, rendered] = parts(data);
    let Ok(table) = CaseTable::compile(cases).map(Arc::new) else { return };
    assert!(is_json(cases), "compiled what is not JSON");
    let tool_data = (!tool_data.is_empty()).then_some(tool_data);
    let outcome = run(&table, variables, tool_data, rendered);
    assert_eq!(outcome, run(&table, variables, tool_data, rendered), "another answer the second time");
    if let Some(needed) = only_needed(&table, variables) {
        assert_eq!(outcome, run(&table, &needed, tool_data, rendered), "a variable it did not name was read");
    }
    if !table.reads_result() && tool_data.is_none_or(|data| Document::parse(data).is_ok()) {
        assert_eq!(outcome, run(&table, variables, None, rendered), "the data was read after all");
    }
    if let Some(value) = tool_data {
        assert!(decide(value, "eq", Some(value)).unwrap_or(true), "not equal to itself");
    }
});

/// The index of the case or the code of the error, and how many sides were rendered on the way.
fn run(
    table: &Arc<CaseTable>,
    variables: &[u8],
    data: Option<&[u8]>,
    rendered: &[u8],
) -> (Result<Option<usize>, &'static str>, usize) {
    let mut outcome = table.first_match(variables, data);
    for count in 0..MAX_RENDERED {
        outcome = match outcome {
            Ok(Outcome::Needs(pending)) => pending.resume(rendered),
            Ok(Outcome::Match(index)) => {
                assert!(index < table.len());
                return (Ok(Some(index)), count);
            }
            Ok(Outcome::Nothing) => return (Ok(None), count),
            Err(error) => return (Err(error.code), count),
        };
    }
    (Ok(None), MAX_RENDERED)
}

/// The variables cut down to those the table says it may look up; None when they are no object.
fn only_needed(table: &CaseTable, variables: &[u8]) -> Option<Vec<u8>> {
    let document = Document::parse(variables).ok()?;
    let mut out = b"{".to_vec();
    for (key, value) in document.root().distinct_members() {
        let name = key.as_text()?;
        if table.variables().iter().any(|known| *known == name) {
            if out.len() > 1 {
                out.push(b',');
            }
            write_text(&name, &mut out);
            out.push(b':');
            value.write(&mut out);
        }
    }
    out.push(b'}');
    Some(out)
}
