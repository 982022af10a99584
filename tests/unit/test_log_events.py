"""Names of log events: operators search for them. Two words at least."""

from __future__ import annotations

import ast
import importlib.util
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType

from patience import PATIENCE_S

DOCS = Path(__file__, "../../../docs").resolve()
ONE_WORD = {"deregistered", "draining", "pulling", "registered", "stopped"}
"""The worker's own life, and its one line for each notification."""


@cache
def listed() -> ModuleType:
    """What makes docs/log-events.md."""
    path = DOCS / "list_log_events.py"
    spec = importlib.util.spec_from_file_location("list_log_events", path)
    assert spec is not None
    assert spec.loader is not None
    made = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    made.events = cache(made.events)  # type: ignore[attr-defined]
    return made


def test_names_have_two_words_at_least() -> None:
    names = set(listed().events())
    assert len(names) > 60
    assert {name for name in names if "_" not in name} <= ONE_WORD


def test_page_of_log_events_is_what_the_code_writes() -> None:
    """`python docs/list_log_events.py` writes it."""
    pages = listed()
    assert pages.page() == pages.PAGE.read_text(encoding="utf-8")


def test_every_warning_and_error_says_what_to_do_and_no_advice_is_stale() -> None:
    pages = listed()
    found = pages.events()
    for name, event in found.items():
        assert event.levels.isdisjoint({"warning", "error"}) or event.has_advice or name in pages.ACTIONS, name
    assert set(pages.ACTIONS) <= set(found)
    assert {"nats_disconnected", "plane_down", "command_failed"} <= set(found)
    assert {"execution_id", "command_id", "event_id", "step", "kind", "error"} <= found["command_failed"].fields


def test_no_field_has_the_name_of_one_that_each_line_has() -> None:
    """It would be overwritten."""
    fields = {name for event in listed().events().values() for name in event.fields}
    assert fields & {"event", "exception", "level", "timestamp"} == set()


WRITES_LINES = """
import io, logging, sys
import structlog
from noetl_worker.observability.logging import configure_logging

class Stream(io.StringIO):
    def write(self, text):
        print(repr(text))
        return len(text)

sys.stderr = Stream()
configure_logging("info", "json")
structlog.get_logger("noetl_worker").info("line_written", number=1)
logging.getLogger("library").warning("of a library")
"""


def test_line_is_one_write_whatever_python_buffers() -> None:
    """Processes share stderr: a line in two writes has that of another one in it."""
    ran = subprocess.run(
        [sys.executable, "-c", WRITES_LINES], capture_output=True, text=True, check=True, timeout=PATIENCE_S
    )
    written = [ast.literal_eval(line) for line in ran.stdout.splitlines()]
    assert [text.endswith("\n") for text in written] == [True, True]
