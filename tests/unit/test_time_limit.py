"""What ends a test that hangs (tests/time_limit.py)."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import loops
from integration.processes import environment
from patience import PATIENCE_S

HANGS = """
    import asyncio
    import pytest

    @pytest.fixture(params=LOOPS)
    def anyio_backend(request):
        return request.param

    @pytest.fixture
    async def given():
        yield
        await asyncio.sleep(0)

    @pytest.mark.timeout(1)
    async def test_hangs(given):
        await asyncio.Event().wait()
"""


@pytest.mark.parametrize("loop", loops.BOTH)
def test_that_hangs_ends_with_its_traceback(loop: tuple[str, dict[str, Any]], tmp_path: Path) -> None:
    """Beside an async fixture, whose end comes after it."""
    (tmp_path / "test_it.py").write_text(textwrap.dedent(HANGS).replace("LOOPS", repr([loop])))
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "time_limit", "-o", "anyio_mode=auto", "-o", "timeout=60"]
    path = str(Path(loops.__file__).parent)
    done = subprocess.run(
        [*argv, f"--rootdir={tmp_path}", "test_it.py"],
        cwd=tmp_path,
        env={**environment(), "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("Timeout (0:00:01.25"), done.stdout + done.stderr
