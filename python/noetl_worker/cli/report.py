"""`noetl-worker report ID`: write one execution as an HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import EXIT_UNKNOWN, redacted_text, run_quietly
from noetl_worker.errors import PlaybookError, ServerRefused, SettingsError
from noetl_worker.observability.terminal import counted, say
from noetl_worker.settings.settings import Settings

if TYPE_CHECKING:
    from noetl_worker.authoring.run_page.run import ExecutionRun

_SERVER: Final = "NOETL_SERVER_URL"
_STDOUT: Final = Path("-")


@with_setting_flags(shown=("control_plane",))
def report(
    flags: SettingFlags,
    execution_id: Annotated[
        str, typer.Argument(metavar="ID", help="Id of an execution, of `dev` too; `last` is the newest run of `dev`.")
    ],
    server_url: Annotated[
        str | None, typer.Option("--server", "--server-url", metavar="URL", help=f"The control plane. {_SERVER}")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Default: run-ID.html; - is standard output."),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against", metavar="OTHER", help="Second execution, to show beside the first with what differs."
        ),
    ] = None,
) -> None:
    """Write one HTML page from the events of an execution: the graph with the steps
    that ran, a timeline, and for each command its input, output, printed lines,
    error, attempts and worker. Values are redacted.

    The page loads nothing: it can be kept, sent and printed. All events are read
    from the control plane, and nothing is changed there. Without --server a stored
    run of `dev` is searched first; if one has the ID, the plane is not asked.

    Exit codes: 0 the page is written; 2 a setting or the file is wrong; 3 no
    control plane; 5 the plane knows no such execution.
    """
    try:
        run_quietly(_report({**flags, _SERVER: server_url}, execution_id.strip(), output, against))
    except OSError as error:
        raise PlaybookError(f"{error.filename}: {error.strerror}; name a file that can be written") from error
    except ServerRefused as error:
        if not error.is_not_found:
            raise
        names = f"{execution_id} or {against}" if against else execution_id
        unknown = f"the control plane knows no execution {names} ({redacted_text(error)})"
        say(f"noetl-worker report: {unknown}", err=True)
        raise typer.Exit(EXIT_UNKNOWN) from None


async def _report(flags: SettingFlags, name: str, output: Path | None, against: str | None) -> None:
    run, secrets = await _read(flags, name, "ID")
    other, _ = await _read(flags, against.strip(), "--against") if against is not None else (None, ())
    _write(run, secrets, output or Path(f"run-{run.execution_id}.html"), other)


async def _read(flags: SettingFlags, name: str, source: str) -> tuple[ExecutionRun, Sequence[str]]:
    """Read an execution from the stored runs of `dev`, or else from the control plane. Return the execution, and the
    secrets of the settings.

    Args:
        name: id of the execution, or `last` for the newest stored run.
        source: command-line argument that gave `name`, to be named in errors.
    """
    from noetl_worker.cli.stored_run import settings_to_ask, stored_run_plane

    async with stored_run_plane(name) if flags[_SERVER] is None else nullcontext() as stored:
        name = stored.name if stored else name
        if not name.isdecimal() or (stored and stored.command):
            raise SettingsError(source, name, "the id of an execution, or `last` if a run of `dev` is stored")
        settings = settings_to_ask(flags, stored)
        return await _read_run(settings, int(name), is_interrupted=stored is not None and stored.is_interrupted)


async def _read_run(
    settings: Settings, execution_id: int, *, is_interrupted: bool
) -> tuple[ExecutionRun, Sequence[str]]:
    from noetl_worker.authoring.run_page.reading import read_run

    run = await read_run(settings, execution_id)
    if is_interrupted and run.status == "RUNNING":
        run.status = "INTERRUPTED"
    return run, settings.secrets()


async def write_report(settings: Settings, execution_id: int, file: Path) -> None:
    """Read an execution from the plane, and write its HTML page to a file. Print a summary line on standard error.

    Raises:
        ControlPlaneError: the plane cannot be reached, or knows no such execution.
        OSError: the file cannot be written.
    """
    _write(*await _read_run(settings, execution_id, is_interrupted=False), file)


def _write(run: ExecutionRun, secrets: Sequence[str], file: Path, against: ExecutionRun | None = None) -> None:
    from noetl_worker.authoring.run_page.page import render_page

    page = render_page(run, secrets, against=against)
    if file == _STDOUT:
        say(page, nl=False)
        return
    file.write_text(page, encoding="utf-8")
    commands, size = counted(len(run.commands), "command"), f"{len(page.encode()) / 1000:,.0f} kB"
    state = f"{run.status} ({run.inferred})" if run.inferred else run.status
    say(f"{file}: {run.path} {state}, {commands}, {size}", err=True)
