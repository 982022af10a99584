"""40 one-line `python` steps, one after another, in `noetl-worker dev`: dev.json, for docs/performance.md."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from resource import RUSAGE_CHILDREN, getrusage
from typing import Any, Final

import performance_page
from bench_worker import where_and_when

STEPS: Final = 40
_RUNS: Final = 7
DIALECTS: Final = ("python", "rust")


def playbook() -> str:
    names = ["start", *(f"s{number}" for number in range(1, STEPS))]
    steps: list[dict[str, Any]] = [{"step": name, "tool": {"kind": "python", "code": "result = 1"}} for name in names]
    for step, after in pairwise(steps):
        step["next"] = {"arcs": [{"step": after["step"]}]}
    document = {"apiVersion": "noetl.io/v2", "kind": "Playbook", "metadata": {"name": "forty", "path": "bench/forty"}}
    return json.dumps({**document, "workflow": steps})  # JSON is YAML


def measured(file: Path, dialect: str) -> tuple[float, float]:
    """Seconds of one execution, as `dev` says, and the CPU of `dev` with its NATS from its start to its end."""
    before = getrusage(RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "noetl_worker", "dev", str(file), "--json", "--dialect", dialect]
    ended = subprocess.run(command, capture_output=True, check=True, timeout=120)
    after = getrusage(RUSAGE_CHILDREN)
    summary = json.loads(ended.stdout.splitlines()[-1])
    assert (summary["status"], len(summary["steps"])) == ("COMPLETED", STEPS), summary
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return summary["duration_ms"] / 1000, cpu_s


def main() -> None:
    found: dict[str, Any] = {**where_and_when(), "steps": STEPS, "runs": _RUNS, "dialects": {}}
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "forty.yaml"
        file.write_text(playbook(), encoding="utf-8")
        for dialect in DIALECTS:
            rounds = [measured(file, dialect) for _ in range(_RUNS)]
            found["dialects"][dialect] = {"seconds": min(s for s, _ in rounds), "cpu_s": min(cpu for _, cpu in rounds)}
    performance_page.keep("dev", found)


if __name__ == "__main__":
    main()
