"""Settings are values: the environment is read for them in one room, and by those that need it as data."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

from noetl_worker.settings.settings import SETTINGS
from noetl_worker.settings.tools import find_family

TESTS = Path(__file__).parents[1]
PACKAGE = TESTS.parent / "python/noetl_worker"
READERS = {
    "settings/settings.py": "reads the settings",
    "worker/worker_process.py": "hands it to the settings, and to traces; looks for a setting of glibc",
    "cli/config.py": "names what is no setting",
    "cli/local_worker.py": "hands it to the settings",
    "cli/doctor/examination.py": "names what is no setting",
    "cli/doctor/machine.py": "says which engine is chosen",
    "engine/chosen.py": "is chosen when it is imported, before there are settings",
    "process/handed_down.py": "a socket and a parent, from the supervisor",
    "process/sealed_environment.py": "takes the environment out of what others may read",
    "__main__.py": "completion",
    "cli/completion.py": "the shell, for completion",
    "observability/logging.py": "NO_COLOR",
    "observability/terminal.py": "COLUMNS",
    "pipeline/outbox/directory.py": "directories of systemd and of the user",
    "pipeline/command/tool_rules.py": "the file of an identity at Google, to hide it",
    "tools/http/tokens.py": "an identity at Google",
    "tools/kinds/secrets/secrets.py": "the project of an identity at Google",
    "tools/sources/s3_object.py": "an identity at Amazon",
    "tools/sources/web_sources.py": "an emulator of Google's storage",
    "tools/kinds/container/cluster.py": "the cluster that the worker runs in",
    "tools/process/process.py": "what commands have of it",
    "tools/process/own_logins.py": "keeps the worker's logins from libraries",
    "tools/kinds/python/python.py": "PYTHONPATH, for commands",
    "tools/kinds/rhai/rhai.py": "proxies, for commands",
    "tools/kinds/duckdb/session.py": "proxies, for commands",
    "tools/kinds/duckdb/child.py": "the process of a command: its own",
    "tools/kinds/duckdb/prepared.py": "the process of a command: what its instance was opened with",
    "tools/python/python_command.py": "the process of a command: its own",
}
"""Who reads the environment, and for what."""
WRITERS = {
    "settings/settings.py",  # the engine of a flag or a `.env`
    "process/handed_down.py",
    "process/sealed_environment.py",
    "tools/kinds/duckdb/child.py",
    "tools/python/python_command.py",
}
AS_A_PROCESS = {
    "integration/test_doctor.py",
    "security/test_secrets_of_the_worker.py",
    "tools/test_python.py",
    "tools/test_shell.py",
}
"""Tests of the environment itself: which engine it names, and what of it a command does not have."""
VARIABLES = {name for line in SETTINGS for name in line.names}


def is_environment(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in ("environ", "environb", "getenv", "putenv")


def writes(node: ast.AST) -> bool:
    """Whether it changes `os.environ`: an item set or deleted, or one of its methods called."""
    if isinstance(node, ast.Subscript):
        return is_environment(node.value) and isinstance(node.ctx, ast.Store | ast.Del)
    changes = ("update", "pop", "clear", "setdefault", "popitem")
    return isinstance(node, ast.Attribute) and node.attr in changes and is_environment(node.value)


@cache
def nodes(file: Path) -> tuple[ast.AST, ...]:
    text = file.read_text(encoding="utf-8")
    return tuple(ast.walk(ast.parse(text))) if re.search("environ|getenv|putenv", text) else ()


def files_with(rule: Callable[[ast.AST], bool]) -> set[str]:
    return {file.relative_to(PACKAGE).as_posix() for file in PACKAGE.rglob("*.py") if any(map(rule, nodes(file)))}


def test_environment_is_read_by_those_who_are_listed() -> None:
    assert files_with(is_environment) == set(READERS)


def test_environment_is_changed_by_those_who_are_listed() -> None:
    assert files_with(writes) == WRITERS


def test_tests_give_settings_as_values() -> None:
    """Not by the environment of the process that they share."""
    found = [
        f"{name} in {file.name}"
        for file in TESTS.rglob("*.py")
        if file.relative_to(TESTS).as_posix() not in AS_A_PROCESS
        for name in re.findall(r"""setenv\(\s*["'](\w+)["']""", file.read_text(encoding="utf-8"))
        if name in VARIABLES or find_family(name) is not None
    ]
    assert found == []
