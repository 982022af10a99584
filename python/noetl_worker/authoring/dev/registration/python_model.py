"""The Python plane's model of a playbook, as in `noetl` 4.0.0. The plane refuses playbooks that do not fit the model.

Unknown keys are ignored. The plane does not check the tasks of a list; the worker does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from noetl_worker.authoring.dev.registration.shapes import (
    Record,
    Refusal,
    Shape,
    list_of,
    mapping_of,
    of_type,
    one_of,
    optional,
)
from noetl_worker.authoring.outline import Path
from noetl_worker.models.wire import fields_of

KINDS: Final = (
    "http", "postgres", "duckdb", "ducklake", "python", "workbook", "playbook", "playbooks", "secrets", "iterator",
    "container", "script", "snowflake", "transfer", "snowflake_transfer", "gcs", "gateway", "nats", "agent", "mcp",
    "shell", "artifact", "noop", "task_sequence", "rhai",
)  # fmt: skip
"""Tool kinds that the plane accepts, in the order of its error text (recorded: catalog-register-unknown-tool)."""
API_VERSION: Final = "noetl.io/v2"
_REGISTERED_VERSIONS: Final = (API_VERSION, "noetl.io/v10")
_LEGACY: Final = (
    "Value error, step must use canonical fields only (legacy args/set_ctx/set_iter/result/outcome are not allowed; "
    "use input/set and tool.output)"
)
_TRUTHS: Final = frozenset({"0", "off", "f", "false", "n", "no", "1", "on", "t", "true", "y", "yes"})
_WHOLE: Final = re.compile(r"\s*[+-]?\d+(_\d+)*(\.0*)?\s*", re.ASCII)

_TEXT: Final = of_type(str, said="Input should be a valid string")
_OPT_TEXT: Final = optional(_TEXT)
_DICT: Final = mapping_of()
_OPT_DICT: Final = optional(_DICT)
_DICTS: Final = list_of(_DICT)


def _truth(value: Any, path: Path) -> Iterator[Refusal]:
    is_text = isinstance(value, str) and value.lower() in _TRUTHS
    if not is_text and not (isinstance(value, (bool, int, float)) and value in (0, 1)):
        yield Refusal(path, "Input should be a valid boolean")


def _number(*, is_whole: bool, least: float | None = None, is_above: bool = False) -> Shape:
    said = "Input should be a valid integer" if is_whole else "Input should be a valid number"

    def check(value: Any, path: Path) -> Iterator[Refusal]:
        try:
            read = float(value) if isinstance(value, (int, float, str)) else None
        except (ValueError, OverflowError):
            read = None
        if isinstance(value, str) and is_whole and _WHOLE.fullmatch(value) is None:
            read = None
        if read is None or (is_whole and not read.is_integer()):
            yield Refusal(path, said)
        elif least is not None and (read < least or (is_above and read == least)):
            yield Refusal(path, f"Input should be greater than {'' if is_above else 'or equal to '}{least:g}")

    return check


_INTEGER: Final = _number(is_whole=True)
_COUNT: Final = _number(is_whole=True, least=1)
_TIME: Final = _number(is_whole=False, least=0, is_above=True)

# ── tools ───────────────────────────────────────────────────────────────────────────────────────

_POLICY: Final = Record(
    {
        "mode": one_of("exclusive", "inclusive"),
        "on_unmatched": one_of("continue", "fail"),
        "rules": _DICTS,
        "before": optional(_DICTS),
        "after": optional(_DICTS),
        "finally": optional(_DICTS),
    },
    needed=("rules",),
)
_STORES: Final = ("auto", "memory", "kv", "disk", "object", "s3", "gcs", "db", "duckdb", "eventlog")
_STORE: Final = Record(
    {
        "kind": one_of(*_STORES),
        "compression": one_of("none", "gzip", "lz4"),
        **dict.fromkeys(("driver", "bucket", "prefix", "ttl", "credential"), _OPT_TEXT),
    }
)
_SELECT: Final = list_of(Record({"path": _TEXT, "as": _TEXT}, needed=("path",)))
_ACCUMULATE: Final = Record(
    {
        **dict.fromkeys(("enabled", "on_success", "on_error"), _truth),
        "strategy": one_of("append", "replace", "merge", "concat"),
        "merge_path": _OPT_TEXT,
        "manifest_as": _OPT_TEXT,
        "max_items": optional(_INTEGER),
    }
)
_OUTPUT: Final = Record(
    {
        "store": optional(_STORE),
        "select": optional(_SELECT),
        "accumulate": optional(_ACCUMULATE),
        "inline_max_bytes": _INTEGER,
        "preview_max_bytes": _INTEGER,
        "scope": one_of("step", "execution", "workflow", "permanent"),
        "as": _OPT_TEXT,
    }
)
_TOOL: Final = Record(
    {
        "kind": one_of(*KINDS),
        "spec": optional(Record({"timeout": _OPT_DICT, "policy": optional(_POLICY)}, has_text_keys=True)),
        "output": optional(_OUTPUT),
    },
    needed=("kind",),
    has_text_keys=True,
)


def _tool(value: Any, path: Path) -> Iterator[Refusal]:
    if isinstance(value, dict) and "kind" in value:
        yield from _TOOL(value, path)
    elif isinstance(value, list):
        for index, task in enumerate(value):
            yield from _task(task, (*path, index))
    elif value is not None:
        yield Refusal(path, "Value error, tool must be an object with 'kind' or a list of tasks", "kind")


def _task(task: Any, path: Path) -> Iterator[Refusal]:
    if not isinstance(task, dict):
        yield Refusal(path, f"Value error, tool[{path[-1]}] must be an object")
    elif "kind" not in task:
        said = f"Value error, tool[{path[-1]}] must be {{name: ..., kind: ...}} or {{kind: ...}}"
        yield Refusal(path, said, "kind")
    else:
        yield from _DICT(task, path)


# ── loops and arcs ──────────────────────────────────────────────────────────────────────────────

_FRAME: Final = Record(
    {
        **dict.fromkeys(("max_rows", "max_bytes", "row_concurrency", "max_attempts"), _COUNT),
        **dict.fromkeys(("max_seconds", "lease_seconds", "heartbeat_seconds"), _TIME),
        "process": one_of("row", "frame"),
        "verify_ipc": _truth,
        "retry_mode": one_of("whole_frame"),
    }
)
_CURSOR: Final = Record(
    {**dict.fromkeys(("kind", "auth", "claim"), _TEXT), "options": _OPT_DICT}, needed=("kind", "auth", "claim")
)


def _in_flight(value: Any, path: Path) -> Iterator[Refusal]:
    if not isinstance(value, str):  # an expression, which is rendered
        yield from _INTEGER(value, path)


_LOOP: Final = Record(
    {
        "in": _OPT_TEXT,
        "cursor": optional(_CURSOR),
        "iterator": _TEXT,
        "spec": optional(
            Record(
                {
                    "mode": one_of("sequential", "parallel", "cursor"),
                    "max_in_flight": optional(_in_flight),
                    "policy": optional(Record({"exec": one_of("distributed", "local")})),
                    "frame": optional(_FRAME),
                    "frame_policy": optional(_FRAME),
                }
            )
        ),
    },
    needed=("iterator",),
)


def _loop(value: Any, path: Path) -> Iterator[Refusal]:
    found = list(_LOOP(value, path))
    yield from found
    if found:
        return
    collection, has_cursor = value.get("in", value.get("in_")), value.get("cursor") is not None
    is_of_cursor = fields_of(value.get("spec")).get("mode") == "cursor"
    if collection and has_cursor:
        yield Refusal(path, "Value error, loop: specify either `in` (collection) or `cursor` (pull), not both")
    elif not collection and not has_cursor:
        yield Refusal(path, "Value error, loop: one of `in` (collection) or `cursor` (pull) is required", "in")
    elif has_cursor != is_of_cursor:
        yield Refusal(path, "Value error, loop.cursor and spec.mode 'cursor' require each other")


_ARC: Final = Record(
    {"step": _TEXT, "when": _OPT_TEXT, "set": _OPT_DICT, "spec": _OPT_DICT},
    needed=("step",),
    refused={"args": "Value error, next.arcs[] must use 'set' (legacy 'args' is not allowed)"},
)
_NEXT: Final = Record(
    {
        "spec": optional(
            Record(
                {
                    "mode": one_of("exclusive", "inclusive"),
                    "on_no_match": one_of("complete", "quiet"),
                    "policy": _OPT_DICT,
                }
            )
        ),
        "arcs": list_of(_ARC),
    },
    needed=("arcs",),
    missing="Value error, next must use canonical router format with 'arcs'",
    no_mapping="Input should be a valid dictionary or instance of NextRouter",
)

# ── steps and the whole ─────────────────────────────────────────────────────────────────────────

_STEP: Final = Record(
    {
        "step": _TEXT,
        "desc": _OPT_TEXT,
        "spec": optional(
            Record(
                {
                    "policy": optional(
                        Record(
                            {
                                "admit": optional(Record({"mode": one_of("exclusive", "inclusive"), "rules": _DICTS})),
                                **dict.fromkeys(("lifecycle", "failure", "emit"), _OPT_DICT),
                            }
                        )
                    ),
                    "timeout": _OPT_TEXT,
                },
                has_text_keys=True,
            )
        ),
        "input": _OPT_DICT,
        "loop": optional(_loop),
        "tool": _tool,
        "next": optional(_NEXT),
        "set": _OPT_DICT,
    },
    needed=("step",),
    refused=dict.fromkeys(("args", "set_ctx", "set_iter", "result", "outcome"), _LEGACY),
)
_ENDS: Final = {"entry_step": _OPT_TEXT, "final_step": _OPT_TEXT, "no_next_is_error": optional(_truth)}
_EXECUTOR: Final = Record(
    {
        "profile": one_of("local", "distributed", "auto"),
        "version": _TEXT,
        "requires": optional(Record(dict.fromkeys(("tools", "features"), optional(list_of(_TEXT))))),
        "spec": optional(
            Record({**_ENDS, "policy": optional(Record(dict.fromkeys(("defaults", "results", "limits"), _OPT_DICT)))})
        ),
    }
)


def _words(value: Any, path: Path) -> Iterator[Refusal]:
    if not isinstance(value, str):
        yield from list_of(_TEXT, "Value error, must be a list of strings (or a single string)")(value, path)


_PLAYBOOK: Final = Record(
    {
        "apiVersion": one_of(*_REGISTERED_VERSIONS),
        "kind": one_of("Playbook"),
        "metadata": Record(
            {
                "name": _TEXT,
                **dict.fromkeys(("path", "description"), _OPT_TEXT),
                **dict.fromkeys(("tags", "capabilities"), optional(_words)),
                **dict.fromkeys(("exposed_in_ui", "exposes_as_mcp", "agent"), optional(_truth)),
            },
            needed=("name",),
            has_text_keys=True,
        ),
        "executor": optional(_EXECUTOR),
        "workload": _OPT_DICT,
        "keychain": optional(_DICTS),
        "workbook": optional(list_of(Record({"name": _TEXT, "tool": _TOOL}, needed=("name", "tool")))),
        "workflow": list_of(_STEP),
    },
    needed=("apiVersion", "kind", "metadata", "workflow"),
    has_text_keys=True,
)


def refused_by_python(document: Mapping[str, Any]) -> Iterator[Refusal]:
    """Yield the reasons why the Python plane does not register a playbook (status 422) or does not execute it (404)."""
    yield from _PLAYBOOK(document, ())
    if document.get("workflow") == []:
        yield Refusal(("workflow",), "Value error, Workflow must have at least one step")
    if document.get("apiVersion") in _REGISTERED_VERSIONS[1:]:
        yield Refusal(("apiVersion",), f"such a playbook is never executed: write {API_VERSION}", status=404)
    spec = fields_of(fields_of(document.get("executor")).get("spec"))
    entry, steps = spec.get("entry_step"), document.get("workflow")
    names = [fields_of(step).get("step") for step in steps] if isinstance(steps, list) else []
    if isinstance(entry, str) and entry and names and entry not in names:
        yield Refusal(("executor", "spec", "entry_step"), f"Entry step '{entry}' not found.", status=404)
