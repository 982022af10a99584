"""The hash of the Rust sources, as rust/binding/build.rs computes it: a stale extension must not pass the tests."""

from __future__ import annotations

from pathlib import Path

RUST = Path(__file__).parents[2] / "rust"


def source_hash() -> str | None:
    """Return 16 hexadecimal digits, or None where there are no sources (tests of an installed wheel)."""
    if not RUST.is_dir():
        return None
    files = sorted(path.relative_to(RUST).as_posix() for path in RUST.rglob("*.rs") if "target" not in path.parts)
    value = 0xCBF29CE484222325
    for name in files:
        for byte in name.encode() + (RUST / name).read_bytes():
            value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{value:016x}"
