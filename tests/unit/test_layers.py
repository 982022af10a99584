"""The import rules of ARCHITECTURE.md, read from the syntax trees."""

from __future__ import annotations

import ast
import os
import runpy
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from functools import cache
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__, "../../../python/noetl_worker").resolve()

# From the ground up: a room imports those before it, and none after it.
ROOMS = """
models process settings engine text observability remote bridge tools pipeline worker authoring cli testing
"""
BESIDE = {
    "errors": "models",
    "_core": "engine",
    "template": "text",
    "envelope": "engine",
    "cases": "pipeline",
    "event_set": "pipeline",
    "__main__": "testing",
}
"""Module beside the rooms -> the room that it stands beside."""
DECIDERS = (
    "remote.plane.python",
    "remote.plane.rust",
    "worker.recovery.python_outcomes",
    "worker.recovery.rust_outcomes",
    "authoring.run_page.reading",
    "authoring.dev",
    "cli.dev",
)
"""Modules that may ask which of the two planes it is."""
STAGES = {  # a stage imports no other stage
    "remote.jetstream.puller": "receiving",
    "pipeline.delivery.keepalive": "receiving",
    "pipeline.claim": "claiming",
    "pipeline.command.command": "preparing",
    "pipeline.command.referred_results": "preparing",
    "tools": "running",
    "pipeline.command.cases": "deciding",
    "pipeline.command.case_actions": "deciding",
    "pipeline.report": "reporting",
    "pipeline.outbox": "reporting",
    "pipeline.delivery.acknowledge": "answering",
    "pipeline.delivery.dead_letter": "answering",
    "pipeline.delivery.settle": "answering",
}


def longest(name: str, known: Iterable[str]) -> str | None:
    """The entry that a dotted name belongs to: its own, else its package's."""
    return max((one for one in known if name == one or name.startswith(f"{one}.")), key=len, default=None)


PLACES = {name: number for number, name in enumerate(ROOMS.split())}


def package(module: str) -> str:
    return module.partition(".")[0]


def level(module: str) -> int:
    room = package(module)
    assert room in PLACES or room in BESIDE, f"{module} is in no room"
    return PLACES[BESIDE.get(room, room)]


def stage(module: str) -> str | None:
    found = longest(module, STAGES)
    return STAGES[found] if found is not None else None


LOOKED_AT = (ast.If, ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Attribute)


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Of a file, those that a rule below reads."""
    return tuple(node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, LOOKED_AT))


@cache
def imports(path: Path, *, at_run_time: bool = False) -> frozenset[str]:
    """What a file imports; with `at_run_time` without what it imports for its annotations alone."""
    not_run = {
        inner
        for node in nodes(path)
        if at_run_time and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    found: set[str] = set()
    for node in nodes(path):
        if node in not_run:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            is_package = (PACKAGE.parent / node.module.replace(".", "/")).is_dir()
            found.update([f"{node.module}.{alias.name}" for alias in node.names] if is_package else [node.module])
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return frozenset(found)


def own(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")


def sources() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def inner(path: Path, *, at_run_time: bool = False) -> set[str]:
    """What a file imports of ours, without the package's name."""
    found = imports(path, at_run_time=at_run_time)
    names = {name.removeprefix("noetl_worker.") for name in found if name.startswith("noetl_worker.")}
    return names - {"__version__"}


def test_imports_go_downwards_only() -> None:
    wrong = [
        f"{own(path)} imports {name}"
        for path in sources()
        for name in inner(path, at_run_time=own(path) == "errors")
        if level(name) > level(own(path))
    ]
    assert wrong == []


def test_a_stage_imports_no_other_stage() -> None:
    wrong = [
        f"{own(path)} imports {name}"
        for path in sources()
        if (mine := stage(own(path))) is not None
        for name in inner(path)
        if stage(name) not in (None, mine)
    ]
    assert wrong == []


def beside_each_other(path: Path, name: str) -> tuple[str, str, str] | None:
    """Return the folder in which the ways of a file and of what it imports part, and its two entries."""
    mine, wanted = own(path).split("."), name.split(".")
    depth = next((n for n, (one, other) in enumerate(zip(mine, wanted, strict=False)) if one != other), None)
    return None if depth is None else (".".join(mine[:depth]), mine[depth], wanted[depth])


