"""Kind `task_sequence`: runs the tasks of a list-valued `tool` one after the other, under their policy rules.

Each task is rendered once, just before it runs, and can use the results of earlier tasks (protocol/tasks.md#lists).
The task's rules see every failure, also an exception, as `output`. `{{` in a result is never rendered.

`SequenceProgress.data` has the same data for both planes; `python_form` and `rust_form` convert it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Final

from noetl_worker.errors import ConfigurationError, ResourceShortage, TemplateError, ToolError
from noetl_worker.models import backoff
from noetl_worker.models.spellings import INPUTS, SEQUENCES, input_names
from noetl_worker.models.tool_result import RaisedFailure, ToolFailure, ToolResult, ToolStatus
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.templates import template
from noetl_worker.text.templates.template import WithFallback, has_template
from noetl_worker.tools import policy
from noetl_worker.tools.contract import ToolContext, ToolValues
from noetl_worker.tools.deadline import TIMEOUTS, effective_timeout, given_timeouts
from noetl_worker.tools.docs.task_schema import TASKS_SCHEMA, TASKS_SPELLINGS
from noetl_worker.tools.kinds.task_sequence.tries import Tries
from noetl_worker.tools.process import live_output
from noetl_worker.tools.process.shortage import when_there_is_room

_NOT_THE_TOOLS: Final = frozenset({"kind", "set", "spec", "policy", *INPUTS})


@dataclass(frozen=True, slots=True)
class Task:
    """A parsed task of a sequence: its label, tool kind, config, input values and policy rules."""

    label: str
    kind: str
    config: Mapping[str, JsonValue]
    input: JsonValue
    """Input values of the task: an object, or a template that renders to an object."""
    args: JsonValue
    """The task's `args`: a config field if the tool has a field of this name, else input values besides `input`."""
    set: Mapping[str, JsonValue]
    rules: tuple[policy.PolicyRule, ...]
    ignored: tuple[ConfigurationError, ...] = ()
    """Warnings about words in the task's policy that the worker does not read."""


def parse_tasks(entries: Sequence[JsonValue]) -> tuple[Task, ...]:
    """Parse tasks in either form: {name, kind, ...} or {label: {kind, ...}}. Unnamed tasks are task_0, task_1, ...

    Raises:
        ConfigurationError: an entry has another form, no kind, or an impossible rule.
    """
    if not entries:
        raise ConfigurationError("task_sequence: there are no tasks; give one")
    return tuple(_parse_task(index, entry) for index, entry in enumerate(entries))


def _parse_task(index: int, entry: JsonValue) -> Task:
    if not isinstance(entry, Mapping):
        raise ConfigurationError(f"task_sequence: task[{index}] must be an object")
    if "kind" in entry:
        label = str(entry.get("name") or f"task_{index}")
        tool = dict(entry)
    elif len(entry) == 1 and isinstance(next(iter(entry.values())), Mapping):
        label = str(next(iter(entry)))
        tool = dict(entry[label])
    elif "name" in entry:
        raise ConfigurationError(f"task_sequence: task {entry['name']!r} missing required 'kind' field")
    else:
        entries = "exactly one labeled entry: {label: {kind: ...}}"
        raise ConfigurationError(f"task_sequence: task[{index}] must have {entries} (got {len(entry)})")
    if not isinstance(tool.get("kind"), str):
        raise ConfigurationError(f"task_sequence: task {label!r} missing required 'kind' field")
    if tool.get("name") == label:  # the label, not a field of the tool
        del tool["name"]
    spec, assignments = _object(label, "spec", tool), _object(label, "set", tool)
    below = {name: spec[name] for name in INPUTS if name in spec and tool.get(name) is None}
    if not has_template(tool.get("input")):
        _object(label, "input", tool)
    given = spec.get("policy", tool.get("policy"))
    rules = policy.parse_policy(label, given)
    config = {key: value for key, value in tool.items() if key not in _NOT_THE_TOOLS}
    if spec:
        config["spec"] = {key: value for key, value in spec.items() if key != "policy" and key not in below}
    return Task(
        label=label,
        kind=tool["kind"],
        config=config,
        input=tool.get("input", below.get("input")),
        args=tool.get("args", below.get("args")),
        set=assignments,
        rules=rules,
        ignored=tuple(policy.unknown_words(label, given)),
    )


