"""`make simulate SEEDS=1000 [FROM=0] [DIALECT=python|rust|both] [TRACE=1]`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor

from noetl_worker.models import Dialect
from simulate.run import Run, run_seed


def main(arguments: list[str] | None = None) -> int:
    """Run the seeds; 1 when one of them breaks an invariant."""
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("--from", dest="first", type=int, default=0, help="first seed")
    parser.add_argument("--seeds", type=int, default=50, help="how many seeds")
    parser.add_argument("--dialect", choices=("python", "rust", "both"), default="both")
    parser.add_argument("--trace", action="store_true", help="print everything that happens")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    chosen = parser.parse_args(arguments)
    dialects = list(Dialect) if chosen.dialect == "both" else [Dialect(chosen.dialect)]
    runs = [(seed, dialect) for seed in range(chosen.first, chosen.first + chosen.seeds) for dialect in dialects]
    started, failed, virtual_s = time.perf_counter(), 0, 0.0
    for run in _results(runs, 1 if chosen.trace else chosen.jobs):
        virtual_s += run.virtual_s
        if run.violations or chosen.trace:
            print("\n".join(run.lines) if chosen.trace and not run.violations else run.report(whole=chosen.trace))
        failed += bool(run.violations)
    spent_s = time.perf_counter() - started
    print(f"{len(runs)} runs, {failed} failed; {virtual_s / 3600:.1f} virtual hours in {spent_s:.1f} s")
    return int(failed > 0)


def _results(runs: list[tuple[int, Dialect]], jobs: int) -> Iterable[Run]:
    if jobs == 1 or len(runs) == 1:
        return [run_seed(*one) for one in runs]
    pool = ProcessPoolExecutor(jobs)
    return pool.map(run_seed, *zip(*runs, strict=True), chunksize=4)


if __name__ == "__main__":
    sys.exit(main())
