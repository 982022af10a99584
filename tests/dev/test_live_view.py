"""What an author is shown of a result and of a failure."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from noetl_worker.authoring.dev.event_log import LoggedEvent
from noetl_worker.authoring.dev.excerpts import EXCERPT, summary
from noetl_worker.authoring.dev.failures import About, Failure, failure_lines
from noetl_worker.authoring.dev.live_view import LineView, reported
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.authoring.dev.orchestration.playbook import Playbook


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (None, ""),
        ({}, ""),
        ([1, 2], "[1,2]"),
        ("text", '"text"'),
        ({"a": 1}, '{"a":1}'),
        ({"exit_code": 0, "stdout": "the end\n", "stderr": ""}, "the end"),
        ({"exit_code": 0, "stdout": "two\nlines\n", "stderr": ""}, r"two\nlines"),
        ({"exit_code": 0, "stdout": 'a "word"', "stderr": ""}, 'a "word"'),
        ({"exit_code": 2, "stdout": "", "stderr": "broken\n"}, "broken"),
        ({"exit_code": 0, "stdout": "\x1b[2J", "stderr": ""}, r"\u001b[2J"),
        ({"returncode": 0, "stdout": "of the Python worker\n", "stderr": "", "commands": []}, "of the Python worker"),
        ({"status_code": 200, "headers": {"a": "b"}, "data": {"n": 1}}, '200 {"n":1}'),
        ({"status_code": 204, "data": ""}, "204"),
        ({"columns": ["a"], "rows": [{"a": 1}], "row_count": 1, "affected_rows": 0}, '1 rows [{"a":1}]'),
        ({"columns": [], "rows": [], "row_count": 0, "affected_rows": 3}, "3 rows"),
        ({"_prev": {"exit_code": 0, "stdout": "last"}, "results": {}}, "last"),
    ],
)
def test_summary_is_what_a_tool_s_result_comes_to(value: Any, said: str) -> None:
    assert summary(value) == said


def test_last_line_of_a_run_says_whose_it_is_once_there_is_another_one() -> None:
    shown = io.StringIO()
    view = LineView(Console(file=shown))
    nothing = Playbook("p", {}, {})
    runs = [
        Execution(number, 1, path, 1, nothing, {}, {}, None, 0.0) for number, path in ((7, "p"), (8, "p"), (9, "q"))
    ]
    view.begin(runs[0], {})
    view.summary(runs[0])
    for run in runs[1:]:
        view.begin(run, {})
    for run in runs[1:]:
        view.summary(run)
    ends = [line.partition("commands")[2] for line in shown.getvalue().splitlines() if line.startswith("RUNNING in ")]
    assert ends == ["", " (p: execution 8)", " (q: execution 9)"]


def test_summary_is_one_line_of_limited_length() -> None:
    for value in ({"stdout": "x" * 500, "exit_code": 0}, {"status_code": 200, "data": "x" * 500}, ["x" * 500]):
        assert len(summary(value)) == EXCERPT


def logged(event_type: str, context: dict[str, Any]) -> LoggedEvent:
    return LoggedEvent(1, 1, event_type, "start", "done", 0.0, result={"context": context})


def test_result_that_has_a_member_named_result_is_shown_whole() -> None:
    """A `playbook` tool's data looks a little like what the Rust plane keeps."""
    value, error = reported(logged("call.done", {"path": "child", "result": {"n": 1}, "status": "completed"}))
    assert (value, error) == ({"path": "child", "result": {"n": 1}}, None)
    value, error = reported(logged("call.done", {"result": {"status": "success", "context": {"data": {"n": 1}}}}))
    assert (value, error) == ({"n": 1}, None)


@pytest.mark.parametrize(
    ("error", "value", "said"),
    [
        ("HTTP 404 response", {"status_code": 404, "data": {"d": "no"}}, ['404 {"d":"no"}']),
        ("Command exited with code 3", {"exit_code": 3, "stdout": "out", "stderr": "one\ntwo\n"}, ["one", "two"]),
        ("first\n\nsecond\nthird", {"stderr": "not shown"}, ["second", "third"]),
        ("x", {"stderr": "\x1b]0;owned\x07"}, [r"\x1b]0;owned\x07"]),
        ("x", {"error": "x", "error_kind": "auth", "code": "1"}, []),
        ("x", None, []),
    ],
)
def test_failure_says_what_there_is_to_go_by(error: str, value: Any, said: list[str]) -> None:
    first, *more = failure_lines(Failure("start", error, value))
    assert first == f"  failed: start: {error.splitlines()[0]}"
    assert more == [f"    | {line}" for line in said]


def test_failure_of_a_task_names_the_task() -> None:
    assert failure_lines(Failure("start", "broke", {"failed_task": "load"})) == ["  failed: start, task load: broke"]


def test_failure_of_a_request_names_it_and_shows_the_beginning_of_the_answer() -> None:
    value = {"status_code": 500, "url": "http://h/a?password=hunter2", "data": "x" * 900}
    _, asked, answer = failure_lines(
        Failure("start", "HTTP 500 response", value, about=About(request="POST {{ base }}/a"))
    )
    assert asked == "    POST http://h/a?password=[REDACTED]"
    assert answer == "    | 500 " + "x" * 500


def test_request_that_was_not_answered_is_named_with_how_long_it_took() -> None:
    failure = Failure(
        "start", "timed out after 2 s", {"status_code": None, "url": "http://h/a"}, about=About(request="GET x")
    )
    assert failure_lines(failure) == ["  failed: start: timed out after 2 s", "    GET http://h/a"]


def test_stderr_without_a_traceback_is_shown_by_its_last_lines() -> None:
    text = "\n".join(f"line {n}" for n in range(20))
    assert failure_lines(Failure("start", "x", {"stderr": text}))[1] == "    | line 12"


def test_traceback_is_shown_whole() -> None:
    trace = "Traceback (most recent call last):\n" + "\n".join(f"  line {n}" for n in range(40))
    shown = failure_lines(Failure("start", "x", {"stderr": f"printed before\n{trace}\n"}))[1:]
    assert shown == [f"    | {line}" for line in trace.splitlines()]
