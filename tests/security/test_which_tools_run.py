"""A package replaces a built-in tool, a playbook runs a denied kind."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest

from noetl_worker.errors import ConfigurationError, SettingsError, ToolError
from noetl_worker.models import ToolResult
from noetl_worker.pipeline.command.tool_rules import make_registry
from noetl_worker.settings.settings import load_settings
from noetl_worker.testing import MemoryControlPlane, run_tool
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.registry import Registry
from plug_ins import install


def registry(**variables: str) -> Registry:
    return make_registry(load_settings({f"NOETL_WORKER_{name}": text for name, text in variables.items()}))


# ── plug-ins that take a built-in's name ────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class StolenConfig:
    url: str = ""


class Stolen:
    kind: ClassVar[str] = "http"
    config_model: ClassVar[type] = StolenConfig

    async def run(self, config: Any, context: ToolContext) -> ToolResult:
        return ToolResult.success("stolen")


class ByAlias(Stolen):
    kind: ClassVar[str] = "harmless"
    aliases: ClassVar[tuple[str, ...]] = ("pipeline", "shell")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(tmp_path)
    return lambda tool: install(tmp_path, "fast-http", f"{__name__}:{tool.__name__}")


def test_plugin_does_not_become_a_built_in_kind_by_itself(installed: Any, caplog: pytest.LogCaptureFixture) -> None:
    """An installed package registers `http`, or `shell` as an alias."""
    installed(Stolen)
    with caplog.at_level(logging.WARNING):
        tools = registry()
    assert type(tools.get("http")).__name__ == "HttpTool"
    assert "it would replace the built-in http" in caplog.text
    installed(ByAlias)
    tools = registry()
    assert type(tools.get("shell")).__name__ == "ShellTool"
    assert tools.get("pipeline").kind == "task_sequence"
    assert "it would replace the built-in pipeline, shell" in str(tools.broken[0])


# ── kinds that run here ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"KINDS_DENY": "shell,script"}, "kind 'shell' does not run on this worker: its NOETL_WORKER_KINDS_DENY names"),
        ({"KINDS": "http,noop"}, "kind 'shell' does not run on this worker: its NOETL_WORKER_KINDS is http, noop"),
        (
            {"KINDS": "noop,shell", "KINDS_DENY": "shell"},
            "kind 'shell' does not run on this worker: its NOETL_WORKER_KINDS_DENY",
        ),
    ],
)
def test_refused_kind_is_an_error_that_names_the_setting(variables: dict[str, str], said: str) -> None:
    """A denied kind, also in a list of tasks."""
    tools = registry(**variables)
    with pytest.raises(ConfigurationError, match=said):
        run_tool("shell", {"cmd": "true"}, registry=tools)
    inside = {"tasks": [{"name": "a", "kind": "noop"}, {"name": "b", "kind": "shell", "cmd": "true"}]}
    with pytest.raises(ConfigurationError, match=said):
        run_tool("task_sequence", inside, registry=tools)
    assert "shell" not in tools.kinds_that_run()


def test_kinds_that_are_not_refused_run_and_aliases_count_as_their_kind() -> None:
    tools = registry(KINDS="noop", KINDS_DENY="secret_manager")
    assert run_tool("task_sequence", {"tasks": [{"name": "a", "kind": "noop"}]}, registry=tools).error is None
    denied = registry(KINDS_DENY="pipeline, secret_manager")
    for name in ("task_sequence", "pipeline", "secrets", "secret_manager"):
        with pytest.raises(ConfigurationError, match="NOETL_WORKER_KINDS_DENY"):
            denied.get(name)
    assert run_tool("noop", {}, registry=denied).error is None


def test_kind_that_another_kind_runs_is_refused_too(tmp_path: Path) -> None:
    """A denied kind as a transfer's source or a workbook's entry."""
    tools = registry(KINDS_DENY="http,shell")
    source = {"type": "http", "url": "http://127.0.0.1:1/"}
    target = {"type": "duckdb", "database": str(tmp_path / "t.db"), "table": "t"}
    with pytest.raises(ToolError, match="kind 'http' does not run on this worker"):
        run_tool("transfer", {"source": source, "target": target}, registry=tools)
    plane = MemoryControlPlane()
    plane.document = {"workflow": [], "workbook": [{"name": "x", "tool": {"kind": "shell", "cmd": "true"}}]}
    with pytest.raises(ToolError, match="kind 'shell' does not run on this worker"):
        run_tool("workbook", {"name": "x"}, registry=tools, control_plane=plane)


@pytest.mark.parametrize("variable", ["KINDS", "KINDS_DENY"])
def test_kind_that_is_not_there_stops_the_start(variable: str) -> None:
    with pytest.raises(SettingsError, match=rf"NOETL_WORKER_{variable}='shel'.*did you mean 'shell'"):
        registry(**{variable: "shel"})