def test_nothing_in_a_folder_imports_what_imports_it_directly_or_round_about() -> None:
    """Rooms, their folders, and files beside folders; imports within functions, and for annotations, count too."""
    graphs: dict[str, dict[str, set[str]]] = {}
    for path in sources():
        for name in inner(path):
            if (found := beside_each_other(path, name)) is not None:
                folder, one, other = found
                graphs.setdefault(folder, {}).setdefault(one, set()).add(other)
    for graph in graphs.values():
        TopologicalSorter(graph).prepare()
    assert {"", "remote", "remote.plane", "tools", "tools.kinds", "authoring.dev", "cli"} <= set(graphs)


def test_no_module_imports_one_that_imports_it() -> None:
    """Imports within functions count: they only put it off."""
    known = {own(path) for path in sources()}
    graph = {
        own(path): {longest(name, known) for name in inner(path, at_run_time=True)} - {own(path), None}
        for path in sources()
    }
    TopologicalSorter(graph).prepare()


def test_ground_floor_has_the_rooms_and_a_few_public_modules() -> None:
    folders = {path.parent.name for path in PACKAGE.glob("*/*.py")}
    assert folders == set(PLACES)
    assert {path.stem for path in PACKAGE.glob("*.py*")} == {*BESIDE, "__init__"}


def test_picture_of_the_rooms_is_what_the_imports_give() -> None:
    """`make docs` writes it."""
    docs = PACKAGE.parents[1] / "docs"
    drawn = runpy.run_path(str(docs / "draw_rooms.py"))
    assert drawn["picture"]() == (docs / "rooms.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("public", "home"),
    [
        ("cases", "pipeline.command.cases"),
        ("event_set", "pipeline.outbox.event_set"),
        ("template", "text.templates.template"),
    ],
)
def test_public_name_of_a_module_that_moved_still_works(public: str, home: str) -> None:
    by_name, at_home = import_module(f"noetl_worker.{public}"), import_module(f"noetl_worker.{home}")
    assert by_name.__all__ == at_home.__all__
    assert all(getattr(by_name, name) is getattr(at_home, name) for name in at_home.__all__)


def test_nats_is_imported_only_where_it_is_spoken() -> None:
    allowed = (
        "remote.jetstream",
        "bridge",
        "pipeline.delivery.keepalive",
        "worker",
        "authoring.dev",
        "tools.kinds.nats",
    )
    wrong = [
        own(path)
        for path in sources()
        if any(name.split(".")[0] == "nats" for name in imports(path)) and longest(own(path), allowed) is None
    ]
    assert wrong == []


def test_a_tool_reaches_the_worker_through_its_context_alone() -> None:
    below = ["tools", "models", "errors", "text.json_text", "text.answer_text", "engine.short_keys"]
    below += ["text.secrets.auth_alias", "process.threads", "process.lookups", "process.room"]
    below += ["settings.networks", "settings.patterns", "settings.tools", "remote.transport.url_path"]
    calls = {
        "tools.registry",
        "tools.deadline",
        "tools.fields",
        "tools.policy",
        "tools.memory_context",
        "tools.process.live_output",
        "tools.kinds.task_sequence.task_sequence",
    }
    own_ways = {"tools.kinds.rhai": ["_core"], "tools.kinds.nats": ["remote.jetstream.client"]}
    own_ways["tools.http"] = ["remote.transport.connection", "remote.transport.h11_parser"]
    wrong: list[str] = []
    for path in (PACKAGE / "tools").rglob("*.py"):
        if (name := own(path)) not in calls:
            allowed = [*below, *own_ways.get(longest(name, own_ways) or "", ())]
            wrong += [f"{name} imports {one}" for one in inner(path) if longest(one, allowed) is None]
    assert wrong == []


def test_no_file_has_a_name_that_says_nothing() -> None:
    banned = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "base"}
    assert [path.name for path in sources() if path.stem in banned] == []


def test_no_class_name_stands_twice() -> None:
    """Twins of the two engines share theirs; `_core.pyi` has those of the compiled one."""
    named = Counter(node.name for path in sources() for node in nodes(path) if isinstance(node, ast.ClassDef))
    assert {name: times for name, times in named.items() if times > 1} == {}


