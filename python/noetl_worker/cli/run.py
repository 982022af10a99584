"""`noetl-worker run`: run the worker. Every setting can be given as a flag or as an environment variable."""

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

    Every flag is a setting. The text of a flag names the setting's variable. A flag
    wins over the variable and over `.env`. Every user of the machine can read a
    secret on a command line: prefer the variable.

    A starting worker waits for NATS and the control plane, and is not ready
    meanwhile. With --no-wait, for jobs, it ends if one of the two does not answer.

    Exit codes: 0 drained; 1 an unforeseen error; 2 a setting is wrong; 3 the worker
    could not start (the durable or the control plane cannot be used; with --no-wait
    also: NATS or the control plane does not answer); 4 commands were still running
    when the drain ended, and were returned; 6 the worker failed after its start
    (NATS closed the connection for good, the keepalive thread ended): start the
    worker again; 130 third signal. With --processes the worst code of all.
    """
    require_posix()
    if no_wait:
        flags = {**flags, "NOETL_WORKER_WAIT": "false"}
    raise typer.Exit(run_process(flags))
