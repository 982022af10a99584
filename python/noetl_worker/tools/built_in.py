"""Table of the built-in tool kinds and their classes, as text. The registry imports a class only when its kind is first
used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_CLASSES: Final[Mapping[str, str]] = {
    "shell": "ShellTool",
    "http": "HttpTool",
    "python": "PythonTool",
    "noop": "NoopTool",
    "playbook": "PlaybookTool",
    "task_sequence": "TaskSequenceTool",
    "rhai": "RhaiTool",
    "duckdb": "DuckdbTool",
    "ducklake": "DucklakeTool",
    "postgres": "PostgresTool",
    "transfer": "TransferTool",
    "snowflake": "SnowflakeTool",
    "nats": "NatsTool",
    "artifact": "ArtifactTool",
    "result_fetch": "ResultFetchTool",
    "mcp": "McpTool",
    "secrets": "SecretsTool",
    "container": "ContainerTool",
    "subscription": "SubscriptionTool",
    "script": "ScriptTool",
    "workbook": "WorkbookTool",
}
BUILT_IN: Final[Mapping[str, str]] = {
    kind: f"noetl_worker.tools.kinds.{kind}.{kind}:{name}" for kind, name in _CLASSES.items()
}
"""Kind -> its class, as "module:Class"."""
ALIASES: Final[Mapping[str, str]] = {
    "playbooks": "playbook",
    "pipeline": "task_sequence",
    "secret_manager": "secrets",
    "snowflake_transfer": "transfer",
}
"""Alias -> kind. Each class lists its aliases too; with this table the registry need not import the class to find
them."""
