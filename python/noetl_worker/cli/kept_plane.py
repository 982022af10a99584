"""A temporary control plane with a kept run of `dev`, for commands that ask a control plane."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from noetl_worker.cli.setting_flags import SettingFlags
from noetl_worker.errors import NoetlWorkerError, TransportError
from noetl_worker.observability.terminal import say
from noetl_worker.pipeline.outbox.dev_token import find_token_file
from noetl_worker.pipeline.outbox.directory import state_directory
from noetl_worker.settings.settings import Settings, load_settings
from noetl_worker.text.json_text import loads

if TYPE_CHECKING:
    from noetl_worker.authoring.dev.event_log import CommandRow
    from noetl_worker.authoring.dev.kept.runs import KeptRow


class KeptPlane(NamedTuple):
    flags: SettingFlags
    """Flags that point a command at this plane."""
    name: str
    """The command's id if a command or event was named, else the id asked for; for `last`, the newest run's."""
    command: CommandRow | None
    """The named command, or the command of the named event."""
    newest_command: CommandRow | None
    """The newest command of the named execution, else None."""
    is_interrupted: bool
    """True if the run was interrupted while commands were running; its events do not show this."""


@asynccontextmanager
async def kept_plane(name: str) -> AsyncIterator[KeptPlane | None]:
    """Provide a plane with the kept run of this id (execution, command, event, or `last`).

    Yield None without a kept run. If the block then asks the control plane in vain, its TransportError also says that
    no run was kept.
    """
    name, rows = _found(name)
    if not rows:
        try:
            yield None
        except TransportError as error:
            text = f"no kept run of dev has the id {name}, and no control plane answers (NOETL_SERVER_URL): {error}"
            raise type(error)(text) from error
        return
    from noetl_worker.authoring.dev.kept.rows import serve_stored_run

    async with serve_stored_run(rows) as plane:
        # Not asked which plane it is: without NATS, which it has none of, it calls itself unhealthy.
        flags: SettingFlags = {
            "NOETL_SERVER_URL": plane.url,
            "NOETL_CONTROL_PLANE": plane.dialect.value,
            "NOETL_INTERNAL_API_TOKEN": plane.settings.token,
            "NOETL_INTERNAL_API_TOKEN_FILE": None,  # one that was given is for another plane
        }
        ref = next((loads(row.contents)["plain"].get("command_ref") for row in rows if row.id == name), None)
        command = plane.log.command_by_ref(str(ref))
        issued = plane.log.execution_commands(int(name)) if name.isdecimal() else []
        newest = issued[-1] if issued else None
        root = next(loads(row.contents)["plain"] for row in rows if row.kind == "executions")
        is_interrupted = root["status"] == "RUNNING" and not root["stands_still"]
        yield KeptPlane(flags, command.command_ref if command else name, command, newest, is_interrupted)


def settings_to_ask(flags: SettingFlags, kept: KeptPlane | None) -> Settings:
    """Read the settings of a command that asks the kept run, else the control plane that they name.

    A `dev` of this user that runs there is asked with its token, unless another one is set.
    """
    settings = load_settings(flags={**flags, **kept.flags} if kept else flags)
    if settings.internal_api_token:
        return settings
    try:
        file = find_token_file(settings.server_url)
    except OSError as error:
        say(f"noetl-worker: the token of dev cannot be read: {error}", err=True)
        return settings
    return load_settings(flags={**flags, "NOETL_INTERNAL_API_TOKEN_FILE": str(file)}) if file else settings


def _found(name: str) -> tuple[str, Sequence[KeptRow]]:
    """Return the id and the rows of its run; `last` stands for the newest run's id."""
    try:
        if not state_directory("dev").exists():  # avoids loading the needs of `dev`, maybe not installed
            return name, ()
        from noetl_worker.authoring.dev.kept.runs import LAST, KeptRuns

        kept = KeptRuns()
        name = str(next(iter(kept.newest(1)), name)) if name == LAST else name
        return name, kept.find(name)
    except (NoetlWorkerError, OSError, sqlite3.Error, ModuleNotFoundError) as error:
        say(f"noetl-worker: the kept runs of dev cannot be asked: {error}", err=True)
        return name, ()
