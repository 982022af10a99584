"""U+0000 in results and errors: no control plane can store it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from noetl_worker.errors import ToolError
from noetl_worker.models import (
    CaseDecision,
    Continue,
    Dialect,
    Exit,
    Fail,
    FitRules,
    Report,
    SetVar,
    SkippedCase,
    ToolResult,
)
from noetl_worker.models.fit import SecretTexts
from noetl_worker.pipeline.command import case_actions
from noetl_worker.pipeline.command.tool_plane import ToolPlane
from noetl_worker.pipeline.report import results
from noetl_worker.text import json_text
from noetl_worker.text.null_characters import NullCharacters, has_null
from unit.planes import command, plane
from unit.reports import parsed, report_of, tell

LARGE = ["word " * 20_000, "a\0b"]


async def sent(report: Report, dialect: Dialect) -> str:
    """All that is reported to the plane, and what it is given to store."""
    stored = report.upload.data.decode() if report.upload is not None else ""
    report.upload = None
    transport = await tell(report, dialect=dialect)
    return stored + "".join(json.dumps(body) for _, _, body, _ in transport.sent)


SUCCESSES = {
    "text": ({"stdout": "a\0b"}, "stdout"),
    "rows": ({"rows": [{"name": "x"}, {"name": "\0"}]}, "rows[1].name"),
    "key": ({"in": {"k\0": 1}}, "the key in.k\ufffd"),
    "after a backslash": ({"path": "c:\\\\\0"}, "path"),
    "half of a surrogate pair": ({"name": "a\ud800b"}, "name"),
    "large": ({"rows": LARGE * 3}, "rows[1]"),
}


@pytest.mark.parametrize(("data", "place"), SUCCESSES.values(), ids=SUCCESSES)
async def test_success_that_no_plane_can_store_fails_at_once_and_names_the_field(
    data: Any, place: str, dialect: Dialect
) -> None:
    """Before, the plane answered 500 for half a minute, or took it and could not write the next command."""
    report = await report_of(data, dialect)
    at = place if dialect is Dialect.PYTHON else place.replace("the key ", "the key data.", 1)
    at = at if dialect is Dialect.PYTHON or at.startswith("the key") else f"data.{place}"
    assert report.error is not None
    assert report.error.startswith(f"the result has the character U+0000 in {at}, which no control plane can store: ")
    assert "tr '\\0' '\\n'" in report.error
    assert report.error_kind == "transform"
    assert "\\u0000" not in await sent(report, dialect)


@pytest.mark.parametrize("data", ["a\0b", ["\0"], "\0" * 300_000])
async def test_success_that_is_no_object_fails_as_well(data: Any, dialect: Dialect) -> None:
    report = await report_of(data, dialect)
    assert (report.error is not None, report.error_kind) == (True, "transform")
    assert "\\u0000" not in await sent(report, dialect)


@pytest.mark.parametrize("action", [None, Continue(), Exit("done", {"n": 1}), SetVar("n", 1)])
async def test_no_case_makes_it_a_success(action: Any, dialect: Dialect) -> None:
    decision = CaseDecision(0, action) if action is not None else CaseDecision()
    report = await report_of({"t": "\0"}, dialect, decision)
    assert (report.error_kind, report.exit) == ("transform", None)


async def test_case_that_fails_the_command_says_why_itself(dialect: Dialect) -> None:
    report = await report_of({"t": "\0"}, dialect, CaseDecision(0, Fail("not good \0 enough")))
    assert (report.error, report.error_kind) == ("not good \ufffd enough", None)
    assert "\\u0000" not in await sent(report, dialect)


@pytest.mark.parametrize("lines", [["a\0b"], LARGE * 3], ids=["small", "large"])
@pytest.mark.parametrize("is_raised", [False, True])
async def test_failure_is_reported_with_another_character_and_a_warning(
    lines: list[str], is_raised: bool, dialect: Dialect
) -> None:
    failure = ToolResult.failure("no \0 good", data={"lines": lines, "n\0": 1}, stdout="out\0", exit_code=3)
    report = await (
        results.report_failure(command(dialect), failure, FitRules()) if is_raised else report_of(failure, dialect)
    )
    if is_raised or dialect is Dialect.PYTHON:
        assert report.error == "no \ufffd good"
    (warning,) = report.notes["warnings"]
    assert warning.startswith("U+0000 in ")
    wire = await sent(report, dialect)
    assert "\\u0000" not in wire
    assert "a\ufffdb" in wire or "a\\ufffdb" in wire or is_raised
    assert "U+FFFD" in wire


async def test_data_of_an_exit_that_no_plane_can_store_fail_the_command(dialect: Dialect) -> None:
    report = await report_of({"n": 1}, dialect, CaseDecision(0, Exit("do\0ne", {"t": ["\0"]})))
    assert report.error is not None
    assert report.error.startswith("the data of this case's exit has the character U+0000 in t[0], ")
    assert (report.error_kind, report.exit) == ("transform", None)
    fine = await report_of({"n": 1}, dialect, CaseDecision(0, Exit("do\0ne", {"t": 1})))
    assert fine.exit is not None
    assert fine.exit.status == "do\ufffdne"


async def test_reason_of_a_skipped_case_is_told_with_another_character(dialect: Dialect) -> None:
    report = await report_of({}, dialect, CaseDecision(skipped=(SkippedCase(1, "odd \0"),)))
    assert report.notes["cases_skipped"] == [{"index": 1, "reason": "odd \ufffd"}]


async def test_variable_that_no_plane_can_store_is_not_sent(dialect: Dialect) -> None:
    at, transport = plane(lambda *_: pytest.fail("nothing is sent"), dialect)
    with pytest.raises(ToolError, match=r"case 2: set_var 'n': the variable has the character U\+0000 in n\[1\], "):
        await case_actions.act(CaseDecision(2, SetVar("n", ["a", "\0"])), command(dialect), at)
    assert transport.sent == []


async def test_half_of_a_pair_in_an_error_is_told_with_another_character(dialect: Dialect) -> None:
    failed = await results.report_failure(command(dialect), ToolResult.failure("no \udcff good"), FitRules())
    assert failed.error == "no ? good"
    assert "\\u0000" not in await sent(failed, dialect)


async def test_value_that_no_plane_can_store_is_not_passed_on_to_a_child(dialect: Dialect) -> None:
    at, transport = plane(lambda *_: pytest.fail("nothing is sent"), dialect)
    tool_plane = ToolPlane(at, command(dialect), SecretTexts, lambda: None)
    with pytest.raises(ToolError, match=r"the value to pass on has the character U\+0000 in payload\.t, "):
        await tool_plane.execute_playbook({"path": "c", "payload": {"t": "\ud800"}})
    with pytest.raises(ToolError, match=r"the value to store has the character U\+0000 in its text, "):
        await tool_plane.put_result("r", json_text.dumps("\0"), source_step="start")
    assert transport.sent == []


async def test_secret_is_not_told_in_the_place(dialect: Dialect) -> None:
    rules = FitRules(secrets=("s3cr3t-value",))
    report = await report_of({"s3cr3t-value": {"t": "\0"}}, dialect, rules=rules)
    assert "s3cr3t" not in await sent(report, dialect)


@pytest.mark.parametrize(
    "data",
    [r"\u0000", {r"\u0000": 1}, r"\\u0000", ["\\", "u0000"], '\\"\\u0000', "\x01\ufffd", {"x": "\\" * 7 + "u0000"}],
)
async def test_letters_of_the_escape_are_no_such_character(data: Any) -> None:
    packed = json_text.dumps(data)
    assert not has_null(packed)
    report = await report_of(data, Dialect.PYTHON)
    assert (report.error, parsed(report.response)) == (None, data)


@pytest.mark.parametrize("backslashes", range(6))
def test_character_is_found_and_replaced_after_any_number_of_backslashes(backslashes: int) -> None:
    text = "\\" * backslashes + '\0\0"\0' + "\\" * backslashes + "u0000"
    packed = json_text.dumps({"t": text, "k" + text: [2**64, text]})
    assert has_null(packed)
    other = text.replace("\0", "\ufffd")
    without = NullCharacters.find(packed).without
    assert without == {"t": other, "k" + other: [str(2**64), other]}
