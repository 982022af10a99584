"""How long a tool may run: its own timeout, the hard limit, and the cancellation of its execution."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
import structlog

import virtual_time
from loops import Threads
from noetl_worker.errors import CommandCancelled, TemplateError, ToolError
from noetl_worker.models import Dialect, ToolResult, ToolStatus
from noetl_worker.models.slots import Slots
from noetl_worker.models.stopping import TOOL_S
from noetl_worker.pipeline.claim.text_marks import read_marks
from noetl_worker.pipeline.command.dispatch import CallLimits, Dispatch
from noetl_worker.tools.contract import Stop, ToolContext
from noetl_worker.tools.registry import Registry
from noetl_worker.tools.scope import CallScope
from unit.planes import After, answer, command, plane


def call_limits(default_s: float, **changed: Any) -> CallLimits:
    """A time for every command; its execution is not asked about."""
    return CallLimits(**{"default_s": default_s, "hard_s": default_s, "cancellation_poll_s": 0, **changed})


@dataclass(frozen=True, slots=True)
class WaitConfig:
    seconds: float
    timeout: float | None = None


class WaitTool:
    kind: ClassVar[str] = "wait"
    aliases: ClassVar[tuple[str, ...]] = ()
    config_model: ClassVar[type] = WaitConfig
    field_aliases: ClassVar[Mapping[str, str]] = {}
    raw_fields: ClassVar[frozenset[str]] = frozenset()

    def __init__(self) -> None:
        self.stopped: str | None = None
        self.allowed_s: float | None = None

    async def run(self, config: WaitConfig, context: ToolContext) -> ToolResult:
        self.allowed_s = context.timeout_s
        try:
            await asyncio.sleep(config.seconds)
        except asyncio.CancelledError:
            self.stopped = context.stop.reason
            raise
        return ToolResult.success("done")


def dispatch_of(
    registry: Registry,
    limits: CallLimits,
    script: Any = lambda *_: answer(200, {}),
    *,
    dialect: Dialect = Dialect.PYTHON,
    slots: Slots | None = None,
    **changes: Any,
) -> Dispatch:
    """Of one command, which `changes` tell about."""
    at, _ = plane(script, dialect)
    return Dispatch(registry, command(dialect, **changes), at, worker_id="w", limits=limits, slots=slots or Slots(1))


async def run(dispatch: Dispatch) -> ToolResult:
    return await dispatch.run(await dispatch.prepare())


async def dispatched(
    limits: CallLimits, *script: Any, kind: str = "wait", **changes: Any
) -> tuple[WaitTool, ToolResult]:
    tool = WaitTool()
    return tool, await run(dispatch_of(Registry([tool], plugins=False), limits, *script, kind=kind, **changes))


@virtual_time.PASSES
async def test_command_of_a_cancelled_execution_is_stopped_with_kind_cancelled() -> None:
    asked: list[str] = []

    def script(method: str, path: str, body: Any) -> Any:
        asked.append(path)
        if len(asked) == 1:
            return answer(500, {})  # not knowing is no reason to stop
        return answer(200, {"cancelled": len(asked) >= 3, "status": "RUNNING"})

    tool, limits = WaitTool(), call_limits(60, cancellation_poll_s=5)
    dispatch = dispatch_of(Registry([tool], plugins=False), limits, script, kind="wait", config={"seconds": 60})
    started = time.monotonic()
    with pytest.raises(CommandCancelled) as caught:
        await run(dispatch)
    assert caught.value.kind == "cancelled"
    assert tool.stopped == "cancelled"
    assert len(asked) == 3
    assert asked[0] == f"/api/executions/{command().execution_id}/cancellation-check"
    assert time.monotonic() - started == pytest.approx(15)


@pytest.mark.parametrize(("dialect", "known"), [(Dialect.RUST, 7), (Dialect.PYTHON, "7")])
async def test_execution_id_in_templates_has_the_type_that_the_planes_own_worker_gives_it(
    dialect: Dialect, known: int | str
) -> None:
    tasks = {"tasks": [{"name": "t", "kind": "noop", "input": {"id": "{{ execution_id }}"}}]}
    changes: Any = {"dialect": dialect, "kind": "task_sequence", "config": tasks, "execution_id": 7}
    ready = await dispatch_of(Registry(plugins=False), call_limits(60), **changes).prepare()
    assert ready.context.values.variables["execution_id"] == known


@pytest.mark.parametrize(
    ("kind", "config", "workload", "is_kept", "is_known"),
    [
        ("shell", {"command": "true"}, {"url": "https://example.org/api"}, True, False),
        ("shell", {"command": "true"}, {"password": "hunter2-and-more"}, False, True),
        ("shell", {"command": "true"}, {"url": "postgres://me:hunter2-and-more@db/x"}, False, True),
        ("shell", {"command": "PGPASSWORD=hunter2 psql"}, {}, False, False),
        ("shell", {"command": "true", "env": {"api_key": "hunter2-and-more"}}, {}, False, True),
        ("shell", {"command": "true", "env": {"A": "{{ workload.note }}"}}, {"note": "the key"}, False, False),
        ("http", {"url": "https://api.example/orders?page=1"}, {}, True, False),
        ("http", {"url": "https://me:p4ss-w0rd@api.example/"}, {}, False, True),
        ("http", {"url": "https://api.example/", "auth": {"type": "bearer", "token": "s3cr3t-value"}}, {}, False, True),
    ],
)
async def test_checked_config_outlives_its_command_only_where_it_has_no_secret(
    kind: str, config: dict[str, Any], workload: dict[str, Any], is_kept: bool, is_known: bool
) -> None:
    registry, marks = Registry(plugins=False), read_marks(json.dumps([config, workload]).encode())
    changes: Any = {"kind": kind, "config": config, "variables": {"workload": workload}, "marks": marks}
    made = [dispatch_of(registry, call_limits(60), **changes) for _ in range(2)]
    first, second = [await one.prepare() for one in made]
    assert (first.config is second.config) is is_kept
    assert [bool(one.credentials.known.texts().all) for one in made] == [is_known] * 2


@virtual_time.PASSES
async def test_bug_in_the_question_is_raised_and_the_tool_does_not_run_on() -> None:
    ended = asyncio.Event()

    async def asking() -> None:
        raise ZeroDivisionError

    async def tool() -> ToolResult:
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()
        return ToolResult.success()

    scope = CallScope(Stop(), 60, poll_s=1, until_cancelled=asking)
    with pytest.raises(ZeroDivisionError):
        await scope.run(tool())
    await ended.wait()


async def test_fast_command_never_asks() -> None:
    asked: list[str] = []
    limits = call_limits(60, cancellation_poll_s=5)
    _, result = await dispatched(limits, lambda m, path, b: asked.append(path), config={"seconds": 0})
    assert (result.data, asked) == ("done", [])


@virtual_time.PASSES
async def test_end_of_the_tool_is_not_held_up_by_a_question_that_is_not_answered() -> None:
    limits, never = call_limits(60, cancellation_poll_s=5), After(float("inf"), answer(200, {}))
    _, result = await dispatched(limits, lambda *_: never, config={"seconds": 0.1})
    assert result.data == "done"


@virtual_time.PASSES
async def test_hard_limit_stops_a_command_that_asked_for_more() -> None:
    tool, result = await dispatched(call_limits(60, hard_s=30), config={"seconds": 60, "timeout": 900})
    assert (result.status, tool.stopped) == (ToolStatus.TIMEOUT, "timeout")


async def test_unknown_variable_of_a_template_is_nothing_or_an_error_as_the_settings_say() -> None:
    config = {"seconds": "{{ missing.deeper or 0 }}"}
    _, result = await dispatched(call_limits(3), config=config)
    assert result.data == "done"
    with pytest.raises(TemplateError, match="missing"):
        await dispatched(call_limits(3, undefined_is_error=True), config=config)


async def sequenced(tasks: list[Any], limits: CallLimits, kind: str = "task_sequence") -> tuple[WaitTool, ToolResult]:
    return await dispatched(limits, kind=kind, config={"tasks": tasks})


async def test_unknown_field_of_a_task_in_a_sequence_is_logged() -> None:
    with structlog.testing.capture_logs() as logs:
        await sequenced([{"kind": "wait", "seconds": 0, "secnods": 1}], call_limits(3))
    problem = "wait: unknown field 'secnods' is ignored; did you mean 'seconds'?"
    assert [(log["kind"], log["problem"]) for log in logs if log["event"] == "tool_config"] == [("wait", problem)]


@pytest.mark.parametrize(
    "task",
    [
        {"kind": "noop", "result": "v={{ nowhere }}"},
        {"kind": "noop", "input": {"v": "{{ nowhere }}"}},
        {"kind": "noop", "set": {"ctx.v": "{{ nowhere }}"}},
    ],
    ids=["field", "input", "set"],
)
async def test_unknown_variable_in_a_sequence_is_nothing_or_an_error_as_the_settings_say(task: dict[str, Any]) -> None:
    assert (await sequenced([task], call_limits(3)))[1].status is ToolStatus.SUCCESS
    _, result = await sequenced([task], call_limits(3, undefined_is_error=True))
    assert result.error is not None
    assert "nowhere" in result.error.message


@virtual_time.PASSES
async def test_timeout_of_a_task_in_a_sequence_ends_that_task_and_the_rest_goes_on() -> None:
    policy = {"rules": [{"when": "{{ output.error.kind == 'timeout' }}", "then": {"do": "continue"}}]}
    slow = {"name": "slow", "kind": "wait", "seconds": 60, "timeout": 20, "spec": {"policy": policy}}
    started = time.monotonic()
    tool, result = await sequenced([slow, {"name": "next", "kind": "noop", "result": "went on"}], call_limits(30))
    assert time.monotonic() - started == pytest.approx(20 + TOOL_S)
    assert (tool.stopped, tool.allowed_s) == ("timeout", 20)
    assert (result.status, result.data["_prev"]) == (ToolStatus.SUCCESS, "went on")
    _, result = await sequenced([{"kind": "wait", "seconds": 60, "timeout": 20}], call_limits(30))
    assert result.error is not None
    assert result.error.kind == "timeout"


async def test_sequence_that_succeeded_has_the_exit_code_0_on_the_rust_plane() -> None:
    """Recorded (output-sql-ok): also where its last task is no program."""
    config = {"tasks": [{"name": "a", "kind": "noop"}]}
    exits = [(await ran(dialect, kind="task_sequence", config=config)).exit_code for dialect in Dialect]
    assert dict(zip(Dialect, exits, strict=True)) == {Dialect.RUST: 0, Dialect.PYTHON: None}


async def test_pipeline_gives_the_planes_form_as_task_sequence_does() -> None:
    tasks = [{"name": "a", "kind": "noop", "result": 1}]
    forms = [(await sequenced(tasks, call_limits(3), kind))[1].data for kind in ("task_sequence", "pipeline")]
    assert forms == [{"status": "ok", "_prev": 1, "results": {"a": 1}, "ctx": {}}] * 2


@pytest.mark.parametrize(
    ("config", "allowed_s"),
    [
        ({}, 3.0),
        ({"timeout": 0.5}, 0.5),
        ({"timeout": 900}, 7.0),
        ({"timeout": "{{ t }}"}, 5.0),
        ({"spec": {"timeout_seconds": "{{ t }}"}}, 5.0),
        ({"timeout": "{{ nothing }}"}, 3.0),
    ],
)
async def test_timeout_is_the_commands_own_or_the_default_within_the_hard_limit(
    config: dict[str, Any], allowed_s: float
) -> None:
    tool, changes = WaitTool(), {"config": {"seconds": 0, **config}, "variables": {"t": 5}}
    dispatch = dispatch_of(Registry([tool], plugins=False), call_limits(3, hard_s=7), kind="wait", **changes)
    ready = await dispatch.prepare()
    await dispatch.run(ready)
    assert ready.timeout_s == allowed_s
    assert tool.allowed_s == pytest.approx(allowed_s, abs=0.05)


@pytest.mark.parametrize(
    ("given", "allowed_s"),
    [
        ({"timeout": 5}, 5.0),
        ({"spec": {"timeout_seconds": "5s"}}, 5.0),
        ({"timeout": "{{ 6 }}"}, 6.0),
        ({"timeout": 900}, 9.0),
        ({}, 3.0),
    ],
)
@pytest.mark.parametrize("is_nested", [False, True])
async def test_timeout_of_a_task_counts_over_the_default(
    given: dict[str, Any], allowed_s: float, is_nested: bool
) -> None:
    tasks: list[Any] = [{"name": "a", "kind": "wait", "seconds": 0, **given}]
    if is_nested:
        tasks = [{"name": "outer", "kind": "pipeline", "tasks": tasks}]
    tool, _ = await sequenced(tasks, call_limits(3, hard_s=9))
    assert tool.allowed_s == pytest.approx(allowed_s, abs=0.1)


@pytest.mark.parametrize(
    "wrong", [{"timeout": "soon"}, {"kind": "pipeline", "tasks": []}, {"kind": "pipeline", "tasks": [{"kind": 1}]}]
)
async def test_task_whose_time_cannot_be_told_is_left_to_its_rules(wrong: dict[str, Any]) -> None:
    policy = {"rules": [{"when": "{{ output.error.kind == 'configuration' }}", "then": {"do": "continue"}}]}
    task = {"name": "a", "kind": "wait", "seconds": 0, "spec": {"policy": policy}, **wrong}
    _, result = await sequenced([task, {"name": "next", "kind": "noop", "result": "went on"}], call_limits(3))
    assert (result.status, result.data["_prev"]) == (ToolStatus.SUCCESS, "went on")


@pytest.mark.parametrize(("dialect", "y"), [(Dialect.PYTHON, 2), (Dialect.RUST, 3)])
@pytest.mark.parametrize("name", ["input", "args"])
async def test_input_that_is_one_text_is_rendered_and_joined_with_the_commands(
    name: str, dialect: Dialect, y: int
) -> None:
    """It was dropped when the command had an input. Its values are data; `y` is the step's, or the tool's own one."""

    async def go(given: Any, kind: str, **config: Any) -> Any:
        changes = {"input": {"x": 1, "y": 2}, "variables": {"v": {"y": 3, "z": "{{ x }}"}}}
        return (await ran(dialect, kind=kind, config={name: given, **config}, **changes)).data

    assert await go("{{ v }}", "noop", result="{{ [x, y, z] }}") == [1, y, "{{ x }}"]
    assert await go("{{ v }}", "python", code="result = [x, y, z]") == [1, y, "{{ x }}"]
    assert await go("{{ nothing }}", "noop", result="{{ [x, y] }}") == [1, 2]
    beside = {"input": {"w": "{{ x + 4 }}", "z": 0}}
    assert await go("{{ v }}", "python", code="result = [w, x, y, z]", spec=beside) == [5, 1, y, "{{ x }}"]
    with pytest.raises(ToolError, match=f"noop: field '{name}' must be an object, not int"):
        await go("{{ x }}", "noop")


async def ran(dialect: Dialect, *script: Any, **changes: Any) -> ToolResult:
    """By a tool that comes with the worker."""
    registry = Registry(plugins=False)
    try:
        return await run(dispatch_of(registry, call_limits(30), *script, dialect=dialect, **changes))
    finally:
        await registry.aclose()


async def test_input_that_is_called_like_what_its_template_names_does_not_find_itself() -> None:
    given = {"start": "{{ start }}", "n": "{{ n }}", "both": "{{ lit }}", "lit": 5}
    code = "result = [start, n, both]"
    for dialect, nothing in ((Dialect.PYTHON, ""), (Dialect.RUST, None)):  # as with each plane's own worker
        result = await ran(dialect, kind="python", config={"code": code}, input=given, variables={"n": 1})
        assert result.data == [nothing, 1, 5]


async def test_values_of_the_input_are_data_wherever_they_come_from() -> None:
    sly = "{{ 1 // 0 }}"
    config = {"code": "result = [a, b]", "spec": {"input": {"b": "{{ sly }}"}}}
    changes: Any = {"kind": "python", "input": {"a": "{{ sly }}"}, "variables": {"sly": sly}}
    assert (await ran(Dialect.PYTHON, config=config, **changes)).data == [sly, sly]


async def test_template_of_the_input_that_does_not_parse_is_shown_with_its_field() -> None:
    with pytest.raises(TemplateError, match=r"python: field 'input': template '\{\{ workload\. \}\}': expected name"):
        await ran(Dialect.PYTHON, kind="python", config={"code": "result = 1"}, input={"a": "{{ workload. }}"})


@pytest.mark.parametrize(
    ("config", "given"),
    [
        ({}, {"t": "{{ keychain.tok.token }}"}),
        ({"input": "{{ {'t': keychain.tok.token} }}"}, {"x": 1}),
        ({"args": "{{ {'t': keychain.tok.token} }}"}, {}),
    ],
)
async def test_input_may_name_an_entry_of_the_keychain(config: dict[str, Any], given: dict[str, Any]) -> None:
    entry = {"status": "success", "token_data": {"token": "tok-12345"}, "expires_at": None, "ttl_seconds": 3600}
    changes: Any = {"kind": "python", "config": {"code": "result = t[::-1]", **config}, "input": given}
    result = await ran(Dialect.PYTHON, lambda *_: answer(200, entry), catalog_id="9", **changes)
    assert result.data == "54321-kot"


async def test_sequence_of_a_workbook_gives_the_planes_form_too() -> None:
    tasks = [{"name": "a", "kind": "noop", "result": 1}]
    entry = {"name": "double", "tool": {"kind": "task_sequence", "tasks": tasks}}
    result, _ = await doubled("767500679257522354", {"payload": {"workbook": [entry]}})
    assert result.data == {"status": "ok", "_prev": 1, "results": {"a": 1}, "ctx": {}}


async def test_tool_that_waits_for_other_commands_holds_nothing_of_its_kind() -> None:
    slots = Slots(2, limits={"parent": 1})
    seen: list[str] = []

    class ParentTool(WaitTool):
        kind = "parent"

        async def run(self, config: WaitConfig, context: ToolContext) -> ToolResult:
            with context.worker.waiting():
                slots.take()
                async with slots.kind("parent"):  # a child of the same kind
                    seen.append("child")
                slots.release()
            return ToolResult.success()

    changes: Any = {"slots": slots, "kind": "parent", "config": {"seconds": 0}}
    slots.take()
    async with slots.kind("parent"):
        await run(dispatch_of(Registry([ParentTool()], plugins=False), call_limits(60), **changes))
    slots.release()
    assert (seen, slots.used) == (["child"], 0)


WORKBOOK = {"workbook": [{"name": "double", "tool": {"kind": "noop", "result": "{{ n * 2 }}"}}]}


async def doubled(
    catalog_id: str | None, body: Any, *, dialect: Dialect = Dialect.PYTHON
) -> tuple[ToolResult, list[Any]]:
    sent: list[Any] = []

    def script(method: str, path: str, given: Any) -> Any:
        sent.append((method, path, given))
        return answer(200, body)

    changes: Any = {"kind": "workbook", "config": {"name": "double"}, "input": {"n": 21}, "catalog_id": catalog_id}
    return await ran(dialect, script, **changes), sent


async def test_workbook_is_looked_up_in_the_catalog_in_the_version_of_the_execution() -> None:
    result, sent = await doubled("767500679257522354", {"path": "p", "version": 3, "payload": WORKBOOK})
    assert result.data == 42
    assert sent == [("POST", "/api/catalog/resource", {"catalog_id": "767500679257522354"})]


async def test_rust_planes_workbook_is_in_the_text_of_the_playbook() -> None:
    entry = {"payload": {"n": 1}, "layout": [], "content": json.dumps(WORKBOOK)}
    assert (await doubled("7", entry, dialect=Dialect.RUST))[0].data == 42


@pytest.mark.parametrize(
    ("dialect", "catalog_id", "body", "message"),
    [
        (Dialect.PYTHON, None, {}, "the command has no catalog_id, so its playbook cannot be looked up"),
        (Dialect.PYTHON, "7", {"payload": None}, "catalog entry 7 has no playbook"),
        (Dialect.RUST, "7", {"payload": {"n": 1}, "content": "a: ["}, "catalog entry 7"),
        (Dialect.RUST, "7", {"payload": {"n": 1}, "content": "no playbook"}, "catalog entry 7"),
        (Dialect.RUST, "7", {"payload": {"n": 1}, "content": None}, "catalog entry 7"),
    ],
)
async def test_workbook_without_a_playbook_says_so(
    dialect: Dialect, catalog_id: str | None, body: Any, message: str
) -> None:
    with pytest.raises(ToolError, match=message) as caught:
        await doubled(catalog_id, body, dialect=dialect)
    assert caught.value.kind == "parse"


@pytest.mark.parametrize(("kind", "config"), [("noop", {}), ("task_sequence", {"tasks": [{"one": {"kind": "noop"}}]})])
async def test_kind_that_was_not_used_yet_is_imported_off_the_loop(kind: str, config: dict[str, Any]) -> None:
    """The library of postgres takes 0.2 s of CPU, in which nothing else of the worker would go on."""
    threads, registry = Threads(), Registry(plugins=False)
    for _ in range(2):
        await run(dispatch_of(registry, call_limits(5), kind=kind, config=config))
        assert threads.given == len({kind, "noop"}), "once each"
