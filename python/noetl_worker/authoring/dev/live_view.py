"""The output of `dev` during a run: the steps with their durations, results and errors, and a summary at the end.

There are two views of the same facts: lines of text, and JSON lines.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Final

from rich.console import Console

from noetl_worker.authoring.dev.database import moment
from noetl_worker.authoring.dev.event_log import LoggedEvent
from noetl_worker.authoring.dev.excerpts import duration, one_line, printable, shorten, summary
from noetl_worker.authoring.dev.failures import About, Failure, failure_lines
from noetl_worker.authoring.dev.orchestration.execution import Execution, Position
from noetl_worker.authoring.run_page.tasks import passed_failure
from noetl_worker.models.spellings import SEQUENCES, STEP_OF_TASKS
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.observability.terminal import counted, harmless_json
from noetl_worker.remote.plane.rules import NOTED
from noetl_worker.text.json_text import dumps
from noetl_worker.tools.process.live_output import PrintedLine

_RUST_RESULT: Final = frozenset({"status", "context", "reference", "command_id"})
_BOOKKEEPING: Final = ("command_id", "worker_id", "status", "call_index")
_RESULT: Final = "  result: "
_MOST_ROWS: Final = 3
"""Largest number of terminal lines that one line of output may fill."""
_NARROW: Final = 80
_MOST_FAILURES: Final = 5
"""Largest number of failures of one step that the summary shows."""


@dataclass(slots=True)
class StepRun:
    """The commands of one step of an execution, all loop items together."""

    execution_id: int
    step: str
    name: str
    """Name to show: the step's name. For a step of a child execution, the playbook's path comes first: `PATH: STEP`."""
    kind: str
    issued: int = 0
    done: int = 0
    failed: int = 0
    began_at: float | None = None
    ended_at: float | None = None
    passed: int = 0
    """Number of commands that succeeded although a task failed, because the task's policy chose `continue`, `break` or
    `jump`."""
    text: str = ""
    """Text to show in one line: a summary of the step's last result, or the first line of the step's last error."""
    failures: list[Failure] = field(default_factory=list)

    @property
    def state(self) -> str:
        if self.failed:
            return "failed"
        if self.issued and self.done >= self.issued:
            return "done"
        return "running" if self.began_at is not None else "waiting"

    def seconds(self, now: float) -> float | None:
        if self.began_at is None:
            return None
        ended = self.ended_at if self.state in ("done", "failed") and self.ended_at is not None else now
        return max(0.0, ended - self.began_at)


@dataclass(frozen=True, slots=True)
class Happening:
    """The start or the end of a command, for a view to show."""

    word: str
    """Word to show for the start or end of the command: `started`, `done` or `failed`."""
    run: StepRun
    about: About
    seconds: float | None = None
    value: JsonValue = None
    failure: Failure | None = None
    passed: str = ""
    """Text `TASK: ERROR` about a task that failed but did not fail the command, because the task's policy chose
    `continue`, `break` or `jump`; "" if there is no such task."""


@dataclass(slots=True)
class Timeline:
    """Collects the plane's events by step, and returns the starts and ends of commands to show."""

    runs: dict[tuple[int, str], StepRun] = field(default_factory=dict)
    items: dict[str, Position] = field(default_factory=dict)
    """Loop item of each command, by command id. The plane forgets the item before the event about the command's end
    arrives."""
    _claimed: dict[str, tuple[StepRun, float]] = field(default_factory=dict)
    """The step and the time of the claim (seconds since 1970) of each claimed command, by command id."""
    _ended: set[str] = field(default_factory=set)
    _lists: dict[str, LoggedEvent] = field(default_factory=dict)
    """The `call.done` event of each command with a list of tasks, by command id, until the event `command.completed`.
    On the Rust plane only `command.completed` names the task failures that a policy ignored."""
    _noted: dict[str, LoggedEvent] = field(default_factory=dict)
    """The `command.noted` event of each list of tasks, by command id (Python plane). The event lists all attempts."""

    def take(self, event: LoggedEvent, about: About) -> Happening | None:
        """Add an event to the timeline. Return the start or end of a command to show, or None for any other event."""
        ref = event.command_ref
        if ref is None:
            return None
        step = event.node.removesuffix(STEP_OF_TASKS)
        new = StepRun(event.execution_id, step, replace(about, item=None).name(step), about.kind)
        run = self.runs.setdefault((event.execution_id, step), new)
        if event.event_type == "command.issued":
            run.issued += 1
            if about.item is not None:
                self.items[ref] = about.item
            return None
        about = replace(about, item=self.items.get(ref))
        if event.event_type == "command.claimed":
            self._claimed[ref] = run, event.created_at
            run.began_at = run.began_at or event.created_at
            return Happening("started", run, about)
        if event.event_type == NOTED:
            self._noted[ref] = event
        elif event.event_type == "call.done" and run.kind in SEQUENCES:
            self._lists[ref] = event
        elif event.event_type == "command.completed" and (result := self._lists.pop(ref, None)) is not None:
            notes = self._noted.pop(ref, event).result_context
            return self._end(result, run, ref, about, passed_failure(notes.get("tasks")))
        elif event.event_type in ("call.done", "call.error", "command.failed") and ref not in self._ended:
            return self._end(event, run, ref, about)
        return None

    def running(self, now: float) -> list[tuple[StepRun, str, float]]:
        """Return the running commands, each as its step, its id and the seconds since its claim."""
        return [(run, ref, max(0.0, now - at)) for ref, (run, at) in self._claimed.items() if ref not in self._ended]

    def _end(self, event: LoggedEvent, run: StepRun, ref: str, about: About, passed: str = "") -> Happening:
        self._ended.add(ref)
        run.ended_at = event.created_at
        _, began_at = self._claimed.get(ref, (run, event.created_at))
        seconds = max(0.0, event.created_at - began_at)
        value, error = reported(event)
        run.text = one_line(about.places.in_file(error.splitlines()[0], run.step)) if error else summary(value)
        if error is None:
            run.done += 1
            run.passed += bool(passed)
            run.text = f"let pass: {one_line(passed)}" if passed else run.text
            return Happening("done", run, about, seconds, value, passed=passed)
        # On the Rust plane a tool's own failure is a `call.done`. The playbook goes on, and the failure is shown.
        run.failed += 1
        ids = f"execution {event.execution_id}, command {ref}, event {event.event_id}"
        failure = Failure(run.step, error or run.text, value, ids, about)
        run.failures.append(failure)
        return Happening("failed", run, about, seconds, value, failure)


