"""`noetl-worker bridge`: bring the commands of a control plane without NATS into JetStream."""

from __future__ import annotations

from typing import Annotated

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import require_posix
from noetl_worker.errors import SettingsError
from noetl_worker.settings.settings import load_settings
from noetl_worker.settings.values import optional, url

_SHOWN = ("nats_url", "nats_stream", "nats_subject", "bridge_health", "metrics_bind", "log_level")


@with_setting_flags(shown=_SHOWN)
def bridge(
    flags: SettingFlags,
    publish: Annotated[
        str | None,
        typer.Option("--publish", metavar="HOST:PORT", help="Address for a server that publishes; :9100 is loopback."),
    ] = None,
    forward: Annotated[
        str | None,
        typer.Option("--forward", metavar="HOST:PORT", help="Upstream's writer; it gets only the pool `system`."),
    ] = None,
    claim: Annotated[
        list[str] | None,
        typer.Option("--claim", metavar="HOST:PORT", help="Coordinator of upstream's feed; once for each shard."),
    ] = None,
    filter_: Annotated[
        list[str] | None,
        typer.Option("--filter", metavar="FILTER", help="Commands to take from the feed: commands.shared.>"),
    ] = None,
    with_system: Annotated[
        bool, typer.Option("--with-system", help="Let a filter take commands of the pool `system`.")
    ] = False,
    feed_metrics: Annotated[
        str, typer.Option("--feed-metrics", metavar="URL", help="Metrics of upstream's writer, for the feed's lag.")
    ] = "",
) -> None:
    """Take commands from a control plane without NATS (3.60.2 and later), and put
    them into JetStream. Workers then run the commands (docs/todays-server.md).

    With --publish the bridge listens at this address for a control plane that names
    it in NOETL_COMMAND_BUS_WRITER_ADDRS. With --claim and --filter the bridge asks
    upstream's feed for commands. The bridge acknowledges a command once JetStream
    has stored the command. The port has no login and no TLS: let only the control
    plane reach it. Takes every flag of `run`.

    Exit codes: 0 drained; 2 a setting is wrong; 3 NATS or JetStream cannot be used,
    or is too old; 4 the control plane will send records again that were not stored;
    6 the bridge failed after its start: start the bridge again; 130 third signal.
    """
    require_posix()
    from noetl_worker.bridge.address import read_address
    from noetl_worker.bridge.bridge import BridgeOptions, run_bridge
    from noetl_worker.bridge.feed_claims import check_filter

    if not publish and not claim:
        raise SettingsError(
            "--publish", "", "give the address that commands come from: --publish HOST:PORT or --claim HOST:PORT"
        )
    if bool(claim) != bool(filter_):
        raise SettingsError("--filter", "", "set --claim and --filter together, or neither")
    try:
        metrics_url = optional(url("http", "https"), "")(feed_metrics)
    except ValueError as error:
        raise SettingsError("--feed-metrics", feed_metrics, str(error)) from None
    options = BridgeOptions(
        publish=read_address("--publish", publish) if publish else None,
        forward=read_address("--forward", forward) if forward else None,
        claims=tuple(read_address("--claim", one) for one in claim or ()),
        filters=tuple(check_filter(one, with_system=with_system) for one in filter_ or ()),
        feed_metrics=metrics_url,
    )
    raise typer.Exit(run_bridge(load_settings(flags=flags), options))
