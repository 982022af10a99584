"""What each command loads: the modules of this package, counted, and libraries that it has no use for.

A start is as quick as what it loads is little. A module more here is paid for at each start; raise a number only for
one that every use of the command needs.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
SERVERS: Final = ("starlette", "uvicorn", "nats", "prometheus_client")
NEVER: Final = ("pydantic", "httpx", "httpcore", "pygments", "mashumaro.jsonschema")
COMPLETE: Final = {"_NOETL_WORKER_COMPLETE": "complete_bash"}
LOADED: Final = {
    "--version": (16, (*NEVER, *SERVERS, "typer", "rich", "structlog", "asyncio", "jinja2", "yaml", "mashumaro")),
    "check hello.yaml": (146, (*NEVER, *SERVERS, "rich", "structlog", "sqlite3")),
    "check .": (
        251,
        (*SERVERS, "pydantic", "pygments", "rich", "structlog", "sqlite3", "mashumaro.jsonschema"),
    ),
    "dev hello.yaml": (323, (*NEVER, "starlette.applications", "noetl_worker.authoring.run_page.page")),
    "<TAB>": (10, (*NEVER, *SERVERS, "rich", "structlog", "asyncio", "jinja2", "yaml", "mashumaro")),
    "dev branch.yaml --step <TAB>": (
        23,
        (*NEVER, *SERVERS, "rich", "structlog", "asyncio", "jinja2", "yaml", "mashumaro"),
    ),
}
"""Most modules of this package, and what is not loaded, by command."""
_RUN: Final = """
import atexit, sys
atexit.register(lambda: open({names!r}, "w").write(" ".join(sys.modules)))
from noetl_worker.__main__ import main
main()
"""


_NOT_IN_A_BRIDGE: Final = ("noetl_worker.engine.chosen", "noetl_worker._core", "noetl_worker.remote.plane", "anyio")


def loaded_by(command: str, folder: Path) -> set[str]:
    words, names = command.split(), folder / "names"
    asked = {}
    if words[-1] == "<TAB>":
        asked = {**COMPLETE, "COMP_WORDS": " ".join(["noetl-worker", *words[:-1], ""]), "COMP_CWORD": str(len(words))}
        words = []
    subprocess.run(
        [sys.executable, "-c", _RUN.format(names=str(names)), *words],
        cwd=EXAMPLES,
        env={**os.environ, **asked, "XDG_STATE_HOME": str(folder)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
        check=False,
    )
    return set(names.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("command", LOADED)
def test_command_loads_no_more_than_it_needs(command: str, tmp_path: Path) -> None:
    most, unwanted = LOADED[command]
    loaded = loaded_by(command, tmp_path)
    assert sorted(loaded & set(unwanted)) == []
    own = sorted(name for name in loaded if name.startswith("noetl_worker.") and ".engine" not in name)  # either engine
    assert len(own) <= most, own


def test_bridge_loads_no_engine_and_nothing_of_a_plane() -> None:
    code = "import sys; from noetl_worker.bridge import bridge; print(*sys.modules)"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, encoding="utf-8", timeout=60, check=True)
    assert sorted(set(answer.stdout.split()) & set(_NOT_IN_A_BRIDGE)) == []