def reported(event: LoggedEvent) -> tuple[JsonValue, str | None]:
    """Return the result and the error in an event `call.done`, `call.error` or `command.failed` of either plane.

    The error is None if the tool succeeded.
    """
    context = event.result_context
    result = context.get("result")
    if isinstance(result, dict) and result.keys() <= _RUST_RESULT:  # Rust plane: the worker's context is kept as it is
        inner = fields_of(result.get("context"))
        failure = inner.get("error")
        return inner.get("data", inner), None if failure is None else str(failure)
    if event.event_type == "call.done" and event.response is not None:  # the result the Python plane acts on
        return event.response, None
    told = event.response if isinstance(event.response, dict) else context
    value = {key: item for key, item in told.items() if key not in _BOOKKEEPING}
    if event.event_type == "call.done":
        return value, None
    return value, event.error or str(context.get("error") or "failed")


class View(ABC):
    """Base class for the output formats of `noetl-worker dev`. A view shows all executions of one `dev` process."""

    def __init__(self) -> None:
        self.timeline: Final = Timeline()

    @abstractmethod
    def begin(self, execution: Execution, urls: Mapping[str, str]) -> None: ...

    def event(self, event: LoggedEvent, about: About) -> None:
        if (happening := self.timeline.take(event, about)) is not None:
            self.tell(happening, event)

    def has_flaws(self, execution: Execution) -> bool:
        """Return whether a step of the execution failed, or a template used a name without a value."""
        runs = [run for run in self.timeline.runs.values() if run.execution_id == execution.execution_id]
        return bool(execution.empty) or any(run.failed for run in runs)

    @abstractmethod
    def tell(self, happening: Happening, event: LoggedEvent) -> None: ...

    @abstractmethod
    def printed(self, line: PrintedLine, about: About) -> None: ...

    @abstractmethod
    def summary(self, execution: Execution, *, is_interrupted: bool = False, where: str = "") -> None:
        """Show the end of an execution.

        Args:
            is_interrupted: the user stopped the session before the execution's end.
            where: `file:line` of the part of the playbook that the plane could not execute; "" if there is none.
        """


