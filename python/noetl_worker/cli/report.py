"""`noetl-worker report EXECUTION_ID`: a run of the control plane as one page."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Final

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import EXIT_SETTINGS, EXIT_UNKNOWN, text_of
from noetl_worker.errors import ServerRefused, SettingsError
from noetl_worker.observability.terminal import say
from noetl_worker.process import event_loop
from noetl_worker.settings.settings import Settings

_SERVER: Final = "NOETL_SERVER_URL"
_STDOUT: Final = Path("-")


@with_setting_flags(shown=("control_plane",))
def report(
    flags: SettingFlags,
    execution_id: Annotated[
        str, typer.Argument(metavar="ID", help="Of an execution, of `dev` too; `last` is the newest run of `dev`.")
    ],
    server_url: Annotated[
        str | None, typer.Option("--server", "--server-url", metavar="URL", help=f"The control plane. {_SERVER}")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Default: run-ID.html; - is standard output."),
    ] = None,
) -> None:
    """Write what the events of an execution say as one HTML page: the graph with
    the way that was taken, a timeline, and of each command input, output, what it
    printed, error, attempts and worker. Values are redacted.

    The page asks nobody for anything: it can be kept, sent and printed. The
    control plane is read, all pages of its events, and nothing is changed there.
    Without --server a run of `dev` is looked for first, and nothing else is asked.

    Exit codes: 0 the page is written; 2 a setting or the file is wrong; 3 no
    control plane; 5 it knows no such execution.
    """
    from noetl_worker.observability.logging import configure_logging

    try:
        configure_logging("error", "auto")
        event_loop.run(_report({**flags, _SERVER: server_url}, execution_id.strip(), output))
    except OSError as error:
        say(f"noetl-worker report: {error.filename}: {error.strerror}", err=True)
        raise typer.Exit(EXIT_SETTINGS) from None
    except ServerRefused as error:
        if not error.is_not_found:
            raise
        unknown = f"the control plane knows no execution {execution_id} ({text_of(error)})"
        say(f"noetl-worker report: {unknown}", err=True)
        raise typer.Exit(EXIT_UNKNOWN) from None


async def _report(flags: SettingFlags, name: str, output: Path | None) -> None:
    from noetl_worker.cli.kept_plane import kept_plane, settings_to_ask

    async with kept_plane(name) if flags[_SERVER] is None else nullcontext() as kept:
        name = kept.name if kept else name
        if not name.isdecimal() or (kept and kept.command):
            raise SettingsError("ID", name, "the id of an execution, or `last` where a run of `dev` is kept")
        settings = settings_to_ask(flags, kept)
        file, is_interrupted = output or Path(f"run-{name}.html"), kept is not None and kept.is_interrupted
        await write_report(settings, int(name), file, is_interrupted=is_interrupted)


async def write_report(settings: Settings, execution_id: int, file: Path, *, is_interrupted: bool = False) -> None:
    """Read the run, write the page, and say so on standard error.

    Args:
        is_interrupted: whether what the plane calls running was ended.

    Raises:
        ControlPlaneError: the plane cannot be reached, or knows no such execution.
        OSError: the file cannot be written.
    """
    from noetl_worker.authoring.run_page.page import page_of
    from noetl_worker.authoring.run_page.reading import read_run

    run = await read_run(settings, execution_id)
    if is_interrupted and run.status == "RUNNING":
        run.status = "INTERRUPTED"
    page = page_of(run, settings.secrets())
    if file == _STDOUT:
        say(page, nl=False)
        return
    file.write_text(page, encoding="utf-8")
    count, size = len(run.commands), f"{len(page.encode()) / 1000:,.0f} kB"
    state = f"{run.status} ({run.inferred})" if run.inferred else run.status
    say(f"{file}: {run.path} {state}, {count} command{'' if count == 1 else 's'}, {size}", err=True)
