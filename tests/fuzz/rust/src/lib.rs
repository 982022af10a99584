//! What the targets share: how one input becomes several documents, and a JSON reader that is not the engine's.

use serde::de::{Deserialize, IgnoredAny};

/// Separates the parts of an input: a byte that no UTF-8 text has, so that every document can be written.
pub const SEPARATOR: u8 = 0xFF;

/// The first `N` parts of an input; the last one is the rest, missing ones are empty.
pub fn parts<const N: usize>(data: &[u8]) -> [&[u8]; N] {
    let mut parts = [&data[..0]; N];
    for (place, part) in parts.iter_mut().zip(data.splitn(N, |byte| *byte == SEPARATOR)) {
        *place = part;
    }
    parts
}

/// Whether another reader takes it for JSON.
pub fn is_json(data: &[u8]) -> bool {
    let mut reader = serde_json::Deserializer::from_slice(data);
    reader.disable_recursion_limit(); // the engine's own limit is 512 levels
    IgnoredAny::deserialize(&mut reader).and_then(|_| reader.end()).is_ok()
}
