"""What a playbook author sees while it runs: steps, durations, results, errors, and a summary at the end.

Three forms of the same facts: a table that moves (terminal), one line per happening (anything else), JSON lines.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Protocol, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from noetl_worker.dev.database import moment
from noetl_worker.dev.event_log import LoggedEvent
from noetl_worker.dev.orchestration.execution import Execution
from noetl_worker.json_text import dumps
from noetl_worker.models.wire import JsonValue

__all__ = ["JsonView", "LineView", "StepRun", "TableView", "Timeline", "View", "view_for"]

EXCERPT: Final = 96
STDERR_LINES: Final = 8
_STYLES: Final = {"waiting": "dim", "running": "yellow", "done": "green", "failed": "bold red"}
_RUST_RESULT: Final = frozenset({"status", "context", "reference", "command_id"})
_FAILURE: Final = frozenset({"error", "error_kind", "retryable", "code", "exception", "failed_task", "elapsed", "url"})
"""What stands in a failed command's result beside the data."""
_BOOKKEEPING: Final = ("command_id", "worker_id", "status", "call_index")


@dataclass(slots=True)
class StepRun:
    """One row: a step of one execution, all its loop items together."""

    execution_id: int
    step: str
    owner: str = ""
    """Path of a child playbook; "" for the one that was asked for."""
    kind: str = ""
    issued: int = 0
    done: int = 0
    failed: int = 0
    began_at: float | None = None
    ended_at: float | None = None
    text: str = ""
    """What the last result comes to, or the error's first line."""
    error: str = ""
    """The complete error."""
    value: JsonValue = None

    @property
    def name(self) -> str:
        return f"{self.owner}: {self.step}" if self.owner else self.step

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


@dataclass(slots=True)
class Happening:
    """One thing to say: a step started, ended or failed."""

    at: float
    word: str
    """started, done or failed."""
    run: StepRun
    seconds: float | None = None
    text: str = ""
    value: JsonValue = None


@dataclass(slots=True)
class Timeline:
    """Turns the plane's events into rows and happenings."""

    runs: dict[tuple[int, str], StepRun] = field(default_factory=dict)
    _claimed_at: dict[str, float] = field(default_factory=dict)
    _ended: set[str] = field(default_factory=set)

    def take(self, event: LoggedEvent, kind: str = "", owner: str = "") -> Happening | None:
        """Note an event; what is worth saying about it, or None."""
        ref = event.command_ref
        if ref is None:
            return None
        step = event.node.removesuffix(":task_sequence")
        run = self.runs.setdefault((event.execution_id, step), StepRun(event.execution_id, step))
        if event.event_type == "command.issued":
            run.issued += 1
            run.kind = kind or run.kind
            run.owner = owner
            return None
        if event.event_type == "command.claimed":
            self._claimed_at[ref] = event.created_at
            run.began_at = run.began_at or event.created_at
            return Happening(event.created_at, "started", run)
        if event.event_type in ("call.done", "call.error", "command.failed") and ref not in self._ended:
            return self._end(event, run, ref)
        return None

    def _end(self, event: LoggedEvent, run: StepRun, ref: str) -> Happening:
        self._ended.add(ref)
        run.ended_at = event.created_at
        seconds = max(0.0, event.created_at - self._claimed_at.get(ref, event.created_at))
        value, error = reported(event)
        # On the Rust plane a tool's own failure is a call.done, and the playbook goes on; it is shown all the same.
        word = "done" if error is None else "failed"
        if error is None:
            run.done += 1
        else:
            run.failed += 1
        run.value = value
        run.text = one_line(error.splitlines()[0]) if error and error.strip() else glance(value)
        run.error = error or ""
        return Happening(event.created_at, word, run, seconds, run.text, value)


def reported(event: LoggedEvent) -> tuple[JsonValue, str | None]:
    """The result and the error text of a `call.done`, `call.error` or `command.failed`, of either plane."""
    context = event.result_context
    result = context.get("result")
    if isinstance(result, dict) and result.keys() <= _RUST_RESULT:  # Rust plane: the worker's context is kept as it is
        inner = result.get("context")
        inner = inner if isinstance(inner, dict) else {}
        failure = inner.get("error")
        return inner.get("data", inner), None if failure is None else str(failure)
    if event.event_type == "call.done" and event.response is not None:  # what the Python plane acts on
        return event.response, None
    value = {key: item for key, item in context.items() if key not in _BOOKKEEPING}
    if event.event_type == "call.done":
        return value, None
    return value, event.error or str(context.get("error") or "failed")


