"""Results held to the event budget, and what a plane is told of each ending."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any

import pytest

from noetl_worker.errors import ServerRefused
from noetl_worker.models import (
    CaseDecision,
    Continue,
    Dialect,
    Exit,
    Fail,
    FitRules,
    Report,
    SecretTexts,
    SetVar,
    SkippedCase,
    ToolResult,
)
from noetl_worker.pipeline.report import results
from noetl_worker.text import json_text
from noetl_worker.text.secrets import redaction
from unit.reports import parsed, report_of

RULES = FitRules.for_secrets(SecretTexts(), max_bytes=102_400)


async def test_python_response_is_the_tools_data_and_context_its_plain_values() -> None:
    data = {"text": "x", "none": None, "rows": 3, "data": "a document", "list": [1], "in": {"n": 1, "l": [2]}, "e": {}}
    report = await report_of(data)
    assert parsed(report.response) == data
    assert report.context == {"text": "x", "none": None, "in": {"n": 1}}
    assert report.error is None


async def test_output_of_a_success_is_in_the_last_event() -> None:
    printed = ToolResult.success({"n": 1}, stdout="begin\npassword=hunter22\n" + "x" * 20_000 + "end\n", stderr="")
    report = await report_of(printed)
    output: Any = report.notes["output"]
    assert (output["stdout"][-4:], len(output["stdout"]), output["stderr"]) == ("end\n", 8_192, "")
    assert parsed(report.response) == {"n": 1}
    assert "output" not in (await report_of(printed, Dialect.RUST)).notes
    shell = {"returncode": 0, "stdout": "x", "stderr": ""}
    assert "output" not in (await report_of(ToolResult.success(shell, stdout="x", stderr=""))).notes


async def test_output_that_the_event_has_no_room_for_is_left_out() -> None:
    tight = FitRules.for_secrets(SecretTexts(), max_bytes=6_000)
    report = await report_of(ToolResult.success({"text": "y" * 1_000}, stdout="x" * 8_000), rules=tight)
    assert "output" not in report.notes


async def test_output_is_redacted_before_it_is_cut() -> None:
    secret = "s3cr3t-" * 20
    rules = FitRules.for_secrets(SecretTexts((secret,)), max_bytes=102_400)
    report = await report_of(ToolResult.success({}, stdout=secret + "x" * (8_192 - 20)), rules=rules)
    assert "s3cr3t" not in str(report.notes)


@pytest.mark.parametrize("cut_off", [1, 3, 4, 15, 29])
async def test_output_begins_with_no_half_of_a_secret(cut_off: int) -> None:
    """A long output is cut before it is redacted, and what is redacted is shorter than what a second cut keeps."""
    secret = "Zq7hunterSecret42kX9pL0vM8tR6w"
    redaction.remember(lambda: SecretTexts((secret,)))
    printed = secret[cut_off:] + f"\n{secret}" * 527
    lines = printed + "." * (16_384 - len(printed))
    rules = FitRules.for_secrets(SecretTexts((secret,)), max_bytes=102_400)
    report = await report_of(ToolResult.success({}, stdout=secret[:cut_off] + lines), rules=rules)
    output: Any = report.notes["output"]
    begins = output["stdout"].split("\n")[0]
    assert len(begins) < 4 or begins == "[REDACTED]", begins


ODD = {"t": (1, 2), "s": {3}, "when": datetime.date(2026, 1, 2), 5: "five", "in": {"d": Decimal("1.5"), 6: "six"}}
BEYOND = {"big": 2**70, "nan": float("nan")}


@pytest.mark.parametrize(
    ("data", "left_out"), [({"a": 1, "b": {"c": "x"}, "l": [1]}, {"l"}), (ODD, {"t", "s"}), (BEYOND, set())]
)
async def test_python_context_says_what_the_response_says_of_the_same_name(data: Any, left_out: set[str]) -> None:
    """Whether the result was read again to find its plain values, or they were taken from it."""
    report = await report_of(data)
    response = parsed(report.response)
    assert parsed(report.context) == {name: response[name] for name in response if name not in left_out}


async def test_python_context_has_those_plain_values_that_may_leave() -> None:
    report = await report_of({"n": 1, "password": "hunter2hunter2"})
    assert parsed(report.context) == {"n": 1, "password": "[REDACTED]"}


@pytest.mark.parametrize("data", [5, "text", [1, 2], None, True])
async def test_python_context_is_absent_where_the_data_is_no_object(data: Any) -> None:
    report = await report_of(data)
    assert parsed(report.response) == data
    assert report.context is None


async def test_rust_context_is_the_whole_tool_result_with_the_command_id() -> None:
    report = await report_of(ToolResult.success({"n": 1}, stdout="", exit_code=0, duration_ms=3), Dialect.RUST)
    assert parsed(report.context) == {
        "command_id": "7:start:9",
        "status": "success",
        "data": {"n": 1},
        "stdout": "",
        "exit_code": 0,
        "duration_ms": 3,
    }


async def test_failed_tool_without_a_case_fails_the_command_on_the_python_plane_alone() -> None:
    failure = ToolResult.failure("exit 3", kind="process", data={"exit_code": 3}, exit_code=3)
    python = await report_of(failure)
    rust = await report_of(failure, Dialect.RUST)
    assert (python.error, rust.error) == ("exit 3", None)
    assert rust.status == "error"
    assert parsed(python.response)["status"] == "error"
    assert parsed(python.response)["exit_code"] == 3


@pytest.mark.parametrize("action", [Continue(), Exit("done"), SetVar("n", 1)])
async def test_matched_action_other_than_fail_handles_the_error(action: Any, dialect: Dialect) -> None:
    report = await report_of(ToolResult.failure("exit 3"), dialect, CaseDecision(0, action))
    assert report.error is None


async def test_case_fail_fails_a_command_whose_tool_succeeded(dialect: Dialect) -> None:
    report = await report_of({}, dialect, CaseDecision(2, Fail("not good enough")))
    assert report.error == "not good enough"
    assert report.notes["case"] == {"index": 2, "action": "fail"}


async def test_skipped_cases_are_named_in_the_terminal_event() -> None:
    report = await report_of({}, decision=CaseDecision(skipped=(SkippedCase(1, "unknown operator"),)))
    assert report.notes["cases_skipped"] == [{"index": 1, "reason": "unknown operator"}]


@pytest.mark.parametrize("size", range(101_700, 102_500, 200))
async def test_context_never_leaves_over_the_budget(size: int, dialect: Dialect) -> None:
    report = await report_of({"t": "x" * size}, dialect, rules=RULES)
    assert len(json_text.dumps(report.context)) <= 102_400


async def test_known_secret_is_taken_out_of_result_and_error() -> None:
    rules = FitRules(secrets=("s3cr3t-value",))
    failure = ToolResult.failure("cannot log in with s3cr3t-value", data={"line": "pw is s3cr3t-value"})
    report = await report_of(failure, rules=rules)
    assert b"s3cr3t-value" not in json_text.dumps([report.context, report.response, report.error])


async def test_error_text_is_free_text_wherever_it_stands(dialect: Dialect) -> None:
    report = await report_of(ToolResult.failure("login with password=hunter2 failed"), dialect)
    assert b"hunter2" not in json_text.dumps([report.context, report.response, report.error])


async def test_exit_of_a_case_is_redacted() -> None:
    rules = FitRules(secrets=("s3cr3t-value",))
    data = {"line": "pw is s3cr3t-value", "password": "x", "n": 1}
    report = await report_of({}, decision=CaseDecision(0, Exit("s3cr3t-value", data)), rules=rules)
    assert report.exit is not None
    assert report.exit.status == "[REDACTED]"
    assert parsed(report.exit.data) == {"line": "pw is [REDACTED]", "password": "[REDACTED]", "n": 1}


async def test_exit_of_a_case_over_the_budget_fails_the_command_and_is_no_preview() -> None:
    large = CaseDecision(0, Exit("done", {"text": "x" * 200_000, "n": 1}))
    report = await report_of({"kept": 1}, decision=large)
    assert (report.exit, report.error_kind) == (None, "resource")
    assert report.error is not None
    assert report.error.startswith("the data of this case's exit have 200017 bytes, and an event takes ")
    assert b"kept" in json_text.dumps([report.context, report.response])


async def test_skipped_cases_are_redacted_and_bounded() -> None:
    skipped = tuple(SkippedCase(at, "bad s3cr3t-value " + "x" * 2000) for at in range(1000))
    report = await report_of(
        ToolResult.success({}), decision=CaseDecision(skipped=skipped), rules=FitRules(secrets=("s3cr3t-value",))
    )
    packed = json_text.dumps(report.notes)
    assert b"s3cr3t-value" not in packed
    assert len(packed) < 16_384
    assert report.notes["cases_skipped_count"] == 1000


async def test_very_deep_result_is_cut_and_not_lost() -> None:
    deep: Any = 1
    for _ in range(700):
        deep = [deep]
    report = await report_of({"deep": deep, "n": 1})
    assert parsed(report.response)["n"] == 1


def test_refused_set_is_told_as_the_smallest_failure() -> None:
    refused = ServerRefused("no", status=422, body="too odd")
    small = results.refused_report(Report(status="success", context={"huge": 1}), refused)
    assert small.error is not None
    assert "422" in small.error
    assert "too odd" in small.error
    assert "huge" not in str(small.context)


FAILURES = {"returned": ToolResult.failure("why", kind="sql"), "raised": ToolResult.raised("why", kind="sql")}


@pytest.mark.parametrize(
    ("dialect", "how", "error"),
    [
        (Dialect.RUST, "returned", None),  # recorded: error-in-sequence
        (Dialect.RUST, "raised", "why"),  # recorded: error-sql-sequence
        (Dialect.PYTHON, "returned", "why"),
        (Dialect.PYTHON, "raised", "why"),
    ],
)
async def test_what_a_task_of_a_list_raised_fails_the_command_on_both_planes(
    dialect: Dialect, how: str, error: str | None
) -> None:
    report = await report_of(FAILURES[how], dialect)
    assert report.error == error
    assert report.error_kind == ("sql" if how == "raised" else None)
    assert (await report_of(FAILURES[how], dialect, CaseDecision(0, Continue()))).error is None, "a case has handled it"


@pytest.mark.parametrize("size", [10_000, 300_000])
def test_long_error_text_keeps_its_ends_without_their_secrets(size: int) -> None:
    rules = FitRules(secrets=("s3cr3t-value",))
    text = results.fit_text("s3cr3t-value begin " + "x" * size + " end s3cr3t-value", rules)
    assert text.startswith("[REDACTED] begin xxx")
    assert text.endswith("xxx end [REDACTED]")
    assert " characters left out ...\n" in text
    assert len(text) < 8_100
