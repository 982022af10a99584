//! The build script puts a hash of the Rust sources into the extension, so that a stale `_core` in a source tree is
//! noticed. `tests/engine/source_hash.py` computes the same hash.

use std::path::{Path, PathBuf};

const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

fn main() {
    let root = Path::new("..");
    println!("cargo:rerun-if-changed=..");
    let mut files = Vec::new();
    collect(root, &mut files);
    files.sort();
    let mut hash = OFFSET;
    for file in files {
        let content = std::fs::read(root.join(&file)).unwrap_or_default();
        for byte in file.bytes().chain(content) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(PRIME);
        }
    }
    println!("cargo:rustc-env=NOETL_WORKER_SOURCE_HASH={hash:016x}");
}

fn collect(folder: &Path, files: &mut Vec<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path: PathBuf = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix("..").unwrap_or(&path).to_string_lossy().replace('\\', "/");
            files.push(name);
        }
    }
}
