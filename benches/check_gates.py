"""The performance gates: `check_gates.py run` measures and judges; the limits are in gates.toml.

`check_gates.py counts` leaves out what is a time: ratios, isolation, and the worker's CPU.

ratios       Rust against Python in the same process: minima of CPU time, so load does not matter (2 % under load 4).
ceilings     instructions per call, exact under valgrind; only against figures of the same toolchain.
binding      instructions through Python against the same call from Rust: what the conversions add.
worker       what one no-op command makes a real worker do (counted), and its CPU in terms of a yardstick's.
isolation    CPU of warm shell and python commands with isolation, in terms of those without it, in turns.
redaction    CPU of a text with 1,000 known secrets, in terms of that with ten, on both engines, in turns.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import importlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bench_redaction
import workload

# pytest brings tomli to the interpreters that have no tomllib.
tomllib = importlib.import_module("tomllib" if sys.version_info >= (3, 11) else "tomli")

ROOT = Path(__file__).parents[1]
GATES = Path(__file__).with_name("gates.toml")
CEILINGS = Path(__file__).with_name("ceilings.json")
INSTRUCTION_SLACK = 1.01
PYTHON = f"{sys.version_info[0]}.{sys.version_info[1]}"
BENCH = [
    *(
        "-m",
        "pytest",
        "benches/bench_engine.py",
        "benches/bench_registry.py",
        "-q",
        "-p",
        "no:cacheprovider",
        "--benchmark-only",
        "--benchmark-enable",
    ),
    *("--benchmark-timer=time.process_time", "--benchmark-disable-gc", "--benchmark-warmup=on"),
    *("--benchmark-warmup-iterations=1000", "--benchmark-min-rounds=30", "--benchmark-min-time=0.002"),
    *("--benchmark-max-time=0.5", "--benchmark-group-by=group", "--benchmark-columns=min,median,iqr,rounds"),
]


class GateResults:
    """Collects lines and failures, so that every gate is seen before the exit code."""

    def __init__(self) -> None:
        self.failures: list[str] = []

    def judge(self, name: str, found: str, limit: str, *, holds: bool) -> None:
        print(f"{'ok  ' if holds else 'FAIL'} {name:<28} {found:>16}   limit {limit}")
        if not holds:
            self.failures.append(f"{name}: {found}, limit {limit}")

    def exit_code(self) -> int:
        for failure in self.failures:
            print(f"gate failed: {failure}", file=sys.stderr)
        return 1 if self.failures else 0


def load_gates(path: Path = GATES) -> dict[str, Any]:
    gates: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    return gates


# ── ratios ──────────────────────────────────────────────────────────────────────────────────────


def measure(report: Path, *more: str) -> None:
    """Run the benchmarks and write pytest-benchmark's JSON."""
    subprocess.run([sys.executable, *BENCH, f"--benchmark-json={report}", *more], cwd=ROOT, check=True)


def minima(report: Path) -> dict[tuple[str, str], float]:
    """Return {(group, who): seconds}; who is python, rust, loop or deepcopy."""
    found: dict[tuple[str, str], float] = {}
    for bench in json.loads(report.read_text())["benchmarks"]:
        who = (bench.get("params") or {}).get("engine_name") or bench["name"].rpartition("_")[2]
        found[bench["group"], who] = bench["stats"]["min"]
    return found


def check_ratios(report: Path, gates: Mapping[str, Any], results: GateResults) -> None:
    """Judge every gate whose two sides were measured."""
    times = minima(report)
    for gate in gates["ratio"]:
        slow, fast = times.get((gate["call"], gate["slow"])), times.get((gate["call"], "rust"))
        if slow is None or fast is None:
            continue
        floor = gate.get("floor_by_python", {}).get(PYTHON, gate["floor"])
        name = f"{gate['call']} {gate['slow']}/rust"
        results.judge(name, f"{slow / fast:.2f}x", f">= {floor}x", holds=slow / fast >= floor)


# ── instructions ────────────────────────────────────────────────────────────────────────────────


def can_count() -> bool:
    return all(shutil.which(program) for program in ("valgrind", "setarch"))