def _object(label: str, name: str, task: Mapping[str, JsonValue]) -> Mapping[str, JsonValue]:
    value = task.get(name)
    if value is not None and not isinstance(value, Mapping):
        text = f"task_sequence: task {label!r}: {name!r} must be an object, not {type(value).__name__}"
        raise ConfigurationError(text)
    return value or {}


@dataclass(frozen=True, slots=True)
class TaskSequenceConfig:
    """Runs a list of tools as one command, one after the other on the same worker. Each tool has its own policy rules.

    A list-valued `tool:` of a step becomes this kind. Each task is rendered just before it runs and sees the results
    of earlier tasks, under their names and as `_prev`. A rule of a task may continue, retry, jump, break or fail.
    All rules are checked before the first task runs.
    """

    tasks: list[Any]
    """Tasks in order: each is `{name, kind, ...}` or `{NAME: {kind, ...}}`; a task's rules are in its `spec.policy`."""
    parsed: tuple[Task, ...] = field(init=False, repr=False, compare=False, default=())

    def __post_init__(self) -> None:
        object.__setattr__(self, "parsed", parse_tasks(self.tasks))


class TaskSequenceTool:
    kind: ClassVar[str] = "task_sequence"
    aliases: ClassVar[tuple[str, ...]] = ("pipeline",)
    config_model: ClassVar[type] = TaskSequenceConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"tool_config": "tasks", "tool": "tasks"}
    raw_fields: ClassVar[frozenset[str]] = frozenset({"tasks"})
    field_schemas: ClassVar[Mapping[str, JsonValue]] = {"tasks": TASKS_SCHEMA}

    def ignored(self, config: TaskSequenceConfig) -> list[ConfigurationError]:
        """Return warnings about unknown policy words and about jumps to tasks that do not exist."""
        labels, told = [task.label for task in config.parsed], list[ConfigurationError]()
        for position, task in enumerate(config.parsed):
            told += [*task.ignored, *policy.find_unknown_jumps(task.rules, position, labels)]
        return told

    def check(self, config: TaskSequenceConfig, context: ToolContext) -> None:
        """Refuse the sequence if a task's config is wrong, before the first task has changed anything.

        A task with rules is not checked here, because its rules decide on every failure, also on a wrong config.
        """
        for task in config.parsed:
            if task.rules:
                continue
            own, given = _own_and_given(task, context)
            context.worker.check_tool(task.kind, {**own, **dict(given)}, context)

    def time_needed(self, config: TaskSequenceConfig) -> float:
        """Return the tasks' total timeout in seconds. A sequence without its own timeout gets this time or more."""
        return sum(map(_task_timeout_s, config.parsed))

    async def run(self, config: TaskSequenceConfig, context: ToolContext) -> ToolResult:
        progress = SequenceProgress(config.parsed, context)
        while progress.end is None:
            if context.stop.reason not in (None, "timeout"):
                raise asyncio.CancelledError  # the task was stopped, but still returned a result
            await progress.step()
        return progress.result()


