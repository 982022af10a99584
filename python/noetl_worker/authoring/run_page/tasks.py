"""The tasks of commands that run a list of tasks: their rendered inputs, attempts and outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from noetl_worker.authoring.outline import ToolPart, task_parts
from noetl_worker.authoring.run_page.run import CommandState, RunCommand, RunTask
from noetl_worker.errors import NoetlWorkerError
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.remote.plane.names import Names
from noetl_worker.text.templates import template

MOST_RENDERED: Final = 1_000
"""Largest number of commands per execution whose task inputs are shown rendered, not as templates.

Rendering is slow after steps with large results.
"""
_RULES: Final = frozenset({"spec", "policy", "set", "name"})
"""Fields of a task, such as its name and policy, that the execution page does not show as the tool's input."""
_PASSED: Final = ("continue", "break", "jump")


def add_tasks(commands: Sequence[RunCommand], names: Names) -> None:
    """Set the fields of commands that the execution page shows about tasks and tolerated errors.

    A command that runs a list of tasks gets these tasks as `tasks`. A command with an error that a task's policy or the
    step's `case` tolerated gets this error as `passed`.

    Args:
        commands: the commands of an execution.
        names: the plane's rules for which variables a template sees.
    """
    rendered = 0
    for command in commands:
        command.answer = str(command.notes.get("answer") or "")
        if command.notes.get("case") and not command.is_raised:
            output = fields_of(command.output)
            command.passed = command.error or str(output.get("error") or "") * (output.get("status") == "error")
            command.state = CommandState.DONE
        parts = list(task_parts((), fields_of(command.input).get("tasks", command.input)))
        if not parts:
            continue
        rendered += 1
        seen = names.make_template_names(dict(command.names), {}) if command.names and rendered <= MOST_RENDERED else {}
        command.tasks = _tasks(command, parts, seen)
        if command.state is CommandState.DONE:
            command.passed = command.passed or passed_failure(command.notes.get("tasks"))


def _tasks(command: RunCommand, parts: Sequence[ToolPart], names: dict[str, JsonValue]) -> list[RunTask]:
    output = fields_of(command.output)
    values = next((fields_of(output[name]) for name in ("results", "labeled_results") if name in output), output)
    noted = command.notes.get("tasks")
    tries = [one for one in noted if isinstance(one, dict)] if isinstance(noted, list) else []
    tasks = []
    for part in parts:
        name, own = part.label, {key: value for key, value in part.config.items() if key not in (*_RULES, "kind")}
        of_task = [one for one in tries if one.get("name") == name]
        given = _rendered(own, {**names, "_task": name, "_attempt": max(1, len(of_task))}) if names else own
        task = RunTask(name, part.kind, given, values.get(name), of_task)
        tasks.append(task)
        if names and name in values:
            names[name] = names["_prev"] = values[name]
    return tasks


def _rendered(value: JsonValue, names: Mapping[str, JsonValue]) -> JsonValue:
    """Return a value with its templates rendered. A template that cannot be rendered stays as written."""
    if isinstance(value, dict):
        return {key: _rendered(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_rendered(item, names) for item in value]
    try:
        return template.render(value, names, strict=True)
    except NoetlWorkerError:
        return value


def passed_failure(tries: object) -> str:
    """Return `<task>: <error>` for the last failed task that a policy tolerated; "" without such a task.

    Only the newest attempt of each task counts.

    Args:
        tries: the attempts of all tasks, as a command's last event lists them.
    """
    newest = {str(one.get("name")): one for one in tries if isinstance(one, dict)} if isinstance(tries, list) else {}
    for name, last in reversed(newest.items()):
        if last.get("status") == "error" and last.get("then") in _PASSED:
            return f"{name}: {last.get('error')}"
    return ""
