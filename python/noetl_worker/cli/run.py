"""`noetl-worker run`: run the worker. Every setting is a flag, beside its environment variable."""

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
    """Run the worker until a signal: SIGTERM drains it, a second signal interrupts
    its commands, a third ends it at once.

    Every flag is a setting. It wins over its variable, which is named beside the
    flag, and over `.env`. Every user of the machine can read a secret on a
    command line: prefer its variable.

    A start waits for NATS and the control plane, and is not ready meanwhile;
    --no-wait is for jobs.

    Exit codes: 0 drained; 1 an unforeseen error; 2 a setting is wrong; 3 it could not
    start (no worker can use the durable or the control plane, or --no-wait); 4
    commands were still running at the end of the drain and were returned; 6 it ran
    and could not go on (NATS closed the connection for good, the keepalive thread
    ended): start it again; 130 third signal. With --processes the worst code of all.
    """
    require_posix()
    if no_wait:
        flags = {**flags, "NOETL_WORKER_WAIT": "false"}
    raise typer.Exit(run_process(flags))