@dataclass
class SequenceProgress:
    """A running sequence: its position and the results of its tasks."""

    tasks: tuple[Task, ...]
    context: ToolContext
    position: int = 0
    end: str | None = None
    """Outcome of the sequence: ok, break, failed or timeout; None while the sequence runs."""
    results: dict[str, JsonValue] = field(default_factory=dict)
    updates: dict[str, JsonValue] = field(default_factory=dict)
    """Name with its scope (`ctx.a`) -> value for later steps, in the order of assignment."""
    executions: dict[str, int] = field(default_factory=dict)
    """Label of a task -> how often the task was executed since its last success."""
    error: ToolFailure | None = None
    exit_code: int | None = None
    last: ToolResult | None = None
    last_position: int | None = None
    previous: JsonValue = None
    steps: int = 0
    tries: Tries = field(default_factory=Tries)
    started: float = field(default_factory=lambda: time.monotonic())

    def __post_init__(self) -> None:
        self.form, variables = self.context.command.form, self.context.values.variables
        self.scope: dict[str, JsonValue] = dict(variables)
        for name in ("ctx", "iter"):
            value = variables.get(name)
            if isinstance(value, Mapping):
                self.scope[name] = dict(value)
        self.scope.update(results=self.results, _prev=None)

    # ── one task ────────────────────────────────────────────────────────────────────────────────

    async def step(self) -> None:
        """Run the task at `position` once and decide what comes next."""
        if self.time_left() == 0 or self.steps >= self.context.settings.task_sequence_max_iterations:
            text = f"max_iterations_exceeded: {self.steps} task executions; is there a jump without an end?"
            self.stop("timeout" if self.time_left() == 0 else "failed", ToolFailure(text, kind="policy"))
            return
        self.steps += 1
        task = self.tasks[self.position]
        attempt = self.executions[task.label] = self.executions.get(task.label, 0) + 1
        began = time.monotonic()
        result = await self.run_task(task, attempt)
        ended = time.monotonic()
        self.expose(task, result)
        result = self.assign_tasks_own(task, result, attempt)
        outcome = policy.task_outcome(result, attempt, self.form)
        seen = {"output": outcome, "outcome": outcome}
        action = policy.choose(task.rules, partial(self.render, extra=seen), partial(self.warn, task), self.form)
        verb = action.do if action is not None else "continue" if result.status is ToolStatus.SUCCESS else "fail"
        self.tries.append(began, ended, task.label, task.kind, attempt, result, verb)
        try:
            self.assign(action.set if action is not None else {}, seen, is_rules=True)
        except TemplateError as error:
            self.stop("failed", RaisedFailure(f"task {task.label!r}: {error}", kind=error.kind))
            return
        await self.follow(task, action, result, verb)

    async def run_task(self, task: Task, attempt: int) -> ToolResult:
        """Run a task and return its result. An exception becomes a failed result, which the task's rules see."""
        self.scope.update(_task=task.label, _attempt=attempt)
        try:
            own, given = _own_and_given(task, self.context)
            local = {name: value for entry in given for name, value in self.local(task, *entry).items()}
            scope, strict = {**self.scope, **local}, self.context.values.undefined_is_error

            def render(value: JsonValue, extra: Mapping[str, JsonValue] | None = None) -> JsonValue:
                if value is local:  # rendered above, so its values are data now
                    return local
                return template.render(value, {**scope, **extra} if extra else scope, strict=strict)

            values = ToolValues(scope, local, render, strict)
            context = dataclasses.replace(self.context, kind=task.kind, values=values, timeout_s=self.time_left())
            config = {**own, "input": local} if local else own
            run = partial(self.context.worker.run_tool, task.kind, config, context)
            return self.joined(await (run() if self.steps == 1 else when_there_is_room(run, self.time_left)))
        except ToolError as error:
            if isinstance(error, ResourceShortage) and self.steps == 1:  # no task has run yet: the rules do not see it
                raise
            return ToolResult.raised(str(error), kind=error.kind, retryable=error.retryable, code=error.code)
        except Exception as error:  # a plug-in may raise anything: `output.error` has it
            return ToolResult.raised(f"{type(error).__name__}: {error}", code=type(error).__name__)

    def local(self, task: Task, name: str, value: JsonValue) -> Mapping[str, JsonValue]:
        """Return a task's input values, rendered, from the templates in `value`. `name` is `input` or `args`."""
        if isinstance(value, Mapping):
            return {key: self.render(item) for key, item in value.items()}
        return _object(task.label, name, {name: self.render(value) or None})

    def joined(self, result: ToolResult) -> ToolResult:
        """Return a task's result. If the task is itself a sequence, apply the inner sequence's `set` values to this
        sequence. The result then has the inner tasks' data by label."""
        if not isinstance(result.data, SequenceData):
            return result
        for name, value in result.data["updates"].items():
            self.set(name, value, leaves=True)
        return dataclasses.replace(result, data=rust_form({**result.data, "updates": {}}))

    def expose(self, task: Task, result: ToolResult) -> None:
        """Make the task's data visible to later tasks. A failed task's data is visible only on the Rust plane
        (recorded: policy-continue)."""
        self.last, self.last_position, data = result, self.position, result.data
        is_flat = self.form.sequence_is_flat
        if result.status is not ToolStatus.SUCCESS and not is_flat:
            return
        self.results[task.label] = self.previous = data
        # `.data` works as a fallback. It is printed only on the Rust plane, which has no `_prev` of its own (recorded:
        # sequence-names).
        has_no_data = isinstance(data, dict) and "data" not in data
        self.scope["_prev"] = seen = WithFallback(data, {"data": data}) if has_no_data else data
        if task.label not in ("ctx", "iter", "results"):
            self.scope[task.label] = {**data, "data": data} if has_no_data and is_flat else seen

    def assign_tasks_own(self, task: Task, result: ToolResult, attempt: int) -> ToolResult:
        """Apply the task's `set`. Return `result`, or a failure if the task succeeded but a template in `set` fails."""
        outcome = policy.task_outcome(result, attempt, self.form)
        try:
            seen = {"output": _task_output(result.data, outcome), "outcome": outcome}
            self.assign(task.set, seen, is_rules=False)
        except TemplateError as error:
            return result if result.error is not None else ToolResult.raised(str(error), kind=error.kind)
        return result

    def assign(self, assignments: Mapping[str, JsonValue], extra: Mapping[str, JsonValue], *, is_rules: bool) -> None:
        """Set the variables that a `set` block names. The name `ctx.a.b` sets `b` in the object `ctx.a`.

        Later steps see all variables of a `set` in a rule of the task's policy (`is_rules`), but only `ctx.*` of the
        task's own `set` (recorded: set-task-bare, set-task-iter, set-rule).
        """
        for name, value in assignments.items():
            self.set(name, self.render(value, extra), leaves=is_rules or name.startswith("ctx."))

    def set(self, name: str, value: JsonValue, *, leaves: bool) -> None:
        if leaves:
            self.updates[name] = value
        scope, *path = name.split(".")
        _nest(self.scope, [scope, *path], value)
        if self.form.sequence_is_flat and scope in ("ctx", "iter") and len(path) == 1:
            self.scope[path[0]] = value  # recorded (set-task-ctx, set-task-iter): the bare name works too

    async def follow(self, task: Task, action: policy.Action | None, result: ToolResult, verb: str) -> None:
        succeeded = result.status is ToolStatus.SUCCESS
        if result.status is ToolStatus.TIMEOUT and self.time_left() == 0:
            self.stop("timeout", None)  # the sequence's time is over, not only the task's
            return
        if succeeded and verb != "retry":
            self.executions[task.label] = 0  # differs-from-upstream: a `jump` to a task restores its tries
        if action is not None and verb == "retry":
            await self.retry(task, action, result)
        elif action is not None and verb == "jump":
            await self.jump(action.to)
        elif verb == "break":
            self.stop("break", None)
        elif verb == "fail":
            by_rule = ToolFailure(f"policy rule triggered fail for task[{self.position}] {task.label!r}", kind="policy")
            self.stop("failed", result.error or by_rule)
        elif self.position + 1 < len(self.tasks):
            self.position += 1
        else:
            self.stop("ok", None)

    async def retry(self, task: Task, action: policy.Action, result: ToolResult) -> None:
        executed = self.executions[task.label]
        delay = backoff.asked_s(action.backoff, action.delay_s, executed)  # no jitter, and no cap but the time left
        left = self.time_left()
        if executed >= action.attempts:
            text = f"task {task.label!r} exceeded retry attempts ({action.attempts})"
        elif left is not None and delay >= left:  # as in http: a wait that can only end in a timeout hides the cause
            text = f"task {task.label!r} is not tried again: its delay of {delay:g} s is over the {left:.3g} s left"
        else:
            reason = result.error.message if result.error is not None else "a rule asks for it"
            again = f"task {task.label!r}, attempt {executed} of {action.attempts}: {reason}; again in {delay:g} s"
            if self.context.stop.reason in (None, "timeout"):  # otherwise the sequence ends, without the delay
                live_output.say("retry", again)
                await asyncio.sleep(delay)
            return
        error = result.error and dataclasses.replace(result.error, message=f"{result.error.message} ({text})")
        # A success keeps its exit code, because no rule made it a failure (seen live: retry-success).
        exit_code = 0 if result.exit_code is None and self.form.sequence_is_flat else result.exit_code
        self.stop("failed", error or ToolFailure(text, kind="policy"), exit_code=exit_code)

    async def jump(self, to: str | None) -> None:
        labels = [task.label for task in self.tasks]
        place = policy.jump_position(to, self.position, labels)
        if place is None:
            self.stop("failed", ToolFailure(str(policy.not_found(to, labels[self.position])), kind="policy"))
            return
        self.position = place
        await asyncio.sleep(0)  # a loop of tasks that never wait must not block the worker

    # ── its end ─────────────────────────────────────────────────────────────────────────────────

    def stop(self, end: str, error: ToolFailure | None, *, exit_code: int | None = 1) -> None:
        """End the sequence. `exit_code` is used if the sequence fails although its last task succeeded."""
        self.end, self.error, self.exit_code = end, error, exit_code

    def result(self) -> ToolResult:
        last = self.last or ToolResult.success()
        output: dict[str, Any] = {"stdout": last.stdout, "stderr": last.stderr, "exit_code": last.exit_code}
        if self.form.sequence_is_flat:  # recorded (loop-over-seq-rows): both are reported, even if empty
            output.update(stdout=last.stdout or "", stderr=last.stderr or "")
        if self.end == "timeout":
            timed_out = ToolResult.timed_out(self.context.timeout_s or 0.0, **output)
            return dataclasses.replace(timed_out, data=self.data(timed_out.error), tries=self.tries.entries)
        if self.error is not None and last.status is ToolStatus.SUCCESS:
            output["exit_code"] = self.exit_code
        status = ToolStatus.SUCCESS if self.error is None else ToolStatus.ERROR
        return ToolResult(status, self.data(self.error), self.error, tries=self.tries.entries, **output)

    def data(self, error: ToolFailure | None) -> SequenceData:
        """Return the data that `python_form` and `rust_form` convert: {status, results, updates, _prev}, and after a
        failure {failed_task, failed_index, error}."""
        results, label = self.results, self.tasks[self.position].label
        if error is not None and self.last is not None and self.last_position == self.position and label not in results:
            results = {**results, label: self.last.data}
        data = SequenceData(
            status="failed" if error is not None else self.end,
            results=results,
            updates=dict(map(self.reported, self.updates)),
            _prev=self.previous,
        )
        if error is not None:
            data.update(failed_task=label, failed_index=self.position, error=dataclasses.asdict(error))
        return data

    def reported(self, name: str) -> tuple[str, JsonValue]:
        """Return the name and the value to send to the plane for the variable `name` that the sequence has set. A plane
        replaces whole values, so for `ctx.w.b` return `ctx.w` with all its members."""
        scope, *path = name.split(".")
        values = self.scope.get(scope)
        if scope not in ("ctx", "iter") or not path or not isinstance(values, Mapping) or path[0] not in values:
            return name, self.updates[name]
        return f"{scope}.{path[0]}", values[path[0]]

    def time_left(self) -> float | None:
        """Return the seconds left for the sequence, or None without a timeout."""
        if self.context.timeout_s is None:
            return None
        return max(0.0, self.started + self.context.timeout_s - time.monotonic())

    def render(self, value: JsonValue, extra: Mapping[str, JsonValue] | None = None) -> JsonValue:
        scope = {**self.scope, **extra} if extra else self.scope
        missing = self.form.missing_value
        return template.render(value, scope, strict=self.context.values.undefined_is_error, undefined=missing)

    def warn(self, task: Task, problem: str) -> None:
        self.context.logger.warning("policy_rule", task=task.label, problem=problem, advice="correct this rule")


