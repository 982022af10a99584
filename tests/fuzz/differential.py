"""The long run: random calls on both engines until they disagree, the time is over, or so many cases are done.

`differential.py --seconds 60` or `--cases 1000000`; `make fuzz` (run_short.sh) is a short one. A disagreement is
printed, kept in corpus/, and ends the run with exit code 1; corpus/ is replayed by the ordinary tests.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "python")]

from engine import hazards  # noqa: E402
from fuzz import corpus  # noqa: E402


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--cases", type=int, default=None)
    parser.add_argument("--seed", default=None, help="random by default; printed, so that a run can be repeated")
    parser.add_argument("--jobs", type=int, default=max(1, (os.cpu_count() or 1) - 1))
    options = parser.parse_args()
    seed = options.seed or str(random.SystemRandom().randrange(10**9))
    if options.jobs > 1:
        return in_parallel(options, seed)
    return run(seed, options.seconds, options.cases if options.cases or options.seconds else 20_000)


def in_parallel(options: argparse.Namespace, seed: str) -> int:
    """One process a job, each with a part of the cases and a seed of its own."""
    command = [sys.executable, __file__, "--jobs", "1"]
    if options.seconds is not None:
        command += ["--seconds", str(options.seconds)]
    if options.cases is not None:
        command += ["--cases", str(-(-options.cases // options.jobs))]
    running = [subprocess.Popen([*command, "--seed", f"{seed}.{job}"]) for job in range(options.jobs)]
    return max(process.wait() for process in running)


def run(seed: str, seconds: float | None, cases: int | None) -> int:
    pure = importlib.import_module("noetl_worker.engine.pure.lib")
    rust = importlib.import_module("noetl_worker._core")
    started, done = time.monotonic(), 0
    seen: Counter[str] = Counter()
    while (cases is None or done < cases) and (seconds is None or time.monotonic() - started < seconds):
        call = hazards.call(random.Random(f"{seed}:{done}"))
        done += 1
        one = hazards.outcome(call, pure)
        seen[f"{call.name} {one[0]} {one[2] if one[0] == 'error' else ''}".rstrip()] += 1
        if hazards.differ(call, pure, rust):
            report(call, pure, rust, f"{seed}:{done - 1}")
            return 1
    took = time.monotonic() - started
    print(f"seed {seed}: {done:,} calls, both engines agree, {took:.0f} s")
    for kind, count in sorted(seen.items()):
        print(f"  {count:>9,} {kind}")
    return 0


def report(call: hazards.Call, pure: Any, rust: Any, seed: str) -> None:
    print(f"seed {seed}: the engines disagree on {call}")
    print(f"  python: {hazards.outcome(call, pure)}")
    print(f"  rust:   {hazards.outcome(call, rust)}")
    print(f"kept as {corpus.keep(call)}")


if __name__ == "__main__":
    raise SystemExit(main())
