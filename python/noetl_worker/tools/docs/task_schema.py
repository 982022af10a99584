"""JSON Schema of a task sequence's tasks and of the rules in a task's policy, which no config model describes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from noetl_worker.models.backoff import GROWTHS
from noetl_worker.models.wire import JsonValue
from noetl_worker.tools.policy import VERBS

TASKS_SPELLINGS: Final = ("tasks", "tool_config", "tool")
"""Names of the fields that may hold the list of tasks in a task sequence's config."""

_SET: Final[Mapping[str, JsonValue]] = {
    "type": "object",
    "description": "Scoped name -> value: `ctx.x` for the execution, `iter.x` for the iteration, `x` for later tasks.",
}
_VERB: Final[Mapping[str, JsonValue]] = {"enum": list(VERBS), "description": "Absent: continue."}
_COUNT: Final[Mapping[str, JsonValue]] = {
    "anyOf": [{"type": "integer"}, {"type": "string", "pattern": r"^\s*[0-9]+\s*$"}],
    "description": "Executions of the task altogether, the first one included; 3.",
}
_DELAY: Final[Mapping[str, JsonValue]] = {
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^\s*[0-9]*\.?[0-9]+\s*$"}],
    "description": "Seconds before the next try; 1.",
}
_ACTION: Final[Mapping[str, JsonValue]] = {
    "anyOf": [
        _VERB,
        {"type": "null"},
        {
            "type": "object",
            "properties": {
                "do": _VERB,
                "attempts": _COUNT,
                "backoff": {
                    "enum": list(GROWTHS),
                    "description": "How `delay` grows; absent: fixed with a `delay`, else none.",
                },
                "delay": _DELAY,
                "to": {"type": "string", "description": "For jump: a task's name, or `previous`."},
                "set": _SET,
            },
            "if": {"properties": {"do": {"const": "jump"}}, "required": ["do"]},
            "then": {"required": ["to"]},
        },
    ]
}
_RULE: Final[Mapping[str, JsonValue]] = {
    "type": "object",
    "properties": {
        "when": {"description": "A template or a truth value; sees `output` and everything the task sees."},
        "then": _ACTION,
        "else": {"description": "`{then: <action>}` for every outcome that no rule before has taken."},
    },
    "anyOf": [{"required": ["when"]}, {"required": ["then"]}, {"required": ["else"]}],
}
_RULES: Final[Mapping[str, JsonValue]] = {"type": ["array", "null"], "items": _RULE}

POLICY_SCHEMA: Final[Mapping[str, JsonValue]] = {
    "description": "Rules for a task's outcome; the first that holds decides. Without one, only a success continues.",
    "anyOf": [
        {"type": "null"},
        {"type": "array", "items": _RULE},
        {
            "type": "object",
            "properties": {"rules": _RULES, "on_unmatched": {**_ACTION, "description": "The last rule."}},
        },
    ],
}
_TASK_FIELDS: Final[Mapping[str, JsonValue]] = {
    "kind": {"type": "string", "description": "The tool; its own fields stand beside it."},
    "input": {"type": ["object", "null"], "description": "Names for the templates and the code of this task."},
    "args": {"type": ["object", "null"], "description": "Another spelling of `input`."},
    "set": {**_SET, "type": ["object", "null"]},
    "spec": {"type": ["object", "null"], "properties": {"policy": POLICY_SCHEMA}},
}
_NAME: Final[Mapping[str, JsonValue]] = {
    "type": ["string", "null"],
    "description": "Label; absent: task_0, task_1, ...",
}
_TASK: Final[Mapping[str, JsonValue]] = {
    "type": "object",
    "anyOf": [
        {
            "title": "named task",
            "required": ["kind"],
            "properties": {**_TASK_FIELDS, "name": _NAME},
        },
        {
            "title": "task under its label",
            "minProperties": 1,
            "maxProperties": 1,
            "additionalProperties": {"type": "object", "required": ["kind"], "properties": _TASK_FIELDS},
        },
    ],
}
TASKS_SCHEMA: Final[Mapping[str, JsonValue]] = {"type": "array", "minItems": 1, "items": _TASK}


def kinds_in(raw_config: Mapping[str, JsonValue]) -> Iterator[str]:
    """Yield the tool kinds of the tasks in a task sequence's unparsed config. The caller imports the tools of these
    kinds before the config is parsed."""
    for name in TASKS_SPELLINGS:
        tasks = raw_config.get(name)
        for task in tasks if isinstance(tasks, list) else ():
            for entry in (task, *task.values()) if isinstance(task, Mapping) else ():
                if isinstance(entry, Mapping) and isinstance(kind := entry.get("kind"), str):
                    yield kind