class SequenceData(dict[str, JsonValue]):
    """The data of a sequence's result (`SequenceProgress.data`), the same for both planes."""


def _own_and_given(task: Task, context: ToolContext) -> tuple[Mapping[str, JsonValue], list[tuple[str, JsonValue]]]:
    """Return the tool's config fields, and the input values as ("args" | "input", values) pairs. A later pair wins.

    Raises:
        UnknownTool: the worker has no tool of the task's kind.
        ConfigurationError: `args` is neither a field of the tool nor an object of input values.
    """
    if task.args is None:
        return task.config, [("input", task.input)] if task.input else []
    given = {"args": task.args, "input": task.input}
    inputs = input_names(context.worker.fields_of(task.kind))
    if "args" in inputs and not has_template(task.args):
        _object(task.label, "args", given)
    own = task.config if "args" in inputs else {**task.config, "args": task.args}
    return own, [(name, given[name]) for name in inputs if given[name]]


def _task_timeout_s(task: Task) -> float:
    """Return the seconds that a task may take by its own timeouts: 0 without a timeout, infinite if a timeout is a
    template."""
    spec = task.config.get("spec")
    times = [where.get(name) for where in (task.config, spec) if isinstance(where, Mapping) for name in TIMEOUTS]
    if has_template(times):
        return math.inf
    inner = next((task.config[name] for name in TASKS_SPELLINGS if isinstance(task.config.get(name), list)), None)
    try:
        own = effective_timeout(task.kind, given_timeouts(task.config))
        if own is None and inner and task.kind in SEQUENCES:
            return sum(map(_task_timeout_s, parse_tasks(inner)))
    except ConfigurationError:  # reported when the task runs, so that its rules see it
        return 0.0
    return own or 0.0


