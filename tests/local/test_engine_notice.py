"""`dev` without the native engine: one line at the first start of a user, and none after it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("yaml")
import noetl_worker
from integration.processes import environment
from lint.head import HEAD
from patience import PATIENCE_S

_WITHOUT_CORE = (
    "import sys; sys.modules['noetl_worker._core'] = None; from noetl_worker.__main__ import main; sys.exit(main())"
)
_BY_CHOICE = Path(noetl_worker.__file__).parent / "engine/pure_by_choice"

pytestmark = pytest.mark.skipif(
    sys.implementation.name != "cpython" or _BY_CHOICE.exists(),
    reason="no native engine on purpose",
)


def said_by(words: list[str], state: Path) -> list[str]:
    variables = {**environment(XDG_STATE_HOME=str(state), STATE_DIRECTORY=""), "NOETL_WORKER_ENGINE": "auto"}
    command = [sys.executable, "-c", _WITHOUT_CORE, *words]
    ended = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=PATIENCE_S, cwd=state.parent)
    assert ended.returncode == 0, ended.stderr
    return [line for line in ended.stderr.splitlines() if "ngine" in line or "arning:" in line]


def test_missing_engine_is_one_line_at_the_first_start_with_advice_and_none_after_it(tmp_path: Path) -> None:
    playbook, state = tmp_path / "p.yaml", tmp_path / "state"
    playbook.write_text(HEAD + "workflow: [{step: start, tool: {kind: python, code: 'result = {}'}}]\n")
    (line,) = said_by(["dev", str(playbook)], state)
    assert line.startswith("noetl-worker runs on its Python engine: no Rust engine for cpython ")
    assert "`NOETL_WORKER_BUILD=rust pip install .`" in line
    assert said_by(["check", str(playbook)], state) == []


def test_missing_engine_is_said_again_where_no_mark_can_be_left(tmp_path: Path) -> None:
    playbook, state = tmp_path / "p.yaml", tmp_path / "state"
    playbook.write_text(HEAD + "workflow: [{step: start, tool: {kind: noop}}]\n")
    state.write_text("no directory")
    assert [len(said_by(["check", str(playbook)], state)) for _ in range(2)] == [1, 1]
