"""The reading of settings: flags, environment, `.env` and a NATS context become one frozen `Settings`.

A value that does not parse stops the start. The error names the variable, the value and what is allowed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from noetl_worker.settings.checks import check_families, check_together
from noetl_worker.settings.line import FILE_SUFFIX, setting_lines
from noetl_worker.settings.model import Settings
from noetl_worker.settings.sources import GivenText, given_texts
from noetl_worker.settings.tools import ToolSettings, find_family
from noetl_worker.settings.values import Secret

__all__ = ["SETTINGS", "Secret", "Settings", "SettingsReading", "is_for_tools", "load_settings", "read_settings"]


_TOOL_FIELDS: Final = frozenset(ToolSettings.__annotations__)
SETTINGS: Final = sorted(setting_lines(Settings), key=lambda line: line.field in _TOOL_FIELDS)
"""Settings in the order of docs/settings.md: NATS, the worker, the tools."""
_TOOL_VARIABLES: Final = frozenset(line.variable for line in SETTINGS if line.field in _TOOL_FIELDS)


def is_for_tools(variable: str) -> bool:
    """Return True if the variable is a setting of tools."""
    return variable in _TOOL_VARIABLES or find_family(variable) is not None


@dataclass(frozen=True, slots=True)
class SettingsReading:
    """The settings, and the source of each setting that is not a default."""

    settings: Settings
    given: Mapping[str, GivenText]
    """Text and source of each variable that is set, including variables such as NOETL_SECRET_<NAME>."""


def read_settings(
    environment: Mapping[str, str] | None = None,
    *,
    flags: Mapping[str, str | None] | None = None,
    dotenv: Path | None = None,
) -> SettingsReading:
    """Read the settings. Flags win over the environment, the environment wins over `.env`, then comes a NATS context.

    An empty variable counts as unset, except `WORKER_METRICS_BIND=`, which switches the endpoint of metrics and
    probes off.

    Args:
        environment: texts by variable; default `os.environ`. With the default, NOETL_WORKER_ENGINE from another source
            is written into `os.environ`, where the engine's import reads it.
        flags: texts of command-line flags by variable; None for a flag that is not given.
        dotenv: path of a `.env` file; default `.env` in the working directory. The file may be missing.

    Raises:
        SettingsError: a value does not parse, or two settings contradict each other.
    """
    path = dotenv if dotenv is not None else Path(".env")
    variables = os.environ if environment is None else environment
    given = given_texts(SETTINGS, variables, flags or {}, path)
    parsed = {line.field: line.value(given[line.variable].text) for line in SETTINGS if line.variable in given}
    files = sorted({found.file for found in given.values() if found.file})
    check_families(given)
    listed = {name: variables[name] for name in parsed.get("keychain_env_vars", ()) if name in variables}
    named = listed | {name: found.text for name, found in given.items() if find_family(name) is not None}
    settings = Settings(**parsed, files_read=tuple(files), named=named)
    check_together(settings)
    if environment is None and (engine := given.get("NOETL_WORKER_ENGINE")) is not None:
        os.environ["NOETL_WORKER_ENGINE"] = engine.text
    return SettingsReading(settings, given)


def environment_for_workers(environment: Mapping[str, str], flags: Mapping[str, str | None]) -> dict[str, str]:
    """Return the environment for a child process that must read the same settings as this process. Each command-line
    flag of this process becomes a variable.

    The child process reads `.env` and other files itself.

    Args:
        environment: environment of this process.
        flags: texts of command-line flags by variable.
    """
    given = {name: text for name, text in flags.items() if text and text.strip()}
    spellings = ({f"{name}{ending}" for name in line.names for ending in ("", FILE_SUFFIX)} for line in SETTINGS)
    replaced = {name for names in spellings if not names.isdisjoint(given) for name in names}
    return {**{name: text for name, text in environment.items() if name not in replaced}, **given}


def load_settings(
    environment: Mapping[str, str] | None = None,
    *,
    flags: Mapping[str, str | None] | None = None,
    dotenv: Path | None = None,
) -> Settings:
    """Read the settings from flags, environment, `.env` and a NATS context. Unlike `read_settings`, return only the
    values, not the source of each setting."""
    return read_settings(environment, flags=flags, dotenv=dotenv).settings
