"""Entry point of the commands `noetl-worker` and `python -m noetl_worker`."""

from __future__ import annotations

import gc
import os
import sys

from noetl_worker.process import sealed_environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ASKS_FOR_COMPLETION = "_NOETL_WORKER_COMPLETE"
_EXIT_INTERRUPTED = 130
_OBJECTS_TO_COLLECT = 50_000
_NOT_FOR_STRUCTLOG = ("rich", "greenlet")


def main() -> None:
    """Run the program `noetl-worker`. Ctrl-C while its modules load ends the process without a traceback."""
    try:
        _main()
    except KeyboardInterrupt:
        sys.exit(_EXIT_INTERRUPTED)
    finally:
        gc.freeze()  # else the interpreter searches all loaded objects for garbage at its end: 0.1 s for `dev`


def _main() -> None:
    """Start a worker (no argument, or `run`) or print the version, without importing the CLI modules. Otherwise run
    the CLI.

    To hide its variables from other processes, a worker starts itself again without them. The new process first
    hides its memory, then receives the variables. Only afterwards are modules imported that read the environment.
    """
    completes = _ASKS_FOR_COMPLETION in os.environ
    if sealed_environment.is_handed_over():
        from noetl_worker.tools.process.confinement import hide_memory

        hide_memory()
        sealed_environment.take()
    elif not completes:
        try:
            sealed_environment.begin(sys.argv[1:])
        except OSError as error:
            sys.stderr.write(
                f"noetl-worker: commands may read the worker's variables, which cannot be sealed: {error}: see "
                "docs/security.md\n"
            )
    if sys.argv[1:] in ([], ["run"]) and os.name == "posix" and not completes:
        gc.disable()  # saves a tenth of the start: imports leave no garbage. `worker_process.py` enables it again
        sys.exit(worker_alone()({}))
    if sys.argv[1:] in (["--version"], ["-V"]) and _has_shown_version():
        return
    gc.set_threshold(_OBJECTS_TO_COLLECT)  # the imports of a CLI command leave no garbage
    sys.modules["httpx._main"] = None  # type: ignore[assignment]  # the command line of httpx, which loads rich and click
    if sys.argv[1:2] != ["check"] and not completes:
        _load_structlog()
    from noetl_worker import cli

    cli.main()


def _has_shown_version() -> bool:
    """Print the version without importing the CLI modules. Return False on an error, which the CLI then reports."""
    from noetl_worker.errors import NoetlWorkerError

    try:
        from noetl_worker.engine.chosen import version_line

        sys.stdout.write(f"{version_line()}\n")
        sys.stdout.flush()
    except (NoetlWorkerError, OSError):
        return False
    return True


def worker_alone() -> Callable[[Mapping[str, str | None]], int]:
    """Return the function that runs a worker, without importing the CLI modules, which would take 15 MB of memory."""
    _load_structlog()
    from noetl_worker.worker.worker_process import run_process

    return run_process


def _load_structlog() -> None:
    """Import structlog, but prevent it from loading rich and greenlet, which it otherwise loads if installed."""
    for name in _NOT_FOR_STRUCTLOG:
        sys.modules[name] = None  # type: ignore[assignment]
    try:
        import structlog  # noqa: F401
    finally:
        for name in _NOT_FOR_STRUCTLOG:
            del sys.modules[name]


if __name__ == "__main__":
    main()
