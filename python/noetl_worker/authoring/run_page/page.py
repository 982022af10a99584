"""The HTML file of the execution page, which contains its style, script and data, and makes no requests.

Values from a playbook cannot run as code. They are JSON in an element that browsers do not run, with all characters
escaped that could end the element. The page's script shows them as text and never as markup, and its content security
policy allows no other script.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.resources
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from noetl_worker import __version__
from noetl_worker.authoring.run_page.layout import lay_out
from noetl_worker.authoring.run_page.run import ExecutionRun, RunCommand, RunStep, RunTask
from noetl_worker.authoring.run_page.shown_values import ShownValues, visible
from noetl_worker.models.wire import JsonValue

_SCRIPTS: Final = ("words.js", "graph.js", "details.js", "timeline.js", "compare.js", "page.js")
_IN_SCRIPT: Final = {
    ord("<"): "\\u003c",
    ord(">"): "\\u003e",
    ord("&"): "\\u0026",
    0x2028: "\\u2028",
    0x2029: "\\u2029",
}
"""JSON escapes for characters that could end the page's data element, or a line of JavaScript."""
_MOST_DRAWN: Final = 150
"""Largest number of steps for which the page draws a graph. A larger graph would be slow and unreadable."""


def render_page(
    run: ExecutionRun,
    own_secrets: Iterable[str] = (),
    *,
    written: float | None = None,
    runs: Sequence[Mapping[str, str]] | None = None,
    against: ExecutionRun | None = None,
) -> str:
    """Return the HTML text of the execution page.

    Args:
        run: the execution to show.
        own_secrets: secrets of this process; they are redacted in all values.
        written: time to show as the page's time, in seconds since 1970; None: now.
        runs: all executions to choose from (see `page_data`), for a page that a server updates; None: a page in a file.
        against: another execution to compare with; None: no comparison.
    """
    style, is_live = _file("page.css"), runs is not None
    script = "\n".join(["'use strict';", *map(_file, (*_SCRIPTS, *(["live.js"] if is_live else [])))])
    parts = {
        "policy": _policy(style, script, is_live=is_live),
        "style": style,
        "script": script,
        "data": in_script(page_data(run, own_secrets, written=written, runs=runs, against=against)),
    }
    before, *rest = _file("page.html").split("{{")
    return before + "".join(parts[name] + after for name, _, after in (part.partition("}}") for part in rest))


