"""What the log says of a command: a failure is one line, a warning comes once for each playbook and step."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any, ClassVar

import pytest
from structlog.testing import capture_logs

from noetl_worker.errors import ClaimLost, ToolError
from noetl_worker.models import AlreadyFinished, Dialect, HeldByOther
from noetl_worker.observability import metrics
from noetl_worker.observability.step_log import REMEMBERED, StepLog, Warned
from noetl_worker.pipeline.command.failure import make_failure
from noetl_worker.pipeline.delivery.in_flight import InFlight
from noetl_worker.tools.registry import Registry
from unit.outboxes import event_set
from unit.planes import ENVELOPE, Lost, ScriptedTransport, answer, command, emitter, plane
from unit.test_handover import COMMAND_ID, Beats, delivery, execution, script_for
from unit.test_stopping import Scene

FAILS = {"command": "echo no >&2; exit 3"}


async def lines_of(dialect: Dialect, config: Any, kind: str, *, commands: int = 1) -> list[Any]:
    """The log of commands of one step, one after the other."""

    whole = execution(ScriptedTransport(script_for(dialect, config, kind)), dialect, Beats())
    forgetful = dataclasses.replace(whole.services, in_flight=InFlight(0.0))  # to it each is a command of its own
    whole = dataclasses.replace(whole, services=forgetful)
    with capture_logs() as lines:
        for _ in range(commands):
            await whole.run(delivery(dialect))
        await whole.services.registry.aclose()
    return [line for line in lines if line["log_level"] in ("info", "warning", "error")]


@pytest.mark.parametrize(
    ("config", "kind", "words"),
    [
        (FAILS, "shell", "3"),
        ({"url": "http://127.0.0.1:9/"}, "http", "127.0.0.1"),
        ({}, "no_such_tool", "no_such_tool"),
    ],
    ids=["returned", "raised", "refused"],
)
async def test_failed_command_is_one_line(dialect: Dialect, config: Any, kind: str, words: str) -> None:
    (line,) = await lines_of(dialect, config, kind)
    assert (line["event"], line["log_level"], line["kind"]) == ("command_failed", "warning", kind)
    assert (line["execution_id"], line["command_id"], line["step"]) == (
        ENVELOPE.execution_id,
        COMMAND_ID[dialect],
        "start",
    )
    assert words in line["error"]
    assert "\n" not in line["error"]


async def test_command_that_succeeds_is_no_line() -> None:
    assert await lines_of(Dialect.PYTHON, {}, "noop") == []


async def test_warning_is_said_once_for_each_playbook_and_step() -> None:
    lines = await lines_of(Dialect.PYTHON, {"command": "true", "no_such_field": 1}, "shell", commands=3)
    assert [line["event"] for line in lines] == ["tool_config"]


def said(*places: tuple[str | None, int, str]) -> list[str]:
    warned, levels = Warned(), []

    class Logger:
        def __getattr__(self, level: str) -> Any:
            return lambda *_, **__: levels.append(level)

    for catalog_id, execution_id, step in places:
        one = command(catalog_id=catalog_id, execution_id=execution_id, step=step)
        StepLog(Logger(), warned, one).warning("tool_config", problem="x")
    return levels


@pytest.mark.parametrize(
    ("first", "second", "level"),
    [
        (("9", 1, "a"), ("9", 2, "a"), "debug"),
        (("9", 1, "a"), ("9", 1, "b"), "warning"),
        (("9", 1, "a"), ("8", 1, "a"), "warning"),
        ((None, 1, "a"), (None, 1, "a"), "debug"),
        ((None, 1, "a"), (None, 2, "a"), "warning"),
    ],
    ids=["another execution", "another step", "another playbook", "no catalog id", "no catalog id, another execution"],
)
def test_repeated_warning_is_at_the_level_debug(first: Any, second: Any, level: str) -> None:
    assert said(first, second) == ["warning", level]


def test_what_was_said_is_bounded() -> None:
    warned = Warned()
    assert warned.is_new("first")
    for number in range(REMEMBERED):
        assert warned.is_new(str(number))
    assert warned.is_new("first")
    assert not warned.is_new(str(REMEMBERED - 1))


# ── the text of a failure ──


def raised(said: str, cause: Exception) -> str:
    try:
        raise ToolError(said) from cause
    except ToolError as error:
        failure = make_failure(error).error
        assert failure is not None
        return failure.message


@pytest.mark.parametrize(
    ("text", "cause", "told"),
    [
        ("no route to host", OSError("no route to host"), "no route to host"),
        ("GET /x: no route to host", OSError("no route to host"), "GET /x: no route to host"),
        (
            "the rows cannot be read",
            OSError("peer went away"),
            "the rows cannot be read; caused by OSError: peer went away",
        ),
        ("status 500", KeyError(5), "status 500; caused by KeyError: 5"),
    ],
    ids=["the same", "contained", "another", "by chance"],
)
def test_cause_that_says_what_was_said_is_said_once(text: str, cause: Exception, told: str) -> None:
    assert raised(text, cause) == told


@pytest.mark.parametrize("claim", [HeldByOther("w-2 has it", None), AlreadyFinished("it is over")])
async def test_outcome_that_is_dropped_is_a_line(claim: Any) -> None:
    with capture_logs() as lines:
        at, _ = plane(lambda *_: answer(200, {}))
        with pytest.raises(ClaimLost):
            await emitter().deliver(at, event_set(), Lost(claim))
    assert [(line["event"], line["reason"]) for line in lines] == [("outcome_dropped", claim.reason)]


# ── every outcome is one line at debug, and one count ──


@dataclasses.dataclass(frozen=True)
class NoConfig:
    pass


class Broken:
    """A tool with a bug."""

    kind: ClassVar[str] = "broken"
    config_model: ClassVar[type] = NoConfig

    async def run(self, config: Any, context: Any) -> Any:
        raise ValueError("password=hunter2secret")


async def test_exception_that_no_tool_foresaw_is_logged_with_its_trace_and_without_secrets() -> None:
    whole = execution(ScriptedTransport(script_for(Dialect.PYTHON, {}, "broken")), Dialect.PYTHON, Beats())
    services = dataclasses.replace(whole.services, registry=Registry([Broken()], plugins=False))
    whole = dataclasses.replace(whole, services=services)
    with capture_logs() as lines:
        await whole.run(delivery(Dialect.PYTHON))
    raised = [line for line in lines if line["event"] == "command_raised"]
    assert [(line["log_level"], line["kind"]) for line in raised] == [("error", "broken")]
    assert "in run" in raised[0]["exception"]
    assert "ValueError" in raised[0]["exception"]
    assert "hunter2secret" not in str(lines)


async def test_result_that_has_expired_is_one_line_without_a_trace() -> None:
    reference = {"kind": "result_ref", "ref": "noetl://execution/7/result/start/1"}
    script = script_for(Dialect.PYTHON, reference, "noop")

    def expired(method: str, path: str, body: Any) -> Any:
        return answer(404, {"detail": "TempRef expired"}) if "ref=noetl" in path else script(method, path, body)

    with capture_logs() as lines:
        await execution(ScriptedTransport(expired), Dialect.PYTHON, Beats()).run(delivery(Dialect.PYTHON))
    [failed] = [line for line in lines if line["log_level"] in ("warning", "error")]
    assert (failed["event"], "exception" in failed, "exc_info" in failed) == ("command_failed", False, False)
    assert "TempRef expired" in failed["error"]


async def ended(scene: Scene, data: bytes | None = None) -> None:
    scene.deliver("a", data=data)
    await asyncio.gather(*scene.worker.deliveries.running())


@pytest.mark.parametrize(
    ("data", "disposition"), [(b"{", "not_a_notification"), (None, "retry_later")], ids=["poison", "a proxy's 404"]
)
async def test_answer_is_one_line_at_debug_and_one_count(data: bytes | None, disposition: str) -> None:
    before = metrics.DISPOSITIONS.labels(disposition).value
    with capture_logs() as lines:
        await ended(Scene(), data)
    (line,) = [line for line in lines if line["event"] == "message_answered"]
    assert (line["log_level"], line["disposition"], line["deliveries"]) == ("debug", disposition, 1)
    assert metrics.DISPOSITIONS.labels(disposition).value == before + 1


async def test_second_delivery_of_a_command_in_flight_is_a_line_too() -> None:
    scene = Scene()
    scene.execution.services.in_flight.enter("a", 1)
    with capture_logs() as lines:
        await ended(scene)
    assert [line["disposition"] for line in lines if line["event"] == "message_answered"] == [
        "answered_by_other_delivery"
    ]
