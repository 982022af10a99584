"""`noetl-worker run`: the worker itself. Every flag is an environment variable, shown beside it."""

from __future__ import annotations

from typing import Annotated

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import require_posix
from noetl_worker.worker.worker_process import run_process


@with_setting_flags()
def run(
    flags: SettingFlags,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="The same as --wait false, for jobs.")] = False,
) -> None:
    """Run the worker until SIGTERM (drain), a second one (cancel) or a third
    (exit at once).

    Every flag is a setting: it wins over its variable, which is named beside
    it, and over `.env`. Every user of the machine can read a secret on a
    command line: prefer its variable.

    It waits for NATS and the control plane, not ready; --no-wait is for jobs.

    Exit codes: 0 drained; 1 an error that nobody foresaw; 2 a setting is wrong; 3 it could not start (a durable
    or a control plane that no worker can use, or --no-wait); 4 commands were still running at the end of the
    drain and were returned; 6 it ran and could not go on (NATS closed the
    connection for good, the keepalive thread ended): start it again; 130 third
    signal. With --processes the worst of them all.
    """
    require_posix()
    if no_wait:
        flags = {**flags, "NOETL_WORKER_WAIT": "false"}
    raise typer.Exit(run_process(flags))
