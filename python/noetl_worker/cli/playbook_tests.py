"""`noetl-worker test PATH...`: run, on this machine, the tests in files that lie beside playbooks."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from noetl_worker.cli.dev import EXIT_SIGTERM, USUAL_DIALECT, LogLevel, prepare_session
from noetl_worker.cli.local_worker import local_worker
from noetl_worker.cli.system import EXIT_FAILED, EXIT_INTERRUPTED, with_extra_local
from noetl_worker.errors import PlaybookError
from noetl_worker.models.wire import Dialect
from noetl_worker.observability.terminal import counted, say
from noetl_worker.process import event_loop

if TYPE_CHECKING:
    from noetl_worker.authoring.dev.playbook_tests.tests_file import TestsFile
    from noetl_worker.authoring.dev.playbook_tests.tests_run import FinishedTest

_CHECKED: Final = ("NW1", "NW201", "NW402")
"""Codes, or prefixes of codes, of mistakes that make every test of a playbook fail, so that no test is run.

The codes mean a wrong key or type, an unknown tool kind, and a `next` entry that names a missing step.
"""


def playbook_tests(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATH...", help="A file NAME.test.yaml, the playbook NAME.yaml beside it, or a folder."),
    ],
    dialect: Annotated[Dialect, typer.Option(help="Control plane to stand in for.")] = USUAL_DIALECT,
    test: Annotated[str, typer.Option("--case", metavar="TEXT", help="Only tests with TEXT in their name.")] = "",
    junit: Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="Write JUnit's XML too.")] = None,
    timeout: Annotated[float, typer.Option("--timeout", min=0.1, metavar="SECONDS", help="Limit of one test.")] = 60.0,
) -> None:
    """Run the tests of playbooks. A test runs the playbook with a workload, and with
    stand-ins for some of its steps. Then it compares the outcome, the steps that ran
    and their results with what the test expects. A step without a stand-in runs for
    real.

    Exit codes: 0 all tests passed; 1 one failed; 2 a file is wrong, or there is
    no test; 130 interrupted: counts and --junit have the tests that had ended.
    """
    prepare_session(LogLevel.ERROR)
    with with_extra_local():
        from noetl_worker.authoring.dev.playbook_tests.junit import write_junit
        from noetl_worker.authoring.dev.playbook_tests.tests_file import read_tests_files
    files = read_tests_files(paths, named=test)
    _refuse_mistakes({file.playbook for file in files}, dialect)
    ends: list[FinishedTest] = []
    code = _run_until_signal(_run(files, ends, dialect, timeout))
    failed = sum(bool(end.lines) for end in ends)
    if code:
        say(_interrupted_line(files, len(ends)))
    say(f"{counted(len(ends), 'test')}: {len(ends) - failed} passed, {failed} failed")
    try:
        if junit is not None:
            write_junit(ends, junit)
    except OSError as error:
        raise PlaybookError(f"--junit {junit}: {error.strerror or error}; name a file that can be written") from error
    raise typer.Exit(code or (EXIT_FAILED if failed else 0))


def _refuse_mistakes(playbooks: Iterable[Path], dialect: Dialect) -> None:
    """Raise PlaybookError if a playbook has a mistake with a code in `_CHECKED`, so that no test of it can pass.

    The error has one line for each mistake.
    """
    from noetl_worker.authoring.lint.first_look import look_at

    found = [one for playbook in sorted(playbooks) for one in look_at(playbook, plane=dialect.value, select=_CHECKED)]
    if wrong := [line for is_fatal, line in found if is_fatal]:
        raise PlaybookError("\n".join(wrong))


def _run_until_signal(session: Coroutine[Any, Any, None]) -> int:
    """Run a coroutine to its end, or until Ctrl-C or SIGTERM.

    Return 0, or after a signal the exit code that a shell reports for it.
    """
    try:
        event_loop.run(event_loop.until_signal(session))
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except asyncio.CancelledError:
        return EXIT_SIGTERM
    return 0


def _interrupted_line(files: list[TestsFile], ended: int) -> str:
    """Return a line for the user with the test that was interrupted, and the number of tests that did not begin.

    Args:
        files: all files with tests, in the order of the run.
        ended: number of tests that had ended before the interruption.
    """
    from noetl_worker.authoring.dev.excerpts import printable

    left = [f"{file.file}:{test.line}: {test.name}" for file in files for test in file.tests][ended:]
    more = f"; {len(left) - 1} did not begin" if len(left) > 1 else ""
    return printable(f"interrupted: {left[0] if left else 'all tests had ended'}{more}")


async def _run(files: list[TestsFile], ends: list[FinishedTest], dialect: Dialect, limit_s: float) -> None:
    """Run the tests of the files. Print each finished test and append it to `ends` at once.

    So an interruption by a signal loses no result.
    """
    from noetl_worker.authoring.dev.excerpts import printable
    from noetl_worker.authoring.dev.playbook_tests.stand_in import StandInTool
    from noetl_worker.authoring.dev.playbook_tests.tests_run import run_tests

    worker = partial(local_worker, tools=[StandInTool()])

    def tell(end: FinishedTest) -> None:
        ends.append(end)
        word = "FAIL" if end.lines else "ok  "
        took = f"({end.seconds * 1000:.0f} ms)"
        say(printable(f"{word} {end.file.file}:{end.test.line}: {end.test.name} {took}"))
        for line in end.lines:
            say(f"       {printable(line)}")

    for file in files:
        await run_tests(file, tell, dialect=dialect, worker_factory=worker, limit_s=limit_s)
