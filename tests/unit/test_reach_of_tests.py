"""How far the tests reach into the package, read from their syntax trees: what they do has a reason each."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).parents[1]
PACKAGE: Final = TESTS.parent / "python/noetl_worker"
LOOKED_AT: Final = (
    *(ast.Attribute, ast.Call, ast.ClassDef, ast.AsyncFunctionDef, ast.FunctionDef),
    *(ast.Import, ast.ImportFrom, ast.Name),
)
OF_NAMED_TUPLES: Final = frozenset({"_asdict", "_fields", "_make", "_replace"})
"""Public by Python's own documentation: the underscore keeps them apart from the fields."""
MOCKED: Final = ("mock.patch", "mock.patch.object")
Nodes = Sequence[ast.AST]

REPLACED_ATTRIBUTES: Final = {
    "bridge/test_claim_face.py": (2, "three heartbeats take 15 s, and the time of real sockets is not virtual"),
    "bridge/test_publish_face.py": (2, "limits of 10,000 records and 64 connections, met with few"),
    "engine/test_selection.py": (2, "another interpreter, and a build that was asked to be pure"),
    "integration/test_dead_letters.py": (1, "a worker with real servers looks once a minute"),
    "integration/test_delivery.py": (1, "a worker with real servers asks after 15 s, and their time is not virtual"),
    "integration/test_doctor.py": (2, "/sys/fs/cgroup belongs to the machine: a folder stands in for it"),
    "integration/test_pipeline.py": (2, "real servers: six deliveries take 48 minutes, and up to 30 s between them"),
    "integration/test_plane_without_nats.py": (2, "a worker with real servers asks once a minute"),
    "local/test_playbook_tests.py": (
        2,
        "an error that the engine has not, while a test begins in this process",
    ),
    "security/test_own_files.py": (3, "where the machine has its own token, and what its kernel can"),
    "security/test_process_count.py": (2, "/sys/fs/cgroup belongs to the machine: a folder stands in for it"),
    "security/test_rights_of_a_command.py": (1, "a system without Linux's calls"),
    "security/test_template_costs.py": (2, "a slow machine meets the limit of seconds before the one of work"),
    "simulate/broken.py": (17, "bugs that the product has on purpose: the simulation has to find each"),
    "simulate/clock.py": (1, "Python's own clocks and dice, by a table of them"),
    "simulate/worker_process.py": (5, "a simulated network, disk and thread, where a worker meets the world"),
    "tools/conftest.py": (1, "each call of a tool in each test of tools is looked at: what its errors are called"),
    "tools/test_nats_messages.py": (1, "a cancellation in the very step in which a pull has ended"),
    "unit/test_too_large.py": (1, "a result that is too large as it is stored takes seconds to make"),
    "tools/test_python_limits.py": (2, "a cancellation and a close in the very step in which a command has ended"),
}
"""Test files that replace attributes of the package, how many, and why no seam of the package does."""
OWN_RUNNERS: Final = {
    "integration/test_end_of_pulling.py": "a thread has a loop of its own while the test's stands still",
    "integration/test_no_secret_leaves.py": "Hypothesis plays its plans on one stage",
    "integration/test_page_commands.py": "a plane serves in a thread while bash runs",
    "security/test_secrets_of_the_worker.py": "a result that many tests look at; the loop is a parameter",
    "tools/test_nats_connections.py": "a tool is used on two loops, one after the other",
    "tools/test_postgres_pool.py": "a tool is used on two loops, one after the other",
    "unit/test_event_loop.py": "how a loop of either kind ends",
    "unit/test_threads.py": "which threads a worker's loop has, of either kind",
}
"""Test files that run a loop themselves. All others have `async def test_...`, and anyio's plug-in runs them."""


def nodes_of(path: Path) -> Nodes:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, LOOKED_AT)]


def files(having: str) -> Iterator[tuple[str, Nodes]]:
    """The files of the tests in whose text this pattern is: to look into all of them takes half a minute."""
    for path in TESTS.rglob("*.py"):
        if re.search(having, path.read_text(encoding="utf-8"), re.M):
            yield path.relative_to(TESTS).as_posix(), nodes_of(path)


def defined(nodes: Nodes) -> Iterator[str]:
    """Names that a file gives to functions, classes, variables and attributes."""
    for node in nodes:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            yield node.attr


def imported(nodes: Nodes) -> dict[str, str]:
    """By the name that a file uses: the module that it is from."""
    found: dict[str, str] = {}
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            found.update({alias.asname or alias.name: node.module or "" for alias in node.names})
        elif isinstance(node, ast.Import):
            found.update({alias.asname or alias.name.partition(".")[0]: alias.name for alias in node.names})
    return found


def may_be_ours(node: ast.expr, origin: dict[str, str]) -> bool:
    """Not so what is imported from elsewhere, and what a class of the tests has of itself."""
    text = ast.unparse(node)
    root = origin.get(text.partition(".")[0], "noetl_worker")
    return root.startswith("noetl_worker") and text not in ("self", "cls")


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def private_names(nodes: Nodes, of_package: frozenset[str]) -> Iterator[int]:
    """Lines at which a file uses a private name of the package."""
    foreign, origin = of_package - set(defined(nodes)) - OF_NAMED_TUPLES, imported(nodes)
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("noetl_worker"):
            yield from (node.lineno for alias in node.names if is_private(alias.name))
        elif isinstance(node, ast.Attribute) and node.attr in foreign and may_be_ours(node.value, origin):
            yield node.lineno


def replaced_attributes(nodes: Nodes) -> Iterator[int]:
    """Lines at which a file replaces an attribute of the package, or of an object of it."""
    origin = imported(nodes)
    for node in nodes:
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.args):
            continue
        if node.func.attr not in ("setattr", "delattr") and ast.unparse(node.func) not in MOCKED:
            continue
        target = node.args[0]
        named = str(target.value) if isinstance(target, ast.Constant) else None
        if may_be_ours(target, origin) if named is None else named.startswith("noetl_worker"):
            yield node.lineno


def runs_a_loop(nodes: Nodes) -> bool:
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    return any(
        node.attr == "run_until_complete"
        or (node.attr in ("run", "Runner") and ast.unparse(node.value) in ("asyncio", "anyio", "uvloop", "event_loop"))
        for node in attributes
    )


def test_tests_use_no_private_names() -> None:
    written = (defined(nodes_of(path)) for path in PACKAGE.rglob("*.py"))
    of_package = frozenset(name for names in written for name in names if is_private(name))
    private = files(r"\._[A-Za-z]|import.*\b_[A-Za-z]|^ +_\w+,$")
    found = [f"{name}:{line}" for name, nodes in private for line in private_names(nodes, of_package)]
    assert found == []


def test_tests_replace_attributes_only_where_no_seam_is() -> None:
    replacing = files("setattr|delattr|mock")
    found = {name: len(lines) for name, nodes in replacing if (lines := list(replaced_attributes(nodes)))}
    assert found == {name: count for name, (count, _) in REPLACED_ATTRIBUTES.items()}


def test_async_tests_are_run_by_the_plug_in() -> None:
    running = files(r"run_until_complete|\b(asyncio|anyio|uvloop|event_loop)\.(run|Runner)\b")
    found = {name for name, nodes in running if Path(name).name.startswith("test_") and runs_a_loop(nodes)}
    assert found == set(OWN_RUNNERS)