class LineView(View):
    """A view with one line of text for each start or end of a command, and for each line that a step prints."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._began_at = time.time()
        self._begun = 0
        is_narrow = console.is_terminal and console.width < _NARROW
        self._names = 12 if is_narrow else 26

    def begin(self, execution: Execution, urls: Mapping[str, str]) -> None:
        self._began_at, self._begun = execution.started_at, self._begun + 1
        where = ", ".join(f"{name} {url}" for name, url in urls.items())
        self._print(f"{execution.path}: execution {execution.execution_id} ({where})")

    def tell(self, happening: Happening, event: LoggedEvent) -> None:
        run, at = happening.run, max(0.0, event.created_at - self._began_at)
        text = run.kind if happening.seconds is None else f"{duration(happening.seconds):>8}  {run.text}"
        name = happening.about.name(run.step)
        self._print(self._in_rows(f"{at:8.3f}s  {happening.word:<8} {name:<{self._names}} {text}".rstrip()))

    def printed(self, line: PrintedLine, about: About) -> None:
        stream = "" if line.stream == "stdout" else f" ({line.stream})"
        text = printable(about.places.in_file(line.text, line.step))
        name = replace(about, item=self.timeline.items.get(line.command_id)).name(line.step)
        self._print(self._in_rows(f"{name}{stream} | {text}"))

    def summary(self, execution: Execution, *, is_interrupted: bool = False, where: str = "") -> None:
        first, *more = closing_lines(execution, self.timeline, is_interrupted=is_interrupted, where=where)
        self._print(first if self._begun == 1 else f"{first} ({execution.path}: execution {execution.execution_id})")
        for line in more:
            self._print(self._in_rows(line) if line.startswith(_RESULT) else line)

    def _in_rows(self, line: str) -> str:
        """Shorten a line for a terminal to `_MOST_ROWS` terminal lines. Lines for a pipe or a file stay whole."""
        return shorten(line, _MOST_ROWS * self._console.width) if self._console.is_terminal else line

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, emoji=False, highlight=False, soft_wrap=True)


class JsonView(View):
    """A view of JSON lines: one object for each start or end of a command and for each line that a step prints.

    The objects of an execution begin with its id and end with its summary.
    """

    def __init__(self, stream: IO[str]) -> None:
        super().__init__()
        self._stream = stream

    def begin(self, execution: Execution, urls: Mapping[str, str]) -> None:
        self._write({"event": "begin", "execution_id": str(execution.execution_id), "path": execution.path, **urls})

    def tell(self, happening: Happening, event: LoggedEvent) -> None:
        line: dict[str, JsonValue] = {
            "event": happening.word,
            "at": moment(event.created_at, utc="Z"),
            "execution_id": str(event.execution_id),
            "command_id": event.command_ref,
            "event_id": str(event.event_id),
            "step": happening.run.step,
            "tool": happening.run.kind,
        }
        if happening.about.item is not None:
            line["loop_index"] = happening.about.item.index
        if happening.seconds is not None:
            line["duration_ms"] = round(happening.seconds * 1000, 1)
            line["result"] = happening.value
        if happening.passed:
            line["let_pass"] = happening.passed
        if happening.failure is not None:
            line |= {"error": happening.failure.error, "details": failure_lines(happening.failure)}
        self._write(line)

    def printed(self, line: PrintedLine, about: About) -> None:
        item = self.timeline.items.get(line.command_id)
        self._write(
            {
                "event": "output",
                "at": moment(time.time(), utc="Z"),
                "execution_id": str(line.execution_id),
                "command_id": line.command_id,
                "step": line.step,
                "stream": line.stream,
                "text": about.places.in_file(line.text, line.step),
                **({"loop_index": item.index} if item is not None else {}),
            }
        )

    def summary(self, execution: Execution, *, is_interrupted: bool = False, where: str = "") -> None:
        steps = [
            {
                "step": run.step,
                "tool": run.kind,
                "state": run.state,
                "commands": run.issued,
                "failed": run.failed,
                "duration_ms": round((run.seconds(time.time()) or 0.0) * 1000, 1),
            }
            for run in self.timeline.runs.values()
            if run.execution_id == execution.execution_id
        ]
        running: JsonValue = [
            {"step": run.step, "command_id": ref, "duration_ms": round(seconds * 1000, 1)}
            for run, ref, seconds in self.timeline.running(time.time())
        ]
        self._write(
            {
                "event": "summary",
                "execution_id": str(execution.execution_id),
                "status": execution.status,
                "duration_ms": round(lasted(execution) * 1000, 1),
                "steps": steps,
                "result": execution.last_result,
                "error": execution.error,
                **({"at": where} if where else {}),
                **({"empty": [name._asdict() for name in execution.empty]} if execution.empty else {}),
                **({"interrupted": running} if is_interrupted else {}),
            }
        )

    def _write(self, line: Mapping[str, JsonValue]) -> None:
        self._stream.write(harmless_json(dumps(line).decode()) + "\n")
        self._stream.flush()


def lasted(execution: Execution) -> float:
    return max(0.0, (execution.ended_at or time.time()) - execution.started_at)


def closing_lines(
    execution: Execution, timeline: Timeline, *, is_interrupted: bool = False, where: str = ""
) -> list[str]:
    """Return the lines of an execution's summary: outcome, failures, and result."""
    runs = [run for run in timeline.runs.values() if run.execution_id == execution.execution_id]
    commands = sum(run.issued for run in runs)
    status = "INTERRUPTED" if is_interrupted else execution.status
    failed = sum(bool(run.failed) for run in runs)
    passed_over = f", {counted(failed, 'step')} failed" if failed and execution.status == "COMPLETED" else ""
    if passed := sum(run.passed for run in runs):
        passed_over += f", {counted(passed, 'failure')} let pass"
    lines = [
        f"{status}{passed_over} in {duration(lasted(execution))}: {counted(len(runs), 'step')}, "
        f"{counted(commands, 'command')}",
    ]
    at = f"{where}: " if where else ""
    lines += [f"  empty: {printable(str(name))}" for name in execution.empty]
    for run in runs:
        for failure in run.failures[:_MOST_FAILURES]:
            lines += failure_lines(failure)
        if (more := len(run.failures) - _MOST_FAILURES) > 0:
            lines.append(f"  failed: {run.step}: {more} more")
    if any(failure.lacks_credential for run in runs for failure in run.failures):
        lines.append("  to give this run a credential: --credential NAME=FILE, or credentials.yaml beside the playbook")
    if execution.stands_still:
        why = "" if execution.error else f"{at}no arc of step '{execution.current_step}' leads on; "
        lines.append(f"  nothing follows: {why}the real plane keeps the execution running for ever")
    if execution.error and (where or not any(run.failed for run in runs)):
        lines.append(f"  error: {at}{execution.error}")
    if execution.status == "COMPLETED" and (last := summary(execution.last_result, 400)):
        lines.append(f"{_RESULT}{last}")
    if is_interrupted:  # the last line, which the user sees best: the commands that were stopped
        running = [
            f"{run.name} ({run.kind}, command {ref}) after {duration(seconds)}"
            for run, ref, seconds in timeline.running(time.time())
        ]
        lines.append(f"interrupted: {', '.join(running) or 'no command was running'}")
    return lines
