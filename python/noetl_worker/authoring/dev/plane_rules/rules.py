"""The interface of a plane's rules for commands and notifications, and functions for both planes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from noetl_worker.authoring.dev.database import Ids
from noetl_worker.authoring.dev.orchestration.execution import Execution
from noetl_worker.authoring.dev.orchestration.rendering import render_fields
from noetl_worker.authoring.dev.orchestration.router import RoutingRules, StepCommand
from noetl_worker.models.wire import CommandId, Dialect, JsonValue


@dataclass(frozen=True, slots=True)
class IssuedCommand:
    """An issued command, with all fields of the plane's answer to the worker that claims the command."""

    execution_id: int
    event_id: int
    """Id of the `command.issued` event. A worker uses this id in the request that claims the command."""
    command_id: CommandId
    node: str
    action: str
    context: Mapping[str, JsonValue]
    meta: Mapping[str, JsonValue]


class PlaneRules(RoutingRules, Protocol):
    """All rules of one plane: how an execution goes on (`RoutingRules`), and what commands and messages contain."""

    def issue(self, execution: Execution, command: StepCommand, ids: Ids) -> IssuedCommand:
        """Return a command of a playbook's step, with new ids (protocol/command.md)."""

    def raw(
        self, execution: Execution, node: str, action: str, context: Mapping[str, JsonValue], ids: Ids
    ) -> IssuedCommand:
        """Return a command that belongs to no playbook, with new ids.

        Args:
            node: name of the command's step.
            action: kind of the command's tool.
            context: the command's `tool_config` and `input`.
        """

    def notification(self, issued: IssuedCommand, server_url: str, subject: str) -> tuple[str, bytes]:
        """Return the subject and body of the NATS message that announces a command."""


def basic_meta(execution: Execution, node: str, kind: str, command_id: CommandId) -> dict[str, JsonValue]:
    """Return the fields that both planes send in the `meta` of a command (recorded: *-claim, rust-control-plane)."""
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
    """Return the fields of a step's tool with their templates rendered.

    Args:
        without: names of fields to leave out.
    """
    # differs-from-upstream: `cases` use the tool's result, so the worker has to render them.
    return {
        name: value if name in ("cases", "case") else render_fields(value, scope, dialect)
        for name, value in tool.items()
        if name not in without
    }
