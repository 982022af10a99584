"""The run of one command by `exec` and `replay`, and the printing of its result and of the requests to the control
plane that were withheld."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from noetl_worker.authoring.local_run import LocalResult, LocalRun
from noetl_worker.cli.system import EXIT_INTERRUPTED
from noetl_worker.models.notification import Envelope
from noetl_worker.models.wire import JsonValue
from noetl_worker.observability.terminal import say, say_json
from noetl_worker.pipeline.stages import Progress
from noetl_worker.tools.process.live_output import PrintedLine


async def run_here(local_run: LocalRun, body: Mapping[str, JsonValue], envelope: Envelope, program: str) -> LocalResult:
    """Run a command in this process until its end or Ctrl-C, and return its result.

    Args:
        body: the command, with the fields of a control plane's response to a claim.
        envelope: notification of the command.
        program: name of the program, for the line about Ctrl-C.

    Raises:
        typer.Exit: Ctrl-C was pressed.
    """
    progress = Progress()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, progress.stop)
    done = await local_run.run(body, envelope, await local_run.client.plane(""), progress)
    if progress.is_stopping:
        say(f"{program}: interrupted", err=True)
        raise typer.Exit(EXIT_INTERRUPTED)
    return done


def print_result(done: LocalResult, output: Sequence[PrintedLine] = (), *, as_json: bool) -> None:
    """Print the result of a command as the worker would report it. A summary line goes to standard error, the result to
    standard output.

    Args:
        output: lines that the tool printed, which only the JSON form shows.
        as_json: print one JSON object instead: the event that would report the result, and `output`.
    """
    call = done.call
    if call is None:
        say(f"nothing would be reported: {done.disposition.text or done.disposition.kind.value}", err=True)
        return
    payload: dict[str, Any] = dict(call["payload"])
    if as_json:
        told = {"output": [{"stream": line.stream, "text": line.text} for line in output]} if output else {}
        line = {"event": call["name"], "failed": done.failed, "seconds": round(done.seconds, 3), "payload": payload}
        say_json({**line, **told})
        return
    say(f"{call['name']} after {done.seconds:.3f} s", err=True)
    said = {name: payload[name] for name in ("error", "error_kind") if name in payload}
    shown = (
        payload.get("response", payload.get("result")) or said or None
    )  # to the Rust plane only the text of an error is sent
    say_json(shown, indent=2)


def print_line(line: PrintedLine) -> None:
    """Print a line that the tool has printed, on standard error."""
    say(f"{line.stream} | {line.text}", err=True)


def print_requests(done: LocalResult, *, as_json: bool) -> None:
    """Print every request that a worker would have sent to the plane, and that the local run withheld."""
    for withheld in done.withheld:
        request = {"method": withheld.method, "path": withheld.path, "body": withheld.body}
        if as_json:
            say_json(request)
        else:
            say(f"not sent: {withheld.method} {withheld.path}")
            say_json(withheld.body, indent=2)
            say()
