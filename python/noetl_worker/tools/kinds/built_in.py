"""The built-in kinds: where the class of each is. All else a kind says of itself, as a plug-in does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_TOOLS: Final = "noetl_worker.tools."
BUILT_IN: Final[Mapping[str, str]] = {
    "shell": _TOOLS + "shell:ShellTool",
    "http": _TOOLS + "http.http:HttpTool",
    "python": _TOOLS + "python.python_tool:PythonTool",
    "noop": _TOOLS + "noop:NoopTool",
    "playbook": _TOOLS + "playbook.playbook:PlaybookTool",
    "task_sequence": _TOOLS + "task_sequence:TaskSequenceTool",
    "rhai": _TOOLS + "rhai:RhaiTool",
    "duckdb": _TOOLS + "duckdb.duckdb:DuckdbTool",
    "ducklake": _TOOLS + "duckdb.ducklake:DucklakeTool",
    "postgres": _TOOLS + "postgres.postgres:PostgresTool",
    "transfer": _TOOLS + "transfer.transfer:TransferTool",
    "snowflake": _TOOLS + "snowflake:SnowflakeTool",
    "nats": _TOOLS + "nats.nats:NatsTool",
    "artifact": _TOOLS + "artifact.artifact:ArtifactTool",
    "result_fetch": _TOOLS + "artifact.result_fetch:ResultFetchTool",
    "mcp": _TOOLS + "mcp.mcp:McpTool",
    "secrets": _TOOLS + "secrets:SecretsTool",
    "container": _TOOLS + "kubernetes.container:ContainerTool",
    "subscription": _TOOLS + "nats.subscription:SubscriptionTool",
    "script": _TOOLS + "kubernetes.script:ScriptTool",
    "workbook": _TOOLS + "playbook.workbook:WorkbookTool",
}
ALIASES: Final[Mapping[str, str]] = {
    "playbooks": "playbook",
    "pipeline": "task_sequence",
    "secret_manager": "secrets",
    "snowflake_transfer": "transfer",
}
"""Also in the classes: here so that none has to be imported for its name."""
