"""The names that templates of a playbook may use.

A name that is defined anywhere in the playbook is accepted in every template. At run time a template sees fewer names,
but this broad rule never reports a correct name as a mistake.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from typing import Any, Final

from noetl_worker.authoring.outline import StepPart, mapping, names_in, step_arcs, step_parts, tool_parts
from noetl_worker.models.spellings import INPUTS

_ALWAYS: Final = frozenset(
    {
        "workload", "ctx", "vars", "iter", "event", "input", "args", "output", "keychain", "loop", "job", "steps",
        "execution_id", "catalog_id", "path", "result", "response", "error", "data", "_prev", "results", "env", "task",
        "_task", "_attempt", "step", "node", "loop_index", "_index", "_total", "_first", "_last", "server_url",
        "worker_id", "command_id", "nats_url", "true", "false", "none", "True", "False", "None", "null",
        "_keychain_manifest", "item", "secret", "auth", "this", "parent_execution_id",
    }
)  # fmt: skip
"""Names that one of the planes or the worker always provides (protocol/command.md#names)."""
OF_EVERY_STEP: Final = frozenset(
    {
        "data", "result", "status", "error", "context", "meta", "name", "_ref", "_store", "_uri", "reference", "ref",
        "extracted", "results", "items", "_count", "_truncated",
    }
)  # fmt: skip
_OF_KINDS: Final[Mapping[str, frozenset[str]]] = {
    # protocol/tasks.md#results; recorded: view-http, view-shell
    "http": frozenset({"status_code", "headers", "url", "elapsed", "data", "body", "pages", "paging", "iterations"}),
    "shell": frozenset({"exit_code", "returncode", "stdout", "stderr", "commands", "duration_ms", "notes"}),
}

_PRINTED: Final = frozenset({"stdout", "stderr"})
"""Keys of the result of a `python` step whose code never assigns the variable `result`."""


def known_names(document: Mapping[str, object]) -> frozenset[str]:
    return frozenset({*_ALWAYS, *_names(document)})


def items_and_tasks(document: Mapping[str, object]) -> Iterator[str]:
    """Yield the names of loop items and of tasks. In a template, such a name hides a step that has the same name."""
    for step in step_parts(document):
        yield str(mapping(step.value.get("loop")).get("iterator", "item"))
    for tool in tool_parts(document):
        yield tool.label


def _names(document: Mapping[str, object]) -> Iterator[str]:
    yield from map(str, mapping(document.get("workload")))
    yield from names_in(document, "keychain")
    yield from items_and_tasks(document)
    for step in step_parts(document):
        yield step.name
        for block in (step.value, *(mapping(arc) for _, arc in step_arcs(step))):
            yield from _inputs(block)
    for tool in tool_parts(document):
        yield from (*_inputs(tool.config), *_inputs(mapping(tool.config.get("spec"))))
    for part in ("workflow", "workbook"):
        yield from _set_below(document.get(part))


def _inputs(block: Mapping[str, Any]) -> Iterator[str]:
    """Yield the names of the inputs of a step, arc or tool.

    Nested keys are left out: an `input` inside the body of an HTTP request defines no name.
    """
    for name in INPUTS:
        yield from map(str, mapping(block.get(name)))


def _set_below(value: object) -> Iterator[str]:
    """Yield the names of variables that `set` and `set_var` blocks, at any depth of a value, write.

    The name `a.b` gives `a` and `b`.
    """
    if isinstance(value, dict):
        for key in mapping(value.get("set")):
            yield from str(key).split(".")
        if isinstance(variable := mapping(value.get("set_var")).get("name"), str):
            yield variable
        for item in value.values():
            yield from _set_below(item)
    elif isinstance(value, list):
        for item in value:
            yield from _set_below(item)


# ── results ─────────────────────────────────────────────────────────────────────────────────────


def result_keys(step: StepPart) -> frozenset[str] | None:
    """Return the keys that a step's result may have, besides `OF_EVERY_STEP`.

    Return None if the keys cannot be determined from the playbook.
    """
    tool = step.value.get("tool")
    if not isinstance(tool, dict) or step.value.get("loop") is not None or tool.get("spec"):
        return None
    if any(block.get(name) for block in (tool, step.value) for name in ("output", "output_select")):
        return None
    kind = tool.get("kind")
    return _python_keys(str(tool.get("code", ""))) if kind == "python" else _OF_KINDS.get(str(kind))


def _python_keys(code: str) -> frozenset[str] | None:
    """Return the keys of the dicts that Python code assigns to `result`; None if the code does not show all keys."""
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # MemoryError is for too deeply nested code
        return None
    if any(
        isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Return, ast.Global)) for node in ast.walk(tree)
    ):
        return None
    uses = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node.id == "result"]
    calls = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & {"exec", "eval", "globals", "locals"}
    if not uses and not calls and not any(isinstance(node, (ast.Import, ast.ImportFrom)) for node in ast.walk(tree)):
        return _PRINTED
    given = [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and node.targets[0] in uses]
    if not given or len(given) != len(uses):
        return None
    keys: set[str] = set()
    for node in given:
        if not isinstance(node.value, ast.Dict):
            return None
        for key in node.value.keys:
            if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                return None
            keys.add(key.value)
    return frozenset(keys)
