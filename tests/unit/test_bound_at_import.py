"""Nothing of the machine is bound when a file is imported: a clock, a variable, a directory, a locale, a user.

Read from the syntax trees. What is looked up late is what a test, a simulation or a changed environment says then.
"""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
OF_THE_MACHINE: Final = frozenset(
    {
        *("time.monotonic", "time.monotonic_ns", "time.time", "time.time_ns", "time.perf_counter", "time.localtime"),
        *("time.perf_counter_ns", "time.timezone", "datetime.now", "datetime.utcnow", "date.today"),
        *("os.environ", "os.environb", "os.getenv", "os.getcwd", "Path.cwd", "Path.home", "tempfile.gettempdir"),
        *("os.getuid", "os.geteuid", "os.getgid", "os.getegid", "os.getlogin", "getpass.getuser"),
        *("socket.gethostname", "os.uname", "platform.node", "os.cpu_count", "os.sched_getaffinity"),
        *("locale.getlocale", "locale.getpreferredencoding", "locale.localeconv"),
    }
)
EXPANDS: Final = "expanduser"
"""A method of any path."""
MAY_BIND: Final = re.compile(
    "|".join([*map(re.escape, OF_THE_MACHINE), EXPANDS, *(f"from {one.partition('.')[0]} " for one in OF_THE_MACHINE)])
)
"""In the text of a file that is worth a look at its tree."""
BOUND: Final = {
    "python/noetl_worker/engine/chosen.py": (1, "the engine is chosen once: its functions are imported by name"),
    "python/noetl_worker/tools/python/python_command.py": (1, "the template process: its variables are its commands'"),
    "tests/faults/inside/sitecustomize.py": (3, "a worker process starts with it: it is told there what to change"),
    "tests/holds.py": (1, "what the Makefile says to the run"),
    "tests/faults/test_mixed_soak.py": (1, "what a person says to the run"),
    "tests/faults/test_upgrade.py": (2, "what the Makefile says to the run"),
    "tests/loop_guard.py": (1, "what a person says to the run"),
    "tests/security/test_outbox_owner.py": (1, "a skip: a run has one user"),
    "tests/security/test_resource_shortage.py": (2, "a skip: a run has one user"),
}
"""Files that bind some, how often, and why that is right."""


def at_import(module: ast.AST) -> Iterator[ast.AST]:
    """All that runs when the file is imported: not the bodies of functions, but their defaults and decorators."""
    waiting = [module]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            waiting += [*node.args.defaults, *filter(None, node.args.kw_defaults)]
            waiting += [] if isinstance(node, ast.Lambda) else node.decorator_list
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "__name__ == '__main__'"):
            waiting += ast.iter_child_nodes(node)


def is_of_the_machine(node: ast.Attribute) -> bool:
    owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
    return f"{owner}.{node.attr}" in OF_THE_MACHINE or node.attr == EXPANDS


def bound(text: str) -> Iterator[int]:
    """Lines at which a file binds something of the machine, or imports it by its own name: that binds it too."""
    if not MAY_BIND.search(text):
        return
    tree = ast.parse(text)
    for node in at_import(tree):
        if isinstance(node, ast.Attribute) and is_of_the_machine(node):
            yield node.lineno
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            yield from (node.lineno for alias in node.names if f"{node.module}.{alias.name}" in OF_THE_MACHINE)


def test_nothing_of_the_machine_is_bound_at_import() -> None:
    files = (path for folder in ("python", "tests", "build_backend") for path in (ROOT / folder).rglob("*.py"))
    found = Counter(
        path.relative_to(ROOT).as_posix() for path in files for _ in bound(path.read_text(encoding="utf-8"))
    )
    assert dict(found) == {name: count for name, (count, _) in BOUND.items()}
