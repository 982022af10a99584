//! Any bytes are an envelope or an error; an envelope has its ids in range, comes from JSON, and is the same twice.
#![no_main]

use libfuzzer_sys::fuzz_target;
use noetl_worker_engine::{decode_notification, CommandId, Kind};
use noetl_worker_fuzz::is_json;

fuzz_target!(|data: &[u8]| {
    let Ok((envelope, document)) = decode_notification(data) else { return };
    assert!(is_json(data), "accepted what is not JSON");
    assert!(i64::try_from(envelope.execution_id).is_ok() || u64::try_from(envelope.execution_id).is_ok());
    assert!(i64::try_from(envelope.event_id).is_ok() || u64::try_from(envelope.event_id).is_ok());
    if let CommandId::Integer(number) = envelope.command_id {
        assert!(i64::try_from(number).is_ok() || u64::try_from(number).is_ok());
    }
    assert!(!envelope.step.is_empty());
    if let Some(index) = envelope.trace {
        assert_eq!(document.value(index).kind(), Kind::Object);
    }
    let mut written = Vec::new();
    document.root().write(&mut written);
    let (again, _) = decode_notification(&written).expect("what was read can be written and read again");
    assert_eq!((again.execution_id, again.event_id), (envelope.execution_id, envelope.event_id));
    assert_eq!((again.command_id, again.step), (envelope.command_id, envelope.step));
    assert_eq!((again.server_url, again.pool), (envelope.server_url, envelope.pool));
});
