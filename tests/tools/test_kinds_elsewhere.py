"""Kinds that NoETL names and this worker does not run: each says what to write instead."""

from __future__ import annotations

import pytest

from noetl_worker.errors import ConfigurationError, UnknownTool
from noetl_worker.testing import tool_context
from noetl_worker.tools.elsewhere import INSTEAD
from noetl_worker.tools.registry import Registry

# every kind of the planes' own lists and of both workers' registries
NAMED_BY_NOETL = [
    "http", "postgres", "duckdb", "ducklake", "python", "workbook", "playbook", "playbooks", "secrets",
    "secret_manager", "iterator", "container", "script", "snowflake", "transfer", "snowflake_transfer", "gcs",
    "gateway", "nats", "agent", "mcp", "shell", "artifact", "noop", "task_sequence", "rhai", "result_fetch",
    "subscription", "wasm", "provider", "cursor_worker",
]  # fmt: skip


@pytest.mark.parametrize("kind", NAMED_BY_NOETL)
def test_every_kind_that_noetl_names_is_run_or_says_what_to_use(kind: str) -> None:
    registry = Registry(plugins=False)
    if kind in INSTEAD:
        assert kind not in registry.kinds()
        with pytest.raises(UnknownTool) as caught:
            registry.get(kind)
        assert str(caught.value) == f"Tool not found: {kind} is not run by this worker: {INSTEAD[kind]}"
        return
    tool = registry.get(kind)
    assert kind in (tool.kind, *getattr(tool, "aliases", ())) or kind == "playbooks"


def test_a_kind_that_cannot_be_run_is_refused_before_it_starts() -> None:
    cursor = {"cursor": {"kind": "postgres", "claim": "{{ a b }}"}, "iterator": "row", "tasks": [{"x": "{{ a b }}"}]}
    with pytest.raises(
        ConfigurationError, match=r"^Tool not found: cursor_worker is not run .*: a cursor loop is leased"
    ):
        Registry(plugins=False).prepare("cursor_worker", cursor, tool_context())