def test_files_and_functions_stay_readable() -> None:
    long = []
    for path in sources():
        if (lines := len(path.read_text().splitlines())) > 500:
            long.append(f"{path.relative_to(PACKAGE)}: {lines} lines")
        for node in nodes(path):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
                lines = node.end_lineno - node.lineno
                if lines > 60:
                    long.append(f"{path.relative_to(PACKAGE)}:{node.name}: {lines} lines")
    assert long == []


def test_no_file_of_the_tests_is_longer_than_500_lines() -> None:
    tests = Path(__file__, "../..").resolve()
    lines = {path.relative_to(tests).as_posix(): len(path.read_text().splitlines()) for path in tests.rglob("*.py")}
    assert {name: number for name, number in lines.items() if number > 500} == {}


def test_which_plane_it_is_decides_in_the_files_of_the_dialects_alone() -> None:
    """Everybody else reads what they decide; the development plane is a stand-in of its own."""
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in sources()
        if longest(own(path), DECIDERS) is None
        for node in nodes(path)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "Dialect"
        if node.attr in ("PYTHON", "RUST")
    ]
    assert found == []


def test_server_library_is_the_development_planes_alone() -> None:
    """It is in the extra `local`: a worker is installed without it."""
    servers = {"starlette", "uvicorn"}
    found = {own(path) for path in sources() if servers & {package(module) for module in imports(path)}}
    assert {module.rpartition(".")[0] for module in found} <= {"authoring.dev", "authoring.dev.server"}


def loaded_by(code: str, *flags: str, env: dict[str, str] | None = None) -> set[str]:
    """The modules that a new interpreter has after this code, and the packages that they are of."""
    whole = f"import sys; {code}; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, *flags, "-c", whole], capture_output=True, text=True, check=False, env=env)
    assert done.stderr == ""
    modules = ast.literal_eval(done.stdout)
    return {*modules, *map(package, modules)}


MADE = (
    "from noetl_worker.worker.worker import Worker; from noetl_worker.settings.settings import load_settings; "
    "Worker(load_settings(environment={}))"
)


def test_what_the_first_pull_does_not_need_is_not_loaded_at_the_start() -> None:
    later = {"httpx", "httpcore", "h11", "uvicorn", "starlette", "mashumaro", "opentelemetry", "click"}
    assert loaded_by(f"import noetl_worker.cli; {MADE}") & later == set()


def test_worker_that_is_started_without_a_flag_loads_no_command_line() -> None:
    """As containers start it. What reads flags is a sixth of its memory."""
    never = {"typer", "pydantic", "pydantic_core", "annotated_types", "rich", "pygments", "httpx", "mashumaro"}
    loaded = loaded_by(f"from noetl_worker.__main__ import worker_alone; worker_alone(); {MADE}")
    assert loaded & {*never, "noetl_worker.cli"} == set()


def test_first_start_of_a_worker_loads_nothing_but_itself() -> None:
    """What is under `-S` has no `site` in it, which differs by installation."""
    ours = {"noetl_worker", "noetl_worker.__main__", "noetl_worker.process", "noetl_worker.process.sealed_environment"}
    of_python = {"__future__", "_collections_abc", "_stat", "gc", "genericpath", "os", "os.path", "posixpath", "stat"}
    env = {"PYTHONPATH": str(PACKAGE.parent)}
    loaded = loaded_by("import noetl_worker.__main__", "-S", env=env) - loaded_by("pass", "-S", env=env)
    assert loaded <= ours | of_python


REFUSED_AFTER_ITS_START = """
import gc
gc.disable()
from noetl_worker.errors import SettingsError
from noetl_worker.worker.worker import Worker
from noetl_worker.worker.worker_process import run_process

async def run(worker):
    raise SettingsError("A", "b", "c")

Worker.run = run
print(run_process({}), gc.isenabled(), gc.get_freeze_count() > 0)
"""


@pytest.mark.parametrize("processes", ["1", "2"])
def test_collector_that_a_start_does_without_runs_again_once_it_has_loaded(processes: str) -> None:
    """A worker that is refused, a supervisor whose port is taken: both had loaded all that they need."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        bind = f"127.0.0.1:{taken.getsockname()[1]}"
        done = subprocess.run(
            [sys.executable, "-c", REFUSED_AFTER_ITS_START],
            env={**os.environ, "WORKER_METRICS_BIND": bind, "NOETL_WORKER_PROCESSES": processes},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.stdout.splitlines()[-1].split() == ["2", "True", "True"], done.stderr
