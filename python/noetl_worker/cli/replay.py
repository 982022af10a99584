"""`noetl-worker replay ID`: run a command of the control plane on this machine, and report nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import EXIT_FAILED, EXIT_UNKNOWN, redacted_text, require_posix
from noetl_worker.errors import ControlPlaneError, ServerRefused, SettingsError, ToolError
from noetl_worker.observability.terminal import say, say_json
from noetl_worker.process import event_loop
from noetl_worker.settings.settings import Settings

if TYPE_CHECKING:
    from noetl_worker.authoring.local_run import LocalRun
    from noetl_worker.models.notification import Envelope


@with_setting_flags(shown=("server_url", "control_plane"))
def replay(
    flags: SettingFlags,
    name: Annotated[
        str,
        typer.Argument(
            metavar="ID",
            help="The `event_id` of a notification (command.issued); `last` is the newest command of `dev`.",
        ),
    ],
    dry: Annotated[bool, typer.Option("--dry", help="Show the rendered config; the tool does not run.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Fetch a command without claiming it, run it here, and show every request
    that the worker would send, word for word. None of them is sent.

    The tool runs for real, with all its effects outside of the control plane. At
    the plane it changes nothing: no child playbook starts, no variable is set.
    Credentials are fetched as by the worker. The Python plane removes secrets from
    the command, so a config with a secret in clear text differs here.

    Stored runs of `dev` are searched first. For a stored run, ID may be the id of a
    command, of one of its events, or of the run (its newest command).

    Exit codes: 0 the tool succeeded (with --dry: the config is right); 1 the tool
    failed; 2 a setting is wrong; 3 no control plane; 5 the plane knows no such
    command; 130 interrupted.
    """
    from noetl_worker.observability.logging import configure_logging

    require_posix()
    try:
        configure_logging("warning", "auto", without=("command_failed",))  # the printed result has the failure
        code = event_loop.run(_replay(flags, name.strip(), dry=dry, as_json=as_json))
    except ServerRefused as error:
        if not error.is_not_found:
            raise
        unknown = f"the control plane knows no command of the event {name}: give the event_id of its command.issued"
        say(f"noetl-worker replay: {unknown} ({redacted_text(error)})", err=True)
        raise typer.Exit(EXIT_UNKNOWN) from None
    raise typer.Exit(code)


def _number(name: str) -> int | None:
    """Return the id of a command's command.issued event, given this id or a Rust command's id; None for other text.

    On the Rust plane a command's id is <execution>:<step>:<event>. A loop item's command has :i<item> at the end.
    """
    head, _, last = name.rpartition(":")
    number = head.rpartition(":")[2] if head and last.startswith("i") else last
    return int(number) if number.isascii() and number.isdigit() else None


async def _replay(flags: SettingFlags, name: str, *, dry: bool, as_json: bool) -> int:
    from noetl_worker.cli.stored_run import settings_to_ask, stored_run_plane

    async with stored_run_plane(name) as stored:
        event_id = _number(name)
        if stored is not None:
            command = stored.command or stored.newest_command
            event_id = command.event_id if command is not None else None
        if event_id is None:
            advice = "give the event_id of a command.issued event, any id of a stored run of `dev`, or `last`"
            raise SettingsError("ID", name, f"{advice} if a run is stored")
        settings = settings_to_ask(flags, stored)
        return await _replay_at(settings, event_id, dry=dry, as_json=as_json, is_stored=stored is not None)


async def _replay_at(settings: Settings, event_id: int, *, dry: bool, as_json: bool, is_stored: bool) -> int:
    from noetl_worker.authoring.local_run import LocalRun, WithholdingTransport
    from noetl_worker.cli.views.local_run import print_requests, run_here
    from noetl_worker.models.claim import Claimed
    from noetl_worker.models.notification import Envelope
    from noetl_worker.pipeline.claim.claim import read_claim
    from noetl_worker.remote.transport.opening import open_transport
    from noetl_worker.remote.transport.transport import Response
    from noetl_worker.text import json_text

    real = open_transport(settings, max_connections=8)
    async with LocalRun(settings, WithholdingTransport(real)) as local_run:
        plane = await local_run.client.plane("")
        found = read_claim(Response(200, {}, json_text.dumps(await plane.fetch_command(event_id))), plane.dialect)
        if not isinstance(found, Claimed):
            raise ControlPlaneError(f"no command for event {event_id}: {found.reason}; check the id")
        body: Any = found.body
        command_id = (body.get("meta") or {}).get("command_id", event_id)
        envelope = Envelope(
            int(body["execution_id"]), event_id, command_id, str(body["node_name"]), plane.url, None, None
        )
        if dry:
            return await _show_config(local_run, body, envelope)
        if is_stored:
            _say_what_is_lost(body, envelope)
        say(f"{body['action']} of step {envelope.step}, execution {envelope.execution_id}: run here", err=True)
        done = await run_here(local_run, body, envelope, "noetl-worker replay")
        print_requests(done, as_json=as_json)
        return EXIT_FAILED if done.failed else 0


def _say_what_is_lost(body: Any, envelope: Envelope) -> None:
    """Warn of each config field whose secret was redacted when the run was stored.

    The tool of the replayed command would use the redaction mark as the secret.
    """
    from noetl_worker.engine.pure.redact import MARK

    def places(value: Any, place: str) -> Iterator[str]:
        if isinstance(value, str) and MARK in value:
            yield place
        elif isinstance(value, (dict, list)):
            for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
                yield from places(inner, f"{place}.{key}" if place else str(key))

    context = body.get("context")
    if lost := ", ".join(places(context.get("tool_config") if isinstance(context, dict) else None, "")):
        meta, step = body.get("meta") or {}, envelope.step.removesuffix(":task_sequence")
        item = meta.get("loop_iteration_index", meta.get("iteration_index"))
        named = step if item is None else f"'{step}[{item}]'"
        what = f"its {lost} has {MARK} in place of a secret, which is not stored"
        how = f"use dev FILE --step {named} --run {envelope.execution_id}"
        say(f"noetl-worker replay: {what}: {how}", err=True)


async def _show_config(local_run: LocalRun, body: Any, envelope: Envelope) -> int:
    try:
        config = await local_run.rendered(body, envelope, await local_run.client.plane(""))
    except ToolError as error:
        say(f"noetl-worker replay: {error}", err=True)
        return EXIT_FAILED
    say_json(config, indent=2)
    return 0
