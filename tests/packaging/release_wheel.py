"""One wheel of a release: built from the sdist, proved in a clean venv (release.yml calls this on every platform).

`release_wheel.py SDIST abi3|free-threaded|pure DIST`, with the interpreter the wheel is for. On Linux the native ones
get their manylinux or musllinux tag by auditwheel, so run it in one of those images.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from build_wheels import MAX_NATIVE_BYTES, files_of, prove, require, run, say, unpack

TAGS = {"abi3": "-cp310-abi3-", "free-threaded": "-cp314-cp314t-", "pure": "-py3-none-any."}


def main() -> None:
    sdist, kind, dist = Path(sys.argv[1]).resolve(), sys.argv[2], Path(sys.argv[3]).resolve()
    dist.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="noetl-release-", ignore_cleanup_errors=True) as scratch:
        work = Path(scratch)
        wheel = build(sdist, kind, work)
        require(TAGS[kind] in wheel.name, f"{wheel.name} is no {kind} wheel")
        check_content(wheel, kind)
        engine = "python" if kind == "pure" else "rust"
        # the optional compiled libraries have no wheels for a free-threaded interpreter, and no marker can say so
        is_whole = kind != "free-threaded"
        prove(wheel, engine, unpack(sdist, work), work / "venv", with_tests=True, with_optional=is_whole)
        shutil.copy2(wheel, dist)
        say(f"{wheel.name}: {wheel.stat().st_size / 1024:.0f} KiB, proved")


def build(sdist: Path, kind: str, work: Path) -> Path:
    """A failed Rust build ends the release: NOETL_WORKER_BUILD=rust has no fallback."""
    say(f"{kind} wheel from {sdist.name}")
    environment = {"NOETL_WORKER_BUILD": "pure" if kind == "pure" else "rust"}
    built = work / "built"
    run(
        [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-cache-dir", "-w", str(built), str(sdist)],
        environment,
    )
    if kind != "pure" and sys.platform == "linux":
        (made,) = built.glob("*.whl")
        built = work / "repaired"
        run(["auditwheel", "repair", "-w", str(built), str(made)])
    (wheel,) = built.glob("*.whl")
    return wheel


def check_content(wheel: Path, kind: str) -> None:
    extensions = [name for name in files_of(wheel) if name.endswith((".so", ".pyd", ".dylib"))]
    require(len(extensions) == (0 if kind == "pure" else 1), f"{wheel.name} has the extensions {extensions}")
    require(wheel.stat().st_size <= MAX_NATIVE_BYTES, f"{wheel.name} is over {MAX_NATIVE_BYTES} bytes")


if __name__ == "__main__":
    main()
