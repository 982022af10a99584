"""`noetl-worker bridge`: what a control plane without NATS publishes, into JetStream."""

from __future__ import annotations

from typing import Annotated

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import require_posix
from noetl_worker.settings.settings import load_settings


@with_setting_flags(shown=("nats_url", "nats_stream", "nats_subject", "bridge_health", "metrics_bind", "log_level"))
def bridge(
    flags: SettingFlags,
    publish: Annotated[
        str,
        typer.Option("--publish", metavar="HOST:PORT", help="Where the server publishes to; :9100 is loopback alone."),
    ],
    forward: Annotated[
        str | None,
        typer.Option("--forward", metavar="HOST:PORT", help="Upstream's writer; it gets the pool `system` alone."),
    ] = None,
) -> None:
    """Take commands from a control plane that has no NATS (3.60.2 and later), and
    put them into JetStream for workers (docs/todays-server.md).

    The server's NOETL_COMMAND_BUS_WRITER_ADDRS names --publish. A command is
    acknowledged once JetStream has it. The port has no login and no TLS: let
    the server alone reach it. Takes every flag of `run` (noetl-worker run
    --help lists them).

    Exit codes: 0 drained; 2 a setting is wrong; 3 no NATS or JetStream, or one
    that is too old; 4 records were held at the end of the drain, and are sent
    again; 6 it ran and could not go on: start it again; 130 third signal.
    """
    require_posix()
    from noetl_worker.bridge.address import read_address
    from noetl_worker.bridge.bridge import BridgeOptions
    from noetl_worker.bridge.bridge_process import run_bridge

    settings = load_settings(flags=flags)
    options = BridgeOptions(
        publish=read_address("--publish", publish),
        forward=read_address("--forward", forward) if forward else None,
    )
    raise typer.Exit(run_bridge(settings, options))