def _task_output(data: JsonValue, outcome: Mapping[str, JsonValue]) -> JsonValue:
    """Return `output` as the templates in a task's `set` see it: the task's data, as on the Rust plane. A field missing
    in the data (such as `status`) is taken from the task's `outcome`, as on the Python plane."""
    return WithFallback(data, outcome) if isinstance(data, Mapping) else data


def _nest(target: dict[str, JsonValue], path: Sequence[str], value: JsonValue) -> None:
    for name in path[:-1]:
        inner = target.get(name)
        target[name] = dict(inner) if isinstance(inner, Mapping) else {}  # a copy: an argument is never changed
        target = target[name]
    target[path[-1]] = value


# ── the planes' forms ───────────────────────────────────────────────────────────────────────────


def python_form(data: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Convert `SequenceProgress.data` for the Python plane: {status: ok|failed|break, _prev, results, ctx}. A failure
    adds {error, failed_task (label)} (protocol/tasks.md#lists)."""
    form: dict[str, JsonValue] = {"status": data["status"], "_prev": data["_prev"], "results": data["results"]}
    context: dict[str, JsonValue] = {}
    for name, value in data["updates"].items():
        scope, *path = name.split(".")
        if scope == "ctx" and path:
            _nest(context, path, value)
        elif not path:  # recorded (set-rule): the plane makes it a name for later steps
            context[name] = value
    form["ctx"] = context
    if "error" in data:
        form.update(error=data["error"], failed_task=data["failed_task"])
    return form


def rust_form(data: Mapping[str, JsonValue]) -> dict[str, JsonValue]:
    """Convert `SequenceProgress.data` for the Rust plane: {label: data, ..., _context_updates}. A failure gives
    {labeled_results, failed_task (index)} instead (protocol/tasks.md#lists)."""
    if "error" in data:
        return {"labeled_results": data["results"], "failed_task": data["failed_index"]}
    form = dict(data["results"])
    if data["updates"]:
        form["_context_updates"] = data["updates"]
    return form
