"""An outgoing command before and after its ids are known; the common part of the two dialects' forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from noetl_worker.authoring.dev.database import Ids
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.authoring.dev.orchestration.rendering import render_fields
from noetl_worker.authoring.dev.orchestration.router import Form, StepCommand
from noetl_worker.models.wire import CommandId, Dialect, JsonValue


@dataclass(frozen=True, slots=True)
class Issued:
    """A command with everything that a claim's answer has."""

    execution_id: int
    event_id: int
    """The claim key: id of the `command.issued` event."""
    command_id: CommandId
    node: str
    action: str
    context: Mapping[str, JsonValue]
    meta: Mapping[str, JsonValue]


class WireForm(Form, Protocol):
    """A router's Form that also builds the commands and notifications of its plane."""

    def issue(self, execution: Execution, command: StepCommand, ids: Ids) -> Issued:
        """Return the command with its id, node, action, context and meta (protocol/command.md)."""

    def raw(self, execution: Execution, node: str, action: str, context: Mapping[str, JsonValue], ids: Ids) -> Issued:
        """Return a command without a playbook; `context` has its `tool_config` and `input`."""

    def notification(self, issued: Issued, server_url: str, subject: str) -> tuple[str, bytes]:
        """Return the subject and body of the NATS message."""


def basic_meta(execution: Execution, node: str, kind: str, command_id: CommandId) -> dict[str, JsonValue]:
    """Return the meta fields of a command that both planes send; the Rust plane's order is alphabetical (recorded:
    *-claim, rust-control-plane).
    """
    return {
        "step": node,
        "attempt": 1,
        "tool_kind": kind,
        "actionable": True,
        "catalog_id": str(execution.catalog_id),
        "command_id": command_id,
        "execution_id": str(execution.execution_id),
        "max_attempts": 3,
    }


def rendered_tool(
    tool: Mapping[str, JsonValue], scope: Mapping[str, JsonValue], dialect: Dialect, *, without: Sequence[str]
) -> dict[str, JsonValue]:
    """Return the rendered fields of a step's tool, except those left out."""
    # differs-from-upstream: cases look at the tool's result, so they must reach the worker unrendered.
    return {
        name: value if name in ("cases", "case") else render_fields(value, scope, dialect)
        for name, value in tool.items()
        if name not in without
    }
