"""`noetl-worker dev PLAYBOOK.yaml`: NATS, a control plane, the worker and a live view in one process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from enum import Enum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, TypeVar

import typer

from noetl_worker.cli.closed_output import StandardOutput
from noetl_worker.cli.completion import steps
from noetl_worker.cli.engine_notice import notice_missing_engine
from noetl_worker.cli.system import EXIT_SETTINGS, require_posix, with_extra_local
from noetl_worker.errors import NoetlWorkerError, PlaybookError
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.observability.terminal import say
from noetl_worker.process import event_loop
from noetl_worker.settings.settings import SettingsReading, is_for_tools, read_settings
from noetl_worker.tools.contract import Tool

if TYPE_CHECKING:
    from noetl_worker.authoring.dev.plane import DevControlPlane
    from noetl_worker.worker.worker import Worker

USUAL_DIALECT: Final = Dialect.PYTHON
EXIT_SIGTERM: Final = 143
"""Exit code of a process that SIGTERM ended, as a shell reports it: 128 + 15."""
_RULES: Final = (
    "NOETL_WORKER_KINDS",
    "NOETL_WORKER_KINDS_DENY",
    "NOETL_WORKER_EGRESS_DENY",
    "NOETL_WORKER_KUBERNETES_ALLOW",
    "NOETL_WORKER_KUBERNETES_OWN_SECRETS",
    "NOETL_WORKER_CREDENTIALS_ALLOW",
    "NOETL_WORKER_ISOLATION",
    "NOETL_WORKER_ALLOW_NAMESPACES",
    "NOETL_WORKER_UNDEFINED",
)
"""Variables that the worker of `dev` takes from the environment as `run` does: they are rules of this machine."""


T = TypeVar("T")
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
    Path | None, typer.Option("--with", metavar="FILE", help="With --step: a JSON object of what its templates see.")
]
_Run: TypeAlias = Annotated[
    str | None,
    typer.Option("--run", metavar="ID", help="With --step: what they saw in this earlier run, or in the `last` one."),
]


class LogLevel(str, Enum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


_USUAL: Final = LogLevel.ERROR
_Report: TypeAlias = Annotated[
    Path | None, typer.Option("--report", metavar="FILE", help="Write the run there as one HTML page.")
]
_Strict: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Refuse a playbook of which `check` finds anything. Exit code 1 for a value that nobody had, and for a "
        "failed step that the plane passes over.",
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
    watch: Annotated[bool, typer.Option("--watch", help="Run again whenever one of its files changes.")] = False,
    dialect: Annotated[Dialect, typer.Option(help="Which control plane to stand in for.")] = USUAL_DIALECT,
    keep: Annotated[bool, typer.Option("--keep", help="Stay up afterwards, with a live page of each run.")] = False,
    report: _Report = None,
    strict: _Strict = False,
    anyway: Annotated[bool, typer.Option("--anyway", help="Run it, whatever errors `check` finds.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line instead of the view.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Without what the steps print.")] = False,
    log_level: Annotated[LogLevel, typer.Option("--log-level", "-l", help="Level of the worker's own log.")] = _USUAL,
) -> None:
    """Run a playbook on this machine with nothing else running. Exit code 0 only if it completed."""
    prepare_session(log_level)
    _refuse_pairs(is_given=bool(with_ or run), has_step=bool(step), is_both=watch and keep)
    try:
        overrides = dict(parse_override(text) for text in set_ or ())
        with with_extra_local():
            from noetl_worker.authoring.dev.kept.step_inputs import step_with
            from noetl_worker.authoring.dev.session import run_playbook

        async def once() -> int:
            if await asyncio.to_thread(_has_mistakes, playbook, dialect, strict=strict, anyway=anyway):
                return EXIT_SETTINGS
            code = await run_playbook(
                playbook,
                overrides,
                dialect=dialect,
                keep=keep,
                as_json=as_json,
                worker_factory=worker_beside,
                console=(output := StandardOutput()).console(),
                credentials=credential or (),
                is_quiet=quiet,
                is_strict=strict,
                on_end=reporting(report) if report is not None else None,
                step=partial(step_with, step, dialect, file=with_, run=run, overrides=overrides) if step else None,
            )
            return output.exit_code(code)

        others = [*([with_] if with_ else []), *(Path(text.partition("=")[2]) for text in credential or ())]
        signals: list[signal.Signals] = []
        session = _again_and_again(once, playbook, others, signals) if watch else once()
        code = event_loop.run(until_signal(session, signals))
    except NoetlWorkerError as error:
        say(f"noetl-worker dev: {error}", err=True)
        raise typer.Exit(EXIT_SETTINGS) from None
    except asyncio.CancelledError:
        raise typer.Exit(EXIT_SIGTERM) from None
    raise typer.Exit(code)


def prepare_session(log_level: LogLevel) -> None:
    """Refuse other systems than POSIX, say once that an engine is missing, and set the level of the log."""
    require_posix()
    notice_missing_engine()
    from noetl_worker.observability.logging import configure_logging

    configure_logging(log_level.value, "auto")


def _refuse_pairs(*, is_given: bool, has_step: bool, is_both: bool) -> None:
    if is_given and not has_step:
        raise typer.BadParameter("--with and --run say what a step gets: name it with --step")
    if is_both:
        raise typer.BadParameter("--watch runs it again, --keep stays with one run: give one of them")


def _has_mistakes(playbook: Path, dialect: Dialect, *, strict: bool, anyway: bool) -> bool:
    """Show what `check` finds. Return True if the playbook is refused for it."""
    from noetl_worker.authoring.lint.first_look import look_at

    found = look_at(playbook, plane=dialect.value)
    for is_fatal, line in found:
        say(f"{'error' if is_fatal or strict else 'warning'}: {line}", err=True)
    refused = any(is_fatal for is_fatal, _ in found) and not anyway
    if refused:
        say("noetl-worker dev: not run, because of these errors; --anyway runs it all the same", err=True)
    return refused or (bool(found) and strict)


async def _again_and_again(
    once: Callable[[], Coroutine[Any, Any, int]], playbook: Path, others: list[Path], signals: list[signal.Signals]
) -> int:
    """Run the playbook, and again after each change, until Ctrl-C; if it cannot run, wait for the next change."""
    from noetl_worker.authoring.dev.watch import stamps_of, until_changed

    while True:
        before = stamps_of(playbook, others)
        try:
            await once()
        except NoetlWorkerError as error:
            say(f"noetl-worker dev: {error}", err=True)
        if signals:
            raise asyncio.CancelledError
        say(f"watching {', '.join(sorted(map(str, before)))}; Ctrl-C ends it", err=True)
        changed = await until_changed(before, playbook)
        say(f"\nchanged: {', '.join(map(str, changed))}", err=True)


async def until_signal(session: Coroutine[Any, Any, T], signals: list[signal.Signals] | None = None) -> T:
    """Run a session until SIGTERM or Ctrl-C cancels it; it then ends the worker, nats-server and the rest in order.

    By itself Ctrl-C cancels every task of the loop once. One in nats-py that has just got an answer goes on, and would
    be waited for without end (`event_loop.end`).

    Args:
        signals: what came is added to it: a session with more to do looks at it, for it may miss being cancelled too.

    Raises:
        KeyboardInterrupt, asyncio.CancelledError: it was asked to end so. A second Ctrl-C does not wait for that.
    """
    running, loop = asyncio.ensure_future(session), asyncio.get_running_loop()
    came: list[signal.Signals] = [] if signals is None else signals

    def stop(number: signal.Signals) -> None:
        came.append(number)
        loop.remove_signal_handler(number)
        running.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop, number)
    try:
        return await running
    except asyncio.CancelledError:
        if signal.SIGINT in came:
            raise KeyboardInterrupt from None
        raise


def reporting(file: Path) -> Callable[[DevControlPlane, int], Awaitable[None]]:
    """Return a function that writes the page of a run. Raises PlaybookError if the file cannot be placed there."""
    if file.is_dir():
        raise PlaybookError(f"--report {file} is a folder: name a file in it")
    if not file.parent.is_dir():
        raise PlaybookError(f"--report {file}: there is no folder {file.parent}")

    async def write(plane: DevControlPlane, execution_id: int) -> None:
        from noetl_worker.cli.report import write_report

        try:
            reading = settings_beside(plane.nats_url or "", plane.url, plane.dialect, plane.settings.token, machine={})
            await write_report(reading.settings, execution_id, file)
        except OSError as error:
            raise PlaybookError(f"--report {file}: {error.strerror}") from error

    return write


def parse_override(text: str) -> tuple[str, JsonValue]:
    """Parse `workload.x=1` as ("workload.x", 1). The value is JSON if it parses, else text."""
    from noetl_worker.errors import DocumentError
    from noetl_worker.text import json_text

    name, equals, value = text.partition("=")
    if not equals or not name.startswith("workload.") or name == "workload.":
        raise PlaybookError(f"--set {text!r}: write workload.<name>=<value>")
    try:
        return name, json_text.loads(value)
    except DocumentError:
        return name, value


def settings_beside(
    nats_url: str, server_url: str, dialect: Dialect, token: str = "", *, machine: Mapping[str, str] | None = None
) -> SettingsReading:
    """Return settings of a worker on a laptop, for the session's own NATS and control plane.

    Args:
        token: what the control plane asks for, if anything.
        machine: this machine's variables; default `os.environ`. What runs no tool needs none.
    """
    of_machine = os.environ if machine is None else machine
    listed = of_machine.get("NOETL_KEYCHAIN_ENV_VARS", "").replace(" ", "").split(",")
    return read_settings(
        {
            "NATS_URL": nats_url,
            "NOETL_SERVER_URL": server_url,
            "NOETL_CONTROL_PLANE": dialect.value,
            "NOETL_INTERNAL_API_TOKEN": token,
            "WORKER_METRICS_BIND": "",
            "WORKER_ID": "dev",
            "NOETL_WORKER_DRAIN_TIMEOUT_S": "3",
            "NOETL_WORKER_ISOLATION": "off",  # one's own machine: ping and sudo work, a debugger finds the code
            "NOETL_WORKER_PYTHON_PACKAGES": "wheels",  # an author's own choice, which builds nothing
            "NOETL_WORKER_OUTBOX": "off",  # the plane ends with this process: nothing could be reported later
            **{name: text for name, text in of_machine.items() if name in (*_RULES, *listed) or is_for_tools(name)},
        },
        dotenv=Path(os.devnull),  # a production .env in the working directory is not for a local run
    )


@asynccontextmanager
async def worker_beside(
    nats_url: str,
    server_url: str,
    dialect: Dialect,
    token: str = "",
    *,
    tools: Sequence[Tool[Any]] = (),
    machine: Mapping[str, str] | None = None,
) -> AsyncIterator[None]:
    """Run a worker on this loop, for the session's own NATS and control plane; drain it at the end.

    Args:
        token: what the control plane asks for, if anything.
        tools: kinds that it has besides.
        machine: as in `settings_beside`.
    """
    from noetl_worker.pipeline.command.tool_rules import make_registry
    from noetl_worker.worker.worker import Worker

    reading = settings_beside(nats_url, server_url, dialect, token, machine=machine)
    registry = make_registry(reading.settings)
    for tool in tools:
        registry.register(tool)
    async with _running(Worker(reading.settings, registry=registry)):
        yield


@asynccontextmanager
async def _running(worker: Worker) -> AsyncIterator[None]:
    running = asyncio.ensure_future(worker.run())
    ready = asyncio.ensure_future(worker.ready.wait())
    try:
        await asyncio.wait({running, ready}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            running.result()
        yield
    finally:
        ready.cancel()
        worker.request_stop()
        await running
