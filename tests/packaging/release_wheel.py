"""One wheel of a release: built from the sdist, proved in a clean venv (release.yml calls this on every platform).

`release_wheel.py SDIST abi3|free-threaded|pure DIST`, with the interpreter the wheel is for. On Linux the native ones
get their manylinux or musllinux tag by auditwheel, so run it in one of those images.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

from build_wheels import MAX_NATIVE_BYTES, TEST_TOOLS, files_of, require, run, say, unpack

TAGS = {"abi3": "-cp310-abi3-", "free-threaded": "-cp314-cp314t-", "pure": "-py3-none-any."}
SMOKE = """
import noetl_worker
from noetl_worker.engine import chosen as engine
from noetl_worker.envelope import decode_notification
decode_notification(b'{"execution_id":1,"event_id":2,"command_id":"c","step":"s"}')
print(noetl_worker.__version__, engine.ENGINE, noetl_worker.__file__)
"""
REQUIRED_ONLY = """
from importlib.metadata import PathDistribution
import sys, zipfile
wheel = zipfile.Path(sys.argv[1])
(info,) = [one for one in wheel.iterdir() if one.name.endswith(".dist-info")]
print("\\n".join(one for one in PathDistribution(info).requires if ";" not in one))
"""


def main() -> None:
    sdist, kind, dist = Path(sys.argv[1]).resolve(), sys.argv[2], Path(sys.argv[3]).resolve()
    dist.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="noetl-release-", ignore_cleanup_errors=True) as scratch:
        work = Path(scratch)
        wheel = build(sdist, kind, work)
        require(TAGS[kind] in wheel.name, f"{wheel.name} is no {kind} wheel")
        check_content(wheel, kind)
        prove(wheel, kind, unpack(sdist, work), work / "venv")
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


def prove(wheel: Path, kind: str, sources: Path, venv: Path) -> None:
    say(f"{wheel.name}: clean venv, import, engine tests")
    engine = "python" if kind == "pure" else "rust"
    run([sys.executable, "-m", "venv", str(venv)])
    python = str(venv / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    install(wheel, kind, python)
    # UTF8: the vectors are, whatever a Windows code page says.
    environment = {
        "NOETL_WORKER_ENGINE": engine,
        "NOETL_WORKER_REQUIRE_RUST": "1" if engine == "rust" else "0",
        "PYTHONUTF8": "1",
    }
    version, found, where = run([python, "-c", SMOKE], environment, cwd=venv).split(maxsplit=2)
    require(found == engine, f"{wheel.name} runs on {found}")
    require(wheel.name.split("-")[1] == version, f"{wheel.name} says it is {version}")
    require(Path(where.strip()).is_relative_to(venv.resolve()), f"tested {where}, not the wheel")
    run([python, "-m", "pip", "install", "-q", *TEST_TOOLS])
    chosen = ["-m", "not rust"] if engine == "python" else []
    run([python, "-m", "pytest", "-q", "-o", "pythonpath=tests", *chosen, "tests/engine"], environment, cwd=sources)


def install(wheel: Path, kind: str, python: str) -> None:
    """With everything it names; on a free-threaded interpreter without the optional compiled libraries, which have no
    wheels for it (no marker can say so)."""
    if kind != "free-threaded":
        run([python, "-m", "pip", "install", "-q", str(wheel)])
        return
    required = run([python, "-c", REQUIRED_ONLY, str(wheel)]).splitlines()
    run([python, "-m", "pip", "install", "-q", *required])
    run([python, "-m", "pip", "install", "-q", "--no-deps", str(wheel)])


if __name__ == "__main__":
    main()
