"""Every tool config that the repository has: playbooks made for the recordings, examples, recorded commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

TESTS = Path(__file__).parents[1]
PLAYBOOKS = sorted(
    [
        *(TESTS / "compat" / "playbooks").rglob("*.yaml"),
        *(TESTS.parent / "examples").glob("*.yaml"),  # examples/plugin has a kind that is not installed
        *(TESTS.parent / "examples" / "tools").glob("*.yaml"),
    ],
    key=str,
)
RECORDINGS = sorted((TESTS / "compat" / "samples").glob("*.jsonl"))
NO_PLAYBOOKS = {"credentials.yaml", "missing-workflow.yaml"}
MEANT_TO_BE_BROKEN = {
    "invalid-yaml.yaml",
    "legacy-args.yaml",
    "tool-missing.yaml",
    "unknown-tool.yaml",
    "unknown-kind.yaml",
}


def written() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(where, kind, config) of the playbooks' tools; the tasks of a list are given one by one too."""
    for path in PLAYBOOKS:
        if path.name not in MEANT_TO_BE_BROKEN:
            for tool in _tools(yaml.safe_load(path.read_text(encoding="utf-8"))):
                yield from _of_tool(path.name, tool)


def recorded() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(case, kind, config) of the claims in the recordings, as they arrive at the worker."""
    for path in RECORDINGS:
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if not record.get("cut"):
                for kind, config in _commands(record):
                    yield record.get("case", path.name), kind, config


def _tools(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        if "tool" in value:
            yield value["tool"]
        for name, item in value.items():
            if name != "tool":
                yield from _tools(item)
    elif isinstance(value, list):
        for item in value:
            yield from _tools(item)


def _of_tool(where: str, tool: Any) -> Iterator[tuple[str, str, dict[str, Any]]]:
    if isinstance(tool, list):
        yield where, "task_sequence", {"tasks": tool}
        for task in tool:
            one = task if "kind" in task else next(iter(task.values()))
            yield where, one["kind"], one
    elif isinstance(tool, dict) and "kind" in tool:
        yield where, tool["kind"], tool


def _commands(value: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    if isinstance(value, dict):
        context = value.get("context")
        if "action" in value and isinstance(context, dict) and context.get("tool_config") is not None:
            config = context["tool_config"]
            if isinstance(config, list):
                yield value["action"], {"tasks": config}
            elif config.get("kind") != "result_ref":  # a reference, which the worker follows before it looks
                yield value["action"], config
        for item in value.values():
            yield from _commands(item)
    elif isinstance(value, list):
        for item in value:
            yield from _commands(item)