def in_script(value: JsonValue) -> str:
    """Return a value as JSON in which no character can end an HTML script element."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_IN_SCRIPT)


def _file(name: str) -> str:
    return (importlib.resources.files("noetl_worker.authoring.run_page") / "template" / name).read_text(
        encoding="utf-8"
    )


def _policy(style: str, script: str, *, is_live: bool) -> str:
    """Return a content security policy that allows only this style and this script.

    The policy forbids forms, frames, base elements and all requests. The only exception: if `is_live`, the page may
    send requests to its own server.
    """
    home = "connect-src 'self'; " if is_live else ""
    return (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        f"{home}base-uri 'none'; form-action 'none'"
    )


def _hash(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def page_data(
    run: ExecutionRun,
    own_secrets: Iterable[str] = (),
    *,
    written: float | None = None,
    runs: Sequence[Mapping[str, str]] | None = None,
    against: ExecutionRun | None = None,
) -> dict[str, Any]:
    """Return the data that the execution page embeds as JSON, and that its script shows.

    Args:
        run: the execution to show.
        own_secrets: secrets of this process; they are redacted in all values.
        written: time to show as the page's time, in seconds since 1970; None: now.
        runs: {id, path, state, at} of each execution to choose from.
        against: another execution to compare with.
    """
    others = [against] if against is not None else []
    values = ShownValues([run, *run.children, *others], own_secrets)
    written = time.time() if written is None else written
    return {
        **_execution(run, values, written),
        "children": {visible(child.execution_id): _execution(child, values, written) for child in run.children},
        "against": _execution(against, values, written) if against is not None else None,
        "runs": [{name: visible(text) for name, text in one.items()} for one in runs or ()],
    }


def _execution(run: ExecutionRun, values: ShownValues, written: float) -> dict[str, Any]:
    numbers = {name: number for number, name in enumerate(run.steps)}
    moments = (moment for command in run.commands for moment in (command.issued, command.ended) if moment is not None)
    begin = run.started if run.started is not None else min(moments, default=written)
    return {
        "run": {
            "path": visible(run.path),
            "id": visible(run.execution_id),
            "plane": run.plane,
            "status": visible(run.status),
            "version": visible(run.version),
            "parent": visible(run.parent),
            "error": values.text(run.error),
            "begin": round(begin * 1000),
            "end": _offset_ms(begin, run.ended),
            "written": round(written * 1000),
            "by": __version__,
            "workload": values.value(run.workload),
            "notes": [values.text(note) for note in run.notes],
        },
        "steps": [_step(step, numbers, values) for step in run.steps.values()],
        "graph": _graph(run.steps, numbers) if len(run.steps) <= _MOST_DRAWN else None,
        "commands": [_command(command, numbers, begin, values) for command in run.commands],
    }


def _step(step: RunStep, numbers: Mapping[str, int], values: ShownValues) -> dict[str, Any]:
    return {
        "name": visible(step.name),
        "kind": visible(step.kind),
        "text": values.text(step.text),
        "loop": step.is_loop,
        "ways": [{"to": numbers[way.to], "when": values.text(way.when), "taken": way.is_taken} for way in step.ways],
    }


def _graph(steps: Mapping[str, RunStep], numbers: Mapping[str, int]) -> dict[str, Any]:
    taken: dict[tuple[int, int], bool] = {}
    for step in steps.values():
        for way in step.ways:
            edge = (numbers[step.name], numbers[way.to])
            taken[edge] = taken.get(edge, False) or way.is_taken
    layout = lay_out(len(steps), list(taken), [edge for edge, is_taken in taken.items() if is_taken])
    return {
        "places": layout.places,
        "ways": [{"route": route, "taken": taken[edge], "ends": edge} for edge, route in layout.routes.items()],
    }


def _command(command: RunCommand, numbers: Mapping[str, int], begin: float, values: ShownValues) -> dict[str, Any]:
    shown = {
        "step": numbers[command.step],
        "state": "passed" if command.passed else command.state.value,
        "item": command.item,
        "value": values.value(command.value),
        "kind": visible(command.kind),
        "id": visible(command.command_id),
        "event": str(command.event_id or ""),
        "issued": _offset_ms(begin, command.issued),
        "claimed": _offset_ms(begin, command.claimed),
        "started": _offset_ms(begin, command.started),
        "ended": _offset_ms(begin, command.ended),
        "attempts": command.attempts,
        "worker": visible(command.worker),
        "error": values.text(command.error or command.passed),
        "answer": values.printed("", command.answer),
        "input": [] if command.tasks else values.value(command.input),
        "tasks": [_task(task, values) for task in command.tasks],
        "child": visible(command.child),
        "output": values.value(command.output),
        "printed": values.printed("stdout", command.stdout) + values.printed("stderr", command.stderr),
    }
    return {name: value for name, value in shown.items() if value not in (None, "", [])}


def _task(task: RunTask, values: ShownValues) -> dict[str, Any]:
    shown = {
        "name": visible(task.name),
        "kind": visible(task.kind),
        "input": values.value(task.input),
        "output": values.value(task.output),
        "tries": [_try(one, values) for one in task.tries],
    }
    return {name: value for name, value in shown.items() if value not in (None, "", [])}


def _try(one: Mapping[str, JsonValue], values: ShownValues) -> dict[str, Any]:
    return {
        "state": "done" if one.get("status") == "ok" else "failed",
        "at": one.get("at_ms"),
        "took": one.get("duration_ms"),
        "then": visible(str(one.get("then") or "")),
        "error": values.text(str(one.get("error") or "")),
        "answer": values.printed("", str(one.get("answer") or "")),
        "printed": [text for name in ("stdout", "stderr") for text in values.printed(name, str(one.get(name) or ""))],
    }


def _offset_ms(begin: float, moment: float | None) -> float | None:
    """Return the milliseconds from `begin` to `moment` (both in seconds), or None if `moment` is None."""
    return round((moment - begin) * 1000, 1) if moment is not None else None