def excerpt(value: JsonValue, limit: int = EXCERPT) -> str:
    """`value` as one short line of JSON."""
    if value is None or value == {}:
        return ""
    return cut(dumps(value).decode(errors="replace"), limit)


def glance(value: JsonValue, limit: int = EXCERPT) -> str:
    """What an author looks for in a result, in one line: what was printed, answered, selected; else the JSON."""
    if not isinstance(value, dict):
        return excerpt(value, limit)
    if ("exit_code" in value or "returncode" in value) and isinstance(printed := value.get("stdout"), str):
        return cut(one_line(printed.strip() or str(value.get("stderr") or "").strip()), limit)
    if "status_code" in value:
        answer = excerpt(value["data"], limit) if value.get("data") else ""
        return cut(f"{value['status_code']} {answer}".rstrip(), limit)
    if "row_count" in value and "rows" in value:
        count = value["row_count"] if value.get("columns") else value.get("affected_rows")
        return cut(f"{count} rows {excerpt(value['rows'], limit) if value['rows'] else ''}".rstrip(), limit)
    if "_prev" in value and "results" in value:
        return glance(value["_prev"], limit)
    return excerpt(value, limit)


def one_line(text: str) -> str:
    """Line ends and control characters as JSON writes them: a tool's output must not steer the terminal."""
    return dumps(text).decode(errors="replace")[1:-1].replace('\\"', '"')


def cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


class View(Protocol):
    """Shows one run. Used as a context manager, so that a terminal is left in order."""

    def __enter__(self) -> View: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def begin(self, execution: Execution, urls: Mapping[str, str]) -> None: ...
    def event(self, event: LoggedEvent, kind: str, owner: str) -> None: ...
    def summary(self, execution: Execution) -> None: ...


class LineView:
    """One line per happening; for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.timeline: Final = Timeline()
        self._began_at = time.time()

    def __enter__(self) -> LineView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def begin(self, execution: Execution, urls: Mapping[str, str]) -> None:
        self._began_at = execution.started_at
        where = ", ".join(f"{name} {url}" for name, url in urls.items())
        self._print(f"{execution.path}: execution {execution.execution_id} ({where})")

    def event(self, event: LoggedEvent, kind: str, owner: str) -> None:
        happening = self.timeline.take(event, kind, owner)
        if happening is None:
            return
        run, at = happening.run, max(0.0, happening.at - self._began_at)
        text = run.kind if happening.seconds is None else f"{duration(happening.seconds):>8}  {happening.text}"
        self._print(f"{at:8.3f}s  {happening.word:<8} {run.name:<26} {text}".rstrip())

    def summary(self, execution: Execution) -> None:
        for line in closing_lines(execution, self.timeline):
            self._print(line)

    def _print(self, line: str) -> None:
        self._console.print(line, markup=False, highlight=False, soft_wrap=True)


class TableView(LineView):
    """A table that is redrawn as things happen."""

    def __init__(self, console: Console) -> None:
        super().__init__(console)
        self._live = Live(console=console, refresh_per_second=8, get_renderable=self._table, transient=False)

    def __enter__(self) -> TableView:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def event(self, event: LoggedEvent, kind: str, owner: str) -> None:
        self.timeline.take(event, kind, owner)

    def summary(self, execution: Execution) -> None:
        self._live.stop()
        super().summary(execution)

    def _table(self) -> Table:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for name in ("step", "tool", "state", "time", "result"):
            table.add_column(name, justify="right" if name == "time" else "left", no_wrap=name != "result")
        now = time.time()
        for run in list(self.timeline.runs.values()):
            count = f" {run.done + run.failed}/{run.issued}" if run.issued > 1 else ""
            state = Text(run.state + count, style=_STYLES[run.state])
            table.add_row(Text(run.name), Text(run.kind), state, duration(run.seconds(now)), Text(run.text))
        return table


class JsonView:
    """JSON lines: one object per happening, the last one the summary."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self.timeline: Final = Timeline()

    def __enter__(self) -> JsonView:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def begin(self, execution: Execution, urls: Mapping[str, str]) -> None:
        self._write({"event": "begin", "execution_id": str(execution.execution_id), "path": execution.path, **urls})

    def event(self, event: LoggedEvent, kind: str, owner: str) -> None:
        happening = self.timeline.take(event, kind, owner)
        if happening is None:
            return
        line: dict[str, JsonValue] = {
            "event": happening.word,
            "at": moment(happening.at, utc="Z"),
            "execution_id": str(event.execution_id),
            "step": happening.run.step,
            "tool": happening.run.kind,
        }
        if happening.seconds is not None:
            line["duration_ms"] = round(happening.seconds * 1000, 1)
            line["result"] = happening.value
        if happening.word == "failed":
            line["error"] = happening.run.error or happening.text
        self._write(line)

    def summary(self, execution: Execution) -> None:
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
        self._write(
            {
                "event": "summary",
                "execution_id": str(execution.execution_id),
                "status": execution.status,
                "duration_ms": round(lasted(execution) * 1000, 1),
                "steps": steps,
                "result": execution.last_result,
                "error": execution.error,
            }
        )

    def _write(self, line: Mapping[str, JsonValue]) -> None:
        self._stream.write(dumps(line).decode() + "\n")
        self._stream.flush()