def instructions(command: list[str]) -> int:
    """Count the instructions of one run; hash seed and addresses fixed, so the count is exact."""
    counted = subprocess.run(
        ["setarch", "-R", "valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Collected : (\d+)", counted.stderr)
    if found is None:
        raise SystemExit(f"callgrind gave no count:\n{counted.stderr[-2000:]}")
    return int(found.group(1))


def per_call(command: list[str], times: int) -> int:
    """Two runs, side by side since counts do not care; the difference removes the start-up.

    `{}` in the command is the number of calls.
    """
    both = ([part.replace("{}", str(count)) for part in command] for count in (10, 10 + times))
    with ThreadPoolExecutor(2) as pool:
        few, many = pool.map(instructions, both)
    return (many - few) // times


def python_call(call: str, times: int) -> int:
    return per_call([sys.executable, workload.__file__, "rust", call, "{}"], times)


def toolchain() -> str:
    """Instruction counts belong to this: compiler, interpreter, PyO3 and every other crate."""
    rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    lock = (ROOT / "Cargo.lock").read_bytes()
    pyo3 = re.search(rb'name = "pyo3"\nversion = "([^"]+)"', lock)
    parts = [f"rustc {rustc}", f"CPython {platform.python_version()}", platform.machine()]
    parts += [f"PyO3 {pyo3.group(1).decode() if pyo3 else '?'}", f"lock {hashlib.sha256(lock).hexdigest()[:12]}"]
    return ", ".join(parts)


def check_ceilings(gates: Mapping[str, Any], results: GateResults, *, write: bool = False) -> None:
    """Judge against ceilings.json where it knows this toolchain; else say so, or write them."""
    key = toolchain()
    known: dict[str, dict[str, int]] = json.loads(CEILINGS.read_text()) if CEILINGS.exists() else {}
    found = {gate["call"]: python_call(gate["call"], gate["times"]) for gate in gates["ceiling"]}
    if write:
        CEILINGS.write_text(json.dumps({**known, key: found}, indent=2, sort_keys=True) + "\n")
        print(f"wrote {CEILINGS.name} for {key}: {found}")
    elif key not in known:
        print(f"note: no instruction ceilings for {key}: {found}. Review and commit `check_gates.py ceilings --write`")
    else:
        for call, count in found.items():
            limit = int(known[key][call] * INSTRUCTION_SLACK)
            results.judge(f"{call} instructions", f"{count:,}", f"<= {limit:,}", holds=count <= limit)


def check_binding(gates: Mapping[str, Any], results: GateResults) -> None:
    """Compare a call through Python with the same call in a Rust program."""
    target = os.environ.get("CARGO_TARGET_DIR", str(ROOT / "target"))
    build = ["cargo", "build", "-q", "--release", "--locked", "-p", "noetl-worker-engine", "--example", "calls"]
    subprocess.run(build, cwd=ROOT, check=True, env={**os.environ, "CARGO_TARGET_DIR": target})
    program = str(Path(target) / "release" / "examples" / "calls")
    loop = python_call("nothing", 1000)  # the loop that makes the calls is no part of the binding
    with tempfile.TemporaryDirectory(prefix="noetl-gates-") as folder:
        for gate in gates["binding"]:
            kind, _, size = gate["call"].partition("_")
            contents = [workload.cases(), workload.VARIABLES] if kind == "match" else []
            paths = [Path(folder, f"{gate['call']}-{position}") for position in range(len(contents) + 1)]
            for path, content in zip(paths, [*contents, workload.result(int(size))], strict=True):
                path.write_bytes(content)
            bare = per_call([program, kind, "{}", *map(str, paths)], gate["times"])
            through = python_call(gate["call"], gate["times"]) - loop
            share = through / bare - 1
            limit = gate["max_share"]
            results.judge(f"{gate['call']} binding", f"{share:+.1%}", f"<= {limit:.0%}", holds=share <= limit)


# ── worker ──────────────────────────────────────────────────────────────────────────────────────


def can_run_worker() -> bool:
    """The rig reads /proc; the stub plane and the yardstick are made of these."""
    return sys.platform == "linux" and all(importlib.util.find_spec(name) for name in ("httptools", "orjson", "uvloop"))


def check_worker(
    gates: Mapping[str, Any], results: GateResults, *, counts_alone: bool = False, write: bool = False
) -> None:
    """Judge what one command costs the worker; or write the limits."""
    if not can_run_worker():
        print("note: not Linux, or no httptools, orjson or uvloop: the worker's gates were not looked at")
        return
    import worker_gates  # here: a pure install has not all that it needs

    found = asyncio.run(worker_gates.count())
    if not counts_alone:
        found |= asyncio.run(worker_gates.compare())
    if write:
        text = GATES.read_text(encoding="utf-8")
        GATES.write_text(worker_gates.with_limits(text, found, PYTHON), encoding="utf-8")
        print(f"wrote {GATES.name}: " + ", ".join(f"{name} {value:.2f}" for name, value in found.items()))
    else:
        worker_gates.check(found, gates["worker"], PYTHON, results.judge)


# ── isolation ───────────────────────────────────────────────────────────────────────────────────


def isolation_ratios(commands: int = 200, rounds: int = 5) -> dict[str, float]:
    """CPU with isolation in terms of that without it, by kind; minima of rounds in turns."""
    import bench_tools  # here: it needs a worker that can be imported

    found = {}
    for kind, config in (("shell", bench_tools.SHELL), ("python", bench_tools.PYTHON)):
        spent_ms: dict[str, list[float]] = {"off": [], "basic": []}
        for _ in range(rounds):
            for level in (bench_tools.UNCONFINED, bench_tools.BASIC):
                once_ms = asyncio.run(bench_tools.cpu_per_command_ms(kind, config, commands, level))
                spent_ms[level.level].append(once_ms)
        found[kind] = min(spent_ms["basic"]) / min(spent_ms["off"])
    return found


def check_isolation(found: Mapping[str, float], gates: Mapping[str, Any], results: GateResults) -> None:
    for kind, limit in gates["isolation"].items():
        results.judge(f"{kind} isolation", f"{found[kind]:.2f}x", f"<= {limit}x", holds=found[kind] <= limit)


# ── redaction ───────────────────────────────────────────────────────────────────────────────────


def check_redaction(found: Mapping[str, float], engine: str, gates: Mapping[str, Any], results: GateResults) -> None:
    limit = gates["redaction"]["many_to_few"]
    for name, ratio in found.items():
        results.judge(f"redaction {engine} {name}", f"{ratio:.2f}x", f"<= {limit}x", holds=ratio <= limit)


# ── commands ────────────────────────────────────────────────────────────────────────────────────


def require_release_build() -> None:
    core = workload.engine("rust")
    if core.BUILD_PROFILE != "release":
        raise SystemExit(f"{core.__file__} is a {core.BUILD_PROFILE} build; build with `maturin develop --release`")


def check_counts(gates: Mapping[str, Any], results: GateResults, *, counts_alone: bool = True) -> None:
    """What is the same on a slow and on a busy machine."""
    check_worker(gates, results, counts_alone=counts_alone)  # its limits are those of a worker on the Rust engine
    if can_count():
        check_ceilings(gates, results)
        if shutil.which("cargo"):
            check_binding(gates, results)
    else:
        print("note: no valgrind, the instruction gates were not looked at")


def run_all(report: Path, results: GateResults) -> None:
    gates = load_gates()
    check_counts(gates, results, counts_alone=False)
    if sys.platform == "linux":
        check_isolation(isolation_ratios(), gates, results)
    for name in bench_redaction.engines():
        check_redaction(bench_redaction.ratios(workload.engine(name)), name, gates, results)
    measure(report)
    check_ratios(report, gates, results)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("run", help="measure and judge everything")
    commands.add_parser("counts", help="judge what does not depend on the machine: calls, requests, instructions")
    ceilings = commands.add_parser("ceilings", help="count instructions and judge, or --write them")
    ceilings.add_argument("--write", action="store_true")
    worker = commands.add_parser("worker", help="judge what a no-op command costs the worker, or --write the limits")
    worker.add_argument("--write", action="store_true")
    options = parser.parse_args()
    results = GateResults()
    if options.command in ("run", "counts"):
        try:
            require_release_build()
        except ImportError as error:
            print(f"no Rust engine ({error}): there is nothing to compare, the gates do not apply")
            return 0
    if options.command == "ceilings":
        check_ceilings(load_gates(), results, write=options.write)
    elif options.command == "worker":
        check_worker(load_gates(), results, write=options.write)
    elif options.command == "counts":
        check_counts(load_gates(), results)
    else:
        run_all(ROOT / "bench.json", results)
    return results.exit_code()


if __name__ == "__main__":
    raise SystemExit(main())
