#!/usr/bin/env bash
# `make fuzz`: a minute of fuzzing, whatever of it this machine can do. 20 s of coverage-guided inputs for the Rust
# engine, then 40 s of random calls on both engines; 60 s of the latter where the former cannot be built.
# Building the targets comes on top, bounded by BUILD_S, and only the first time. Nothing here needs a nightly
# toolchain or cargo-fuzz: the coverage flags are LLVM's own, which a stable rustc hands on.
set -euo pipefail
cd "$(dirname "$0")/../.."

PYTHON=${PYTHON:-python3}
CRATE=tests/fuzz/rust
WORK=${CARGO_TARGET_DIR:-$PWD/target}/fuzz
FETCH_S=20
BUILD_S=120
COVERAGE="--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares"

say() { echo "fuzz: $*"; }

why_no_rust() {
  [ "$(uname -s)" = Linux ] || { echo "only set up for Linux"; return; }
  command -v cargo >/dev/null || { echo "no cargo"; return; }
  command -v "${CXX:-c++}" >/dev/null || { echo "no C++ compiler for libFuzzer"; return; }
  timeout "$FETCH_S" cargo fetch -q --locked --manifest-path $CRATE/Cargo.toml --target "$(host)" 2>/dev/null \
    || echo "its crates cannot be fetched"
}

host() { rustc -vV | sed -n 's/^host: //p'; }

# --target keeps the flags away from build scripts.
build() {
  RUSTFLAGS="$COVERAGE" timeout "$BUILD_S" cargo build -q --locked --offline --release \
    --manifest-path $CRATE/Cargo.toml --target "$(host)" --target-dir "$WORK"
}

coverage_guided() { # target, seconds
  local program log
  program=$WORK/$(host)/release/$1 log=$WORK/$1.log
  mkdir -p "$WORK/corpus/$1" "$WORK/found"
  if ! timeout -s KILL $(($2 + 30)) "$program" "$WORK/corpus/$1" "$WORK/seeds/$1" -max_total_time="$2" -timeout=10 \
    -rss_limit_mb=1024 -artifact_prefix="$WORK/found/$1-" -print_final_stats=1 >"$log" 2>&1 </dev/null; then
    grep -v '^#[0-9]' "$log" | tail -60
    say "$1 failed; again with: $program $WORK/found/$1-..."
    return 1
  fi
  say "$1: $(sed -n 's/^#\([0-9]*\)\tDONE *cov: \([0-9]*\) .*exec\/s: \([0-9]*\).*/\1 inputs, \3 a second, \2 edges covered/p' "$log")"
}

both_s=60
reason=$(why_no_rust)
if [ -z "$reason" ]; then
  code=0
  build || code=$?
  [ "$code" != 124 ] || reason="not built within $BUILD_S s; what is built is kept for the next time"
  [ "$code" = 0 ] || [ "$code" = 124 ] || exit "$code"
fi
if [ -n "$reason" ]; then
  say "the Rust engine is not fuzzed by coverage: $reason"
else
  "$PYTHON" tests/fuzz/seeds.py "$WORK/seeds"
  coverage_guided decode_notification 4
  coverage_guided match_cases 8
  coverage_guided fit_result 8
  both_s=40
fi

if ! PYTHONPATH=python "$PYTHON" -c 'import noetl_worker._core' 2>/dev/null; then
  say "no Rust engine in this install: nothing to compare the Python engine with"
  exit 0
fi
"$PYTHON" tests/fuzz/differential.py --seconds "$both_s"
