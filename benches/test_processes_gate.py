"""What two processes of one supervisor carry, beside one worker (docs/performance.md)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import check_gates

PROGRAM = Path(__file__).with_name("bench_worker.py")
FASTER = 1.9


@pytest.mark.gates
@pytest.mark.skipif(not check_gates.can_run_worker(), reason="the rig needs Linux, httptools, orjson, uvloop")
def test_two_processes_carry_nearly_twice_as_much_as_one() -> None:
    """A process of its own for the measurement: it lowers its priority for good."""
    ran = subprocess.run([sys.executable, str(PROGRAM), "processes"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    one, two = (row["worker"] for row in json.loads(ran.stdout))
    assert two["commands_per_s"] / one["commands_per_s"] >= FASTER, (one, two)
