"""The import rules of ARCHITECTURE 3, read from the syntax trees."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__, "../../../python/noetl_worker").resolve()

BOTTOM = {
    "errors",
    "models",
    "settings",
    "setting_values",
    "setting_checks",
    "setting_line",
    "setting_sources",
    "json_text",
    "engine",
    "snowflake",
    "nats_client",
    "_core",
}
SERVICES = {
    "control_plane",
    "template",
    "template_sandbox",
    "template_limits",
    "credentials",
    "credential_cache",
    "known_secrets",
    "secret_forms",
    "redaction",
    "in_flight",
    "slots",
    "identity",
    "patience",
    "retry_pace",
    "observability",
    "event_loop",
}
STAGES = {  # one room each: modules of a room may know each other, rooms may not
    "jetstream": "delivery",
    "keepalive": "delivery",
    "envelope": "envelope",
    "claim": "claim",
    "command": "command",
    "tools": "tools",
    "dispatch": "tools",
    "cancellation": "tools",
    "cases": "cases",
    "case_actions": "cases",
    "events": "events",
    "emitter": "events",
    "event_set": "events",
    "outbox": "events",
    "outbox_file": "events",
    "results": "results",
    "acknowledge": "settle",
    "dead_letter": "settle",
}
UPPER = {
    "handover": 4,
    "adoption": 4,
    "claimed_command": 4,
    "execution": 4,
    "worker": 5,
    "cli": 6,
    "dev": 6,
    "testing": 6,
    "__main__": 7,
}


def level(module: str) -> int:
    if module in BOTTOM:
        return 1
    if module in SERVICES:
        return 2
    return 3 if module in STAGES else UPPER[module]


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (
                [f"{node.module}.{alias.name}" for alias in node.names]
                if node.module == "noetl_worker"
                else [node.module]
            )
            found.update(names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return found


def own(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def sources() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def inner(path: Path) -> set[str]:
    """Top-level modules of ours that a file imports, itself left out."""
    names = {name.split(".")[1] for name in imports(path) if name.startswith("noetl_worker.")}
    return names - {own(path), "__version__"}


def test_imports_go_downwards_only() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in sources()
        for name in inner(path)
        if level(name) > level(own(path))
    ]
    assert wrong == []


def test_a_stage_imports_no_other_stage() -> None:
    wrong = [
        f"{path.relative_to(PACKAGE)} imports {name}"
        for path in sources()
        if own(path) in STAGES
        for name in inner(path)
        if name in STAGES and STAGES[name] != STAGES[own(path)]
    ]
    assert wrong == []


def test_nats_is_imported_only_where_it_is_spoken() -> None:
    allowed = {"jetstream", "keepalive", "worker"}
    wrong = [
        str(path.relative_to(PACKAGE))
        for path in sources()
        if any(name.split(".")[0] == "nats" for name in imports(path))
        and own(path) not in allowed
        and path.relative_to(PACKAGE).parts[0] != "dev"
        and not path.name.startswith(("nats_", "subscription"))  # the tool kinds that talk to it
    ]
    assert wrong == []


def test_a_tool_reaches_the_worker_through_its_context_alone() -> None:
    wrong: list[str] = []
    for path in (PACKAGE / "tools").glob("*.py"):
        if path.name in {"registry.py", "deadline.py", "fields.py", "policy.py", "task_sequence.py", "contract.py"}:
            continue
        below = {"tools", "models", "errors", "json_text", *(["nats_client"] if path.name.startswith("nats_") else [])}
        wrong += [
            f"{path.name} imports {name}"
            for name in imports(path)
            if name.startswith("noetl_worker.") and name.split(".")[1] not in below
        ]
    assert [one for one in wrong if not one.startswith("rhai.py imports noetl_worker._core")] == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    banned = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}
    assert [path.name for path in sources() if path.stem in banned] == []


def test_files_and_functions_stay_readable() -> None:
    long = []
    for path in sources():
        text = path.read_text()
        if len(text.splitlines()) > 500:
            long.append(f"{path.relative_to(PACKAGE)}: {len(text.splitlines())} lines")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno
                if lines > 60:
                    long.append(f"{path.relative_to(PACKAGE)}:{node.name}: {lines} lines")
    assert long == []


def test_importing_the_package_loads_no_tool_and_no_server() -> None:
    code = (
        "import noetl_worker, sys; print([m for m in sys.modules if m.split('.')[0] in ('httpx','nats','starlette')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
