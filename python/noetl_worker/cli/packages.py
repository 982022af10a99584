"""`noetl-worker packages`: install the packages of python steps before a worker runs, list and remove them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import EXIT_FAILED, require_posix, with_extra_local
from noetl_worker.errors import NoetlWorkerError, PlaybookError
from noetl_worker.observability.terminal import counted, say, say_json
from noetl_worker.process import event_loop
from noetl_worker.settings.settings import Settings, load_settings

if TYPE_CHECKING:
    from noetl_worker.tools.kinds.python.packages.store import PackageStore, StoredEnvironment

_SHOWN: Final = ("python_packages", "packages_dir", "packages_mb", "uv_config", "pythons")
_READ: Final = ("code", "code_b64", "script", "deps", "python")
"""Fields of a python step that determine its packages and interpreter, including its code, which may name packages."""

app = typer.Typer(
    help="Packages of python steps: install them before a worker runs, list and remove them.",
    no_args_is_help=True,
)


@app.command("prefetch")
@with_setting_flags(shown=_SHOWN)
def prefetch(
    flags: SettingFlags,
    playbooks: Annotated[list[Path], typer.Argument(metavar="PLAYBOOK...", help="Playbooks, or folders of them.")],
) -> None:
    """Install the packages that playbooks name, for example into an image. Runs no step.

    The worker must run with the same interpreter and the same
    NOETL_WORKER_PYTHON_PACKAGES.

    Exit codes: 0 all packages are installed; 1 a step lacks packages; 2 a setting
    or a file is wrong.
    """
    require_posix()
    with with_extra_local():
        steps = list(_steps(playbooks))
    failed = event_loop.run(_prefetch(load_settings(flags=flags), steps))
    raise typer.Exit(EXIT_FAILED if failed else 0)


@app.command("list")
@with_setting_flags(shown=_SHOWN)
def list_(
    flags: SettingFlags,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array.")] = False,
) -> None:
    """List the installed environments with packages, the most recently used first."""
    require_posix()
    kept = _store(load_settings(flags=flags)).environments()[::-1]
    if as_json:
        say_json([_as_json(one) for one in kept])
        return
    for one in kept:
        used = time.strftime("%Y-%m-%d %H:%M", time.localtime(one.used_at))
        say(f"{used}  {_mib(one.size):>5} MiB  python {one.python:<8} {', '.join(one.requirements)}")
    say(_sum(kept), err=True)


@app.command("clean")
@with_setting_flags(shown=_SHOWN)
def clean(flags: SettingFlags) -> None:
    """Remove the packages that no worker uses at the moment.

    A later step that needs removed packages resolves its requirements again, and
    installs the versions that are newest then.
    """
    require_posix()
    event_loop.run(_clean(_store(load_settings(flags=flags))))


async def _clean(store: PackageStore) -> None:
    store.check()
    async with store.turn():
        store.forget_locks()
        removed = store.make_room(0)
    say(f"removed: {_sum(removed)}")
    if in_use := store.environments():
        say(f"in use, not removed: {_sum(in_use)}")


async def _prefetch(settings: Settings, steps: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
    """Install the packages of each step. Return the number of steps whose packages could not be installed."""
    from noetl_worker.pipeline.command.tool_rules import make_registry
    from noetl_worker.tools import fields
    from noetl_worker.tools.kinds.python.python import PythonConfig, PythonTool
    from noetl_worker.tools.memory_context import tool_context

    registry, failed = make_registry(settings), 0
    tool = registry.get("python")
    assert isinstance(tool, PythonTool)
    try:
        for name, config in steps:
            context = tool_context(registry=registry, kind="python")
            try:
                decoded = fields.decode("python", PythonConfig, config, config, tool.field_aliases)
                found = await tool.prefetch(decoded, context)
            except NoetlWorkerError as error:
                say(f"{name}: {error}", err=True)
                failed += 1
            else:
                if found:
                    say(f"{name}: {', '.join(found)}")
    finally:
        await registry.aclose()
    return failed


def _steps(paths: Sequence[Path]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each python step of playbooks: its position `FILE:LINE`, and the fields that determine its packages.

    A step whose packages depend on templates is skipped, with a message to the user.
    """
    from noetl_worker.authoring.dev.positions import read_text
    from noetl_worker.authoring.lint.files import playbooks_in
    from noetl_worker.authoring.outline import mapping, tool_parts
    from noetl_worker.text.templates.template import has_template

    for file, text in playbooks_in(paths):
        playbook = read_text(text)
        if playbook.unreadable is not None:
            raise PlaybookError(f"{file}: {playbook.unreadable.reason}; noetl-worker check {file} shows where")
        for part in tool_parts(mapping(playbook.value)):
            whole = {**mapping(part.config.get("spec")), **part.config}
            config: dict[str, Any] = {name: whole[name] for name in _READ if name in whole}
            if part.kind != "python":
                continue
            name = f"{file}:{playbook.value_place(part.path).line}"
            if has_template({key: value for key, value in config.items() if key != "code"}):
                say(f"{name}: left out, since templates decide on its packages", err=True)
            else:
                yield name, config


def _store(settings: Settings) -> PackageStore:
    from noetl_worker.pipeline.command.tool_rules import make_tool_settings
    from noetl_worker.tools.kinds.python.packages.store import PackageStore

    return PackageStore(Path(make_tool_settings(settings).packages_dir))


def _as_json(one: StoredEnvironment) -> dict[str, Any]:
    return {
        "path": str(one.path),
        "requirements": list(one.requirements),
        "python": one.python,
        "packages": one.packages,
        "bytes": one.size,
        "used_at": one.used_at,
    }


def _sum(environments: Sequence[StoredEnvironment]) -> str:
    return f"{counted(len(environments), 'environment')}, {_mib(sum(one.size for one in environments))} MiB"


def _mib(size: int) -> int:
    return round(size / (1 << 20))
