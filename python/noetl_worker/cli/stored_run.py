"""A temporary control plane that serves a stored run of `dev`, so that `report`, `why` and `replay` can read it."""

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
    from noetl_worker.authoring.dev.stored_runs.runs import StoredRow


class StoredRunPlane(NamedTuple):
    flags: SettingFlags
    """Settings with which a CLI command connects to the plane that was started for a stored run: address, dialect,
    token."""
    name: str
    """Id of the command, if the user gave the id of a command or event; else the execution's id."""
    command: CommandRow | None
    """The command that the user named by its id or the id of one of its events; None for the id of an execution."""
    newest_command: CommandRow | None
    """The newest command, if the user gave the id of an execution. None for any other id, or if there is no command."""
    is_interrupted: bool
    """True if the stored run was interrupted before it ended. The events of the run do not show this."""


@asynccontextmanager
async def stored_run_plane(name: str) -> AsyncIterator[StoredRunPlane | None]:
    """Provide, for a `with` block, a control plane that serves the stored run of `dev` with this id.

    Yield None if no stored run has the id. A TransportError that the block then raises also mentions the missing run.

    Args:
        name: id of an execution, a command or an event, or `last` for the newest run.
    """
    name, rows = _find_run(name)
    if not rows:
        try:
            yield None
        except TransportError as error:
            text = f"no stored run of dev has the id {name}, and no control plane answers (NOETL_SERVER_URL): {error}"
            raise type(error)(text) from error
        return
    from noetl_worker.authoring.dev.stored_runs.rows import serve_stored_run

    async with serve_stored_run(rows) as plane:
        # The dialect is given and not asked for: this plane has no NATS, so its /api/health says it is unhealthy.
        flags: SettingFlags = {
            "NOETL_SERVER_URL": plane.url,
            "NOETL_CONTROL_PLANE": plane.dialect.value,
            "NOETL_INTERNAL_API_TOKEN": plane.settings.token,
            "NOETL_INTERNAL_API_TOKEN_FILE": None,  # a given file has the token of another plane
        }
        ref = next((loads(row.contents)["plain"].get("command_ref") for row in rows if row.id == name), None)
        command = plane.log.command_by_ref(str(ref))
        issued = plane.log.execution_commands(int(name)) if name.isdecimal() else []
        newest = issued[-1] if issued else None
        root = next(loads(row.contents)["plain"] for row in rows if row.kind == "executions")
        is_interrupted = root["status"] == "RUNNING" and not root["stands_still"]
        yield StoredRunPlane(flags, command.command_ref if command else name, command, newest, is_interrupted)


def settings_to_ask(flags: SettingFlags, stored: StoredRunPlane | None) -> Settings:
    """Return the settings for requests to a plane: the plane in `stored`, or else the control plane named in `flags`.

    If the plane in `flags` is a running `dev` of this user, the settings get its token, unless `flags` have a token.

    Args:
        stored: the temporary plane that serves an earlier run of `dev` from disk, or None.
    """
    settings = load_settings(flags={**flags, **stored.flags} if stored else flags)
    if settings.internal_api_token:
        return settings
    try:
        file = find_token_file(settings.server_url)
    except OSError as error:
        say(f"noetl-worker: the token of dev cannot be read, so it is not sent: {error}", err=True)
        return settings
    return load_settings(flags={**flags, "NOETL_INTERNAL_API_TOKEN_FILE": str(file)}) if file else settings


def _find_run(name: str) -> tuple[str, Sequence[StoredRow]]:
    """Find the stored run of `dev` that contains an id. Return the id and the run's stored rows.

    A row is, for example, a command or an event of the run. There are no rows if no run is found.

    The name `last` is replaced by the id of the newest run.
    """
    try:
        if not state_directory("dev").exists():  # else libraries of `dev` are loaded, which may be missing
            return name, ()
        from noetl_worker.authoring.dev.stored_runs.runs import LAST, StoredRuns

        stored = StoredRuns()
        name = str(next(iter(stored.newest(1)), name)) if name == LAST else name
        return name, stored.find(name)
    except (NoetlWorkerError, OSError, sqlite3.Error, ModuleNotFoundError) as error:
        say(f"noetl-worker: the stored runs of dev cannot be read, so the control plane is asked: {error}", err=True)
        return name, ()
