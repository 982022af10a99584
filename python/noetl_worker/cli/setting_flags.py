"""The command-line flags of the settings. Each setting has a flag. The flag's help shows the setting's variable, unit
and default.

Errors, `noetl-worker config` and the documentation name a setting by its environment variable, not by its flag.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection
from typing import Annotated, Any, Final, TypeAlias, get_type_hints

import typer

from noetl_worker.settings import values
from noetl_worker.settings.line import SettingLine
from noetl_worker.settings.nats import NatsSettings
from noetl_worker.settings.settings import SETTINGS
from noetl_worker.settings.tools import ToolSettings

SettingFlags: TypeAlias = dict[str, str | None]
"""Values of the settings' flags, as typed, by the setting's environment variable. None if a flag was not given.

`load_settings` takes this mapping.
"""

_NAMES: Final = {
    "max_concurrent": ("--concurrency", "-c"),
    "worker_id": ("--worker-id", "-n"),
    "log_level": ("--log-level", "-l"),
}
"""Long and short flag of each settings field that has a short flag, or whose long flag differs from its name."""
_PANELS: Final = (
    ("Settings of NATS, the stream and the durable", NatsSettings.__annotations__),
    ("Settings of tools", ToolSettings.__annotations__),
)
"""Groups of flags in `--help`: title, and names of the settings fields. All other flags are in a default group."""


def long_flag(line: SettingLine) -> str:
    """Return the long flag of a setting, such as `--ack-wait-s` for the field `ack_wait_s`."""
    return _NAMES.get(line.field, (f"--{line.field.replace('_', '-')}",))[0]


def with_setting_flags(
    shown: Collection[str] | None = None, *, short: bool = True
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return a decorator that adds a flag for every setting to a CLI command.

    The command gets the flags' values as its parameter `flags`.

    Args:
        shown: settings fields whose flags `--help` shows; None: all. Hidden flags work too.
        short: add the one-letter flags of `run`; False for a command that uses one of those letters itself.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints, signature = get_type_hints(command, include_extras=True), inspect.signature(command)
        own = [
            parameter.replace(annotation=hints[name])
            for name, parameter in signature.parameters.items()
            if name != "flags"
        ]
        lines = [
            parameter
            for line in SETTINGS
            if line.field not in signature.parameters
            for parameter in _lines_with_file(line)
        ]
        flags = [
            _parameter(line, is_hidden=shown is not None and line.field not in shown, short=short) for line in lines
        ]

        @functools.wraps(command)
        def called(**given: Any) -> None:
            command(flags={line.variable: given.pop(line.field, None) for line in lines}, **given)

        called.__signature__ = signature.replace(parameters=[*own, *flags])  # type: ignore[attr-defined]
        called.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *flags)} | {
            "return": None
        }
        return called

    return decorate


def _lines_with_file(line: SettingLine) -> list[SettingLine]:
    """Return a list of the setting and, for a secret, a second setting: the path of a file that contains the secret."""
    if not line.is_secret:
        return [line]
    meaning = f"path of a file that has what {line.variable} would"
    return [line, SettingLine(f"{line.field}_file", line.file_variable, (), "", False, values.text, meaning)]


def _parameter(line: SettingLine, *, is_hidden: bool, short: bool) -> inspect.Parameter:
    default = f"default {line.default} {line.unit}".rstrip() if line.default else "no default"
    option = typer.Option(
        long_flag(line),
        *(_NAMES.get(line.field, ())[1:] if short else ()),
        help=f"{line.meaning}. {line.variable}; {default}",
        metavar=line.unit.upper().replace(" ", "_") or "TEXT",
        hidden=is_hidden,
        rich_help_panel=_panel(line),
        show_default=False,
    )
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(line.field, kind, default=None, annotation=Annotated[str | None, option])


def _panel(line: SettingLine) -> str:
    field = line.field.removesuffix("_file")
    return next((panel for panel, fields in _PANELS if field in fields), "Settings of the worker")
