"""`noetl-worker dev PLAYBOOK.yaml`: NATS, a control plane, the worker and a live view in one process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import typer

from noetl_worker.cli.closed_output import StandardOutput
from noetl_worker.cli.completion import steps
from noetl_worker.cli.engine_notice import notice_missing_engine
from noetl_worker.cli.system import EXIT_SETTINGS, require_posix, with_extra_local
from noetl_worker.errors import NoetlWorkerError, PlaybookError
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.observability.terminal import say

if TYPE_CHECKING:
    import signal

    from noetl_worker.authoring.dev.plane import DevControlPlane

USUAL_DIALECT: Final = Dialect.PYTHON
EXIT_SIGTERM: Final = 143
"""Exit code of a process that SIGTERM ended, as a shell reports it: 128 + 15."""
_Credential: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--credential",
        metavar="NAME=FILE",
        help="A credential for `auth`: a JSON or YAML file {type, data}. credentials.yaml beside the playbook, "
        "{NAME: {type, data}}, is read by itself.",
    ),
]
_Step: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--step", metavar="NAME", help="Run this step alone; each[2] is an item of its loop.", autocompletion=steps
    ),
]
_With: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        "--with", metavar="FILE", help="With --step: a JSON object with the variables that its templates see."
    ),
]
_Run: TypeAlias = Annotated[
    str | None,
    typer.Option("--run", metavar="ID", help="With --step: take the variables from an earlier run: its id, or `last`."),
]


class LogLevel(str, Enum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_USUAL: Final = LogLevel.ERROR
_Report: TypeAlias = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write the run into this file as one HTML page.")
]
_Strict: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse a playbook in which `check` finds anything. Exit code 1 if a template named a value that nobody "
        "set, or if the plane went on after a failed step.",
    ),
]


def dev(
    playbook: Annotated[Path, typer.Argument(help="A playbook file.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Override, for example workload.x=1 (value is JSON, else text).")
    ] = None,
    credential: _Credential = None,
    step: _Step = None,
    with_: _With = None,
    run: _Run = None,
    watch: Annotated[bool, typer.Option("--watch", help="Run again whenever a file of the playbook changes.")] = False,
    dialect: Annotated[Dialect, typer.Option(help="Control plane to stand in for.")] = USUAL_DIALECT,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards, with a live page of each run.")] = False,
    report: _Report = None,
    strict: _Strict = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Run the playbook whatever errors `check` finds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of the view.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Do not show what the steps print.")] = False,
    log_level: Annotated[LogLevel, typer.Option("--log-level", "-l", help="Level of the worker's own log.")] = _USUAL,
) -> None:
    """Run a playbook on this machine with nothing else running. Exit code 0 only if the playbook completed."""
    import asyncio  # here: a shell that completes `--step` loads this file

    prepare_session(log_level)
    _refuse_pairs(is_given=bool(with_ or run), has_step=bool(step), is_both=watch and keep)
    try:
        overrides = dict(parse_override(text) for text in set_ or ())
        with with_extra_local():
            from noetl_worker.authoring.dev.session import run_playbook
            from noetl_worker.authoring.dev.stored_runs.step_inputs import step_with
            from noetl_worker.cli.local_worker import local_worker
            from noetl_worker.process import event_loop

        async def once() -> int:
            if await asyncio.to_thread(_has_mistakes, playbook, dialect, strict=strict, anyway=anyway):
                return EXIT_SETTINGS
            code = await run_playbook(
                playbook,
                overrides,
                dialect=dialect,
                keep=keep,
                as_json=as_json,
                worker_factory=local_worker,
                console=(output := StandardOutput()).console(),
                credentials=credential or (),
                is_quiet=quiet,
                is_strict=strict,
                on_end=reporting(report) if report is not None else None,
                step=partial(step_with, step, dialect, file=with_, run=run, overrides=overrides) if step else None,
            )
            return output.exit_code(code)

        signals: list[signal.Signals] = []
        session = _run_at_each_change(once, playbook, _given_files(with_, credential), signals) if watch else once()
        code = event_loop.run(event_loop.until_signal(session, signals))
    except asyncio.CancelledError:
        raise typer.Exit(EXIT_SIGTERM) from None
    raise typer.Exit(code)


def prepare_session(log_level: LogLevel) -> None:
    """Prepare this process for `noetl-worker dev`: require POSIX and set the log level.

    Warn once if this package's compiled Rust engine is missing, and its Python substitute is used.
    """
    require_posix()
    notice_missing_engine()
    from noetl_worker.observability.logging import configure_logging

    configure_logging(log_level.value, "auto")


def _refuse_pairs(*, is_given: bool, has_step: bool, is_both: bool) -> None:
    if is_given and not has_step:
        raise typer.BadParameter("--with and --run give a step its variables: name the step with --step")
    if is_both:
        raise typer.BadParameter("--watch runs the playbook again, --keep stays with one run: give only one of them")


def _has_mistakes(playbook: Path, dialect: Dialect, *, strict: bool, anyway: bool) -> bool:
    """Print the mistakes that `check` finds in a playbook. Return True if the playbook must not run because of them.

    Args:
        strict: a warning forbids the run too.
        anyway: run the playbook in spite of errors.
    """
    from noetl_worker.authoring.lint.first_look import look_at

    found = look_at(playbook, plane=dialect.value)
    for is_fatal, line in found:
        say(f"{'error' if is_fatal or strict else 'warning'}: {line}", err=True)
    refused = any(is_fatal for is_fatal, _ in found) and not anyway
    if refused:
        say("noetl-worker dev: not run, because of these errors; --anyway runs it all the same", err=True)
    return refused or (bool(found) and strict)


def _given_files(with_: Path | None, credential: list[str] | None) -> list[Path]:
    return [*([with_] if with_ else []), *(Path(text.partition("=")[2]) for text in credential or ())]


async def _run_at_each_change(
    once: Callable[[], Coroutine[Any, Any, int]], playbook: Path, others: list[Path], signals: list[signal.Signals]
) -> int:
    """Run the playbook now and after each change of a file, until Ctrl-C. Changes are awaited even after an error.

    Args:
        once: runs the playbook once.
        others: files to watch besides the playbook's own.
        signals: the signals that this process has received so far.
    """
    import asyncio

    from noetl_worker.authoring.dev.watch import file_stamps, until_changed

    while True:
        before = file_stamps(playbook, others)
        try:
            await once()
        except NoetlWorkerError as error:
            say(f"noetl-worker dev: {error}", err=True)
        if signals:
            raise asyncio.CancelledError
        say(f"watching {', '.join(sorted(map(str, before)))}; Ctrl-C ends it", err=True)
        changed = await until_changed(before, playbook)
        say(f"\nchanged: {', '.join(map(str, changed))}", err=True)


def reporting(file: Path) -> Callable[[DevControlPlane, int], Awaitable[None]]:
    """Return a function that writes the HTML page of a finished execution to `file`.

    Raises PlaybookError if `file` is a folder, or is in a folder that does not exist.
    """
    if file.is_dir():
        raise PlaybookError(f"--report {file} is a folder: name a file in it")
    if not file.parent.is_dir():
        raise PlaybookError(f"--report {file}: there is no folder {file.parent}; make it, or name another file")

    async def write(plane: DevControlPlane, execution_id: int) -> None:
        from noetl_worker.cli.local_worker import local_settings
        from noetl_worker.cli.report import write_report

        try:
            reading = local_settings(plane.nats_url or "", plane.url, plane.dialect, plane.settings.token, machine={})
            await write_report(reading.settings, execution_id, file)
        except OSError as error:
            raise PlaybookError(f"--report {file}: {error.strerror}; name a file that can be written") from error

    return write


def parse_override(text: str) -> tuple[str, JsonValue]:
    """Parse the flag value `workload.x=1` as ("workload.x", 1). A value that is not JSON is taken as a string."""
    from noetl_worker.errors import DocumentError
    from noetl_worker.text import json_text

    name, equals, value = text.partition("=")
    if not equals or not name.startswith("workload.") or name == "workload.":
        raise PlaybookError(f"--set {text!r}: write workload.<name>=<value>")
    try:
        return name, json_text.loads(value)
    except DocumentError:
        return name, value