def view_for(console: Console, *, as_json: bool) -> View:
    """JSON lines when asked for, the table on a terminal, else plain lines."""
    if as_json:
        return JsonView(console.file)  # type: ignore[arg-type]
    return TableView(console) if console.is_terminal else LineView(console)


def duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.2f} s"


def lasted(execution: Execution) -> float:
    return max(0.0, (execution.ended_at or time.time()) - execution.started_at)


def stderr_tail(value: JsonValue) -> list[str]:
    """The last lines of a failed command's stderr: the traceback of the author's own code, a shell's complaint."""
    text = value.get("stderr") if isinstance(value, dict) else None
    return text.rstrip().splitlines()[-STDERR_LINES:] if isinstance(text, str) else []


def failure_lines(run: StepRun) -> list[str]:
    """Where and why a step failed, and what there is to go by: the error's other lines, stderr, the answer."""
    value = run.value if isinstance(run.value, dict) else {}
    task = f", task {value['failed_task']}" if value.get("failed_task") else ""
    first, *more = (run.error or run.text).splitlines() or ["failed"]
    lines = [f"  failed: {run.step}{task}: {first}"]
    details = [line for line in more if line.strip()] or stderr_tail(value)
    if not details and (answer := glance({key: item for key, item in value.items() if key not in _FAILURE}, 300)):
        details = [answer]
    lines += [f"    | {printable(line)}" for line in details]
    return lines


def lacks_credential(run: StepRun) -> bool:
    return isinstance(run.value, dict) and run.value.get("code") == "credential_not_found"


def printable(line: str) -> str:
    return "".join(char if char.isprintable() or char == "\t" else f"\\x{ord(char):02x}" for char in line)


def closing_lines(execution: Execution, timeline: Timeline) -> list[str]:
    """How it ended, in one to a few lines."""
    runs = [run for run in timeline.runs.values() if run.execution_id == execution.execution_id]
    commands = sum(run.issued for run in runs)
    lines = [
        f"{execution.status} in {duration(lasted(execution))}: {len(runs)} steps, {commands} commands",
    ]
    for run in runs:
        if run.failed:
            lines += failure_lines(run)
    if any(run.failed and lacks_credential(run) for run in runs):
        lines.append("  to give this run a credential: --credential NAME=FILE, or credentials.yaml beside the playbook")
    if execution.stands_still:
        why = "" if execution.error else f"no arc of step '{execution.current_step}' brings a step in; "
        lines.append(f"  nothing follows: {why}the real plane keeps it running for ever")
    if execution.error and not any(run.failed for run in runs):
        lines.append(f"  error: {execution.error}")
    if execution.status == "COMPLETED" and (last := glance(execution.last_result, 400)):
        lines.append(f"  result: {last}")
    return lines
