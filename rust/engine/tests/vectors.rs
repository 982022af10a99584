//! The published vectors without Python: conditions without templates, and cases. The rest runs through `cases.py`.

use std::path::Path;
use std::sync::Arc;

use noetl_worker_engine::{evaluate, CaseTable, Document, Family, Kind, Outcome, Value};

fn lines(name: &str) -> Vec<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors").join(name);
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn json(value: Value<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    value.write(&mut out);
    out
}

#[test]
fn conditions_without_templates_hold_as_their_vectors_say() {
    let mut seen = 0;
    for line in [lines("conditions.jsonl"), lines("more_conditions.jsonl")].concat() {
        let document = Document::parse(line.as_bytes()).expect("a vector is JSON");
        let row = document.root();
        let [condition, variables] = ["condition", "variables"].map(|name| json(row.get(name).expect("a field")));
        let data = row.get("result").map(json);
        let expected = row.get("expect").expect("a field");
        match (evaluate(&condition, &variables, data.as_deref()), expected.kind()) {
            (Err(error), _) if error.code == "template_reached" => continue,
            (Ok(holds), Kind::True | Kind::False) => assert_eq!(holds, expected.kind() == Kind::True, "{line}"),
            (Err(error), Kind::Text) => assert_eq!(error.family, Family::Condition, "{line}"),
            (found, _) => panic!("{found:?} for {line}"),
        }
        seen += 1;
    }
    assert!(seen > 100 || !Path::new("../../tests/vectors").exists());
}

#[test]
fn cases_parse_as_their_vectors_say() {
    for line in [lines("cases.jsonl"), lines("more_cases.jsonl")].concat() {
        let document = Document::parse(line.as_bytes()).expect("a vector is JSON");
        let case = json(document.root().get("case").expect("a field"));
        let is_accepted = document.root().get("accepted").expect("a field").kind() == Kind::True;
        let table = CaseTable::compile(&[b"[", &case[..], b"]"].concat()).expect("a list");
        assert_eq!((table.len(), table.skipped().len()), if is_accepted { (1, 0) } else { (0, 1) }, "{line}");
    }
}

#[test]
fn templated_sides_are_handed_back_in_order() {
    let cases = br#"[{"when":[{"left":"{{ a }}","right":"{{ b }}"}],"then":"continue"}]"#;
    let table = Arc::new(CaseTable::compile(cases).expect("cases"));
    let Ok(Outcome::Needs(left)) = table.first_match(b"{}", None) else { panic!("no template") };
    let Ok(Outcome::Needs(right)) = left.resume(b"1") else { panic!("no second template") };
    assert!(matches!(right.resume(b"1"), Ok(Outcome::Match(0))));
    assert!(matches!(right.resume(b"2"), Ok(Outcome::Nothing)));
}
