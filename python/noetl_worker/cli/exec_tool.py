"""`noetl-worker exec KIND`: run one tool once on this machine, without NATS and without a control plane."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import unquote, urlsplit

import typer

from noetl_worker.cli.completion import kinds
from noetl_worker.cli.setting_flags import SettingFlags, with_setting_flags
from noetl_worker.cli.system import EXIT_FAILED, require_posix, with_extra_local
from noetl_worker.errors import DocumentError
from noetl_worker.models.notification import Envelope
from noetl_worker.models.wire import Dialect, JsonValue
from noetl_worker.observability.terminal import say
from noetl_worker.process import event_loop
from noetl_worker.settings.settings import Settings, load_settings

_USUAL: Final = Dialect("python")
_STEP: Final = "exec"
_COMMAND: Final = "1:exec:2"
_SERVER: Final = "http://exec.invalid"
"""Dummy address that tools see as `server_url`, since `exec` has no control plane. No request is sent to it."""


@with_setting_flags(shown=("command_timeout_s", "isolation", "result_max_bytes"))
def exec_(
    flags: SettingFlags,
    kind: Annotated[str, typer.Argument(help="A tool kind: noetl-worker tools lists them.", autocompletion=kinds)],
    config: Annotated[
        str, typer.Option("--config", help="The tool's fields: JSON, or @FILE (JSON or YAML), or @- for stdin.")
    ] = "{}",
    given: Annotated[str, typer.Option("--input", help="The step's input, in the same forms.")] = "{}",
    variables: Annotated[
        str, typer.Option("--variables", help="Variables of templates (workload, earlier steps), in the same forms.")
    ] = "{}",
    credential: Annotated[
        list[str] | None,
        typer.Option("--credential", metavar="NAME=FILE", help="A credential for `auth`: a file {type, data}."),
    ] = None,
    dialect: Annotated[Dialect, typer.Option(help="Control plane in whose form the result is shown.")] = _USUAL,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Do not show what the tool prints while it runs.")
    ] = False,
) -> None:
    """Run one tool once, through the same stages as a worker, and show the result as
    the worker would report it: redacted, and fitted to the size of an event. What the
    tool prints is shown on stderr while it runs.

    No server is needed, and nothing is reported to one. A tool that asks a control plane
    for something (a child playbook, a stored result) gets an error.

    Exit codes: 0 the tool succeeded; 1 it failed; 2 an argument or a setting is
    wrong; 130 interrupted.
    """
    require_posix()
    settings = load_settings(flags={**flags, "NOETL_CONTROL_PLANE": dialect.value, "NOETL_SERVER_URL": _SERVER})
    command = local_command(
        kind,
        json_argument("--config", config),
        _mapping("--input", given),
        _mapping("--variables", variables),
    )
    credentials = _credentials(credential or [])
    raise typer.Exit(event_loop.run(_run(settings, *command, credentials, as_json=as_json, is_quiet=quiet)))


def local_command(
    kind: str, config: JsonValue, given: Mapping[str, JsonValue], variables: Mapping[str, JsonValue]
) -> tuple[dict[str, JsonValue], Envelope]:
    """Return a command that runs one tool, and a notification for it.

    The command has the same fields as a control plane's response to a claim.
    """
    context: dict[str, JsonValue] = {
        "tool_config": config,
        "input": dict(given),
        "render_context": dict(variables),
    }
    meta = {"command_id": _COMMAND, "attempt": 1}
    body = {"execution_id": 1, "node_id": _STEP, "node_name": _STEP, "action": kind, "context": context, "meta": meta}
    return body, Envelope(1, 2, _COMMAND, _STEP, "", None, None)


async def _run(
    settings: Settings,
    body: Mapping[str, JsonValue],
    envelope: Envelope,
    credentials: Mapping[str, Any],
    *,
    as_json: bool,
    is_quiet: bool,
) -> int:
    from noetl_worker.authoring.local_run import LocalRun, WithholdingTransport
    from noetl_worker.cli.views.local_run import print_line, print_result, run_here
    from noetl_worker.observability.logging import configure_logging
    from noetl_worker.pipeline.command.tool_rules import make_registry
    from noetl_worker.tools.process.live_output import PrintedLine, watched

    configure_logging("warning", "auto", without=("command_failed",))  # the printed result has the failure
    registry = make_registry(settings)
    registry.get(str(body["action"]))  # an unknown kind is a wrong argument (exit code 2), not a failed tool
    plane = NoPlane(credentials)
    output: list[PrintedLine] = []

    def take(line: PrintedLine) -> None:
        output.append(line)
        if not as_json:
            print_line(line)

    watching = nullcontext() if is_quiet else watched(take)
    async with LocalRun(settings, WithholdingTransport(plane), registry=registry) as local_run:
        with watching:
            done = await run_here(local_run, body, envelope, "noetl-worker exec")
    print_result(done, output, as_json=as_json)
    for name in plane.unknown:
        given = f"--credential {shlex.quote(name)}=FILE"
        say(f"noetl-worker exec: no credential {name!r}: give it with {given}", err=True)
    return EXIT_FAILED if done.failed else 0


class NoPlane:
    """HTTP transport that stands in for a control plane while `exec` runs a tool.

    The transport answers requests for credentials from files, reports that nothing is cancelled, and refuses all other
    requests.
    """

    def __init__(self, credentials: Mapping[str, Any]) -> None:
        self._credentials = credentials
        self.unknown: list[str] = []
        """Names of credentials that the tool asked for, and that no `--credential` gave."""

    async def send(self, method: str, url: str, *_: Any) -> Any:
        from noetl_worker.remote.transport.transport import Response
        from noetl_worker.text import json_text

        path = urlsplit(url).path
        if path.startswith("/api/credentials/"):
            name = unquote(path.rpartition("/")[2])
            found = self._credentials.get(name)
            if found is None and name not in self.unknown:
                self.unknown.append(name)
            status, body = (404, {"detail": "Credential not found"}) if found is None else (200, found)
        elif path.endswith("/cancellation-check"):
            status, body = 200, {"cancelled": False, "is_cancelled": False}
        else:
            status, body = 400, {"detail": f"{method} {path}: there is no control plane behind noetl-worker exec"}
        return Response(status, {}, json_text.dumps(body))

    async def close(self) -> None:
        return None


# ── arguments ──


def json_argument(name: str, text: str) -> JsonValue:
    """Parse the value of a command-line argument: JSON, `@FILE` with JSON or YAML, or `@-` for standard input.

    Raises:
        DocumentError: the text is neither JSON nor YAML, or the file cannot be read. The error names the argument.
        PlaybookError: a file is given, and the package that reads YAML is not installed.
    """
    if not text.startswith("@"):
        from noetl_worker.text import json_text

        try:
            return json_text.loads(text)
        except DocumentError as error:
            raise DocumentError(error.code, f"{name}: {error}. Write JSON, or @FILE") from None
    with with_extra_local():
        import yaml

        from noetl_worker.text.yaml_text import UNREADABLE, JsonLoader, error_position

    file = text[1:]
    try:
        content = typer.get_text_stream("stdin").read() if file == "-" else Path(file).read_text(encoding="utf-8")
        return yaml.load(content, JsonLoader)  # JSON is YAML
    except OSError as error:
        raise DocumentError("file", f"{name} {text}: {error.strerror or error}; name a file that can be read") from None
    except UNREADABLE as error:
        raise DocumentError(
            "yaml", f"{name} {text}: neither JSON nor YAML{error_position(error)}. Write one of them"
        ) from None


def _mapping(name: str, text: str) -> dict[str, JsonValue]:
    value = json_argument(name, text)
    if not isinstance(value, dict):
        raise DocumentError("object", f"{name}: write an object, for example {json.dumps({'name': 'value'})}")
    return value


def _credentials(given: list[str]) -> dict[str, Any]:
    if not given:  # reading a file loads YAML
        return {}
    with with_extra_local():
        from noetl_worker.authoring.dev.credential_files import given_credential

    return {given.name: given.body() for given in map(given_credential, given)}
