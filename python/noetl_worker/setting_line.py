"""One setting: its variable, its spellings, its default, and how its text becomes a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import environ

from noetl_worker import setting_values as values
from noetl_worker.errors import SettingsError

__all__ = ["SETTINGS", "SettingLine", "setting"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SettingLine:
    """One row of the table in the README."""

    field: str
    variable: str
    aliases: tuple[str, ...]
    default: str
    unit: str
    source: str
    help: str


SETTINGS: Final[list[SettingLine]] = []


def setting(
    field: str,
    variable: str,
    default: str,
    parse: Callable[[str], T],
    *,
    aliases: tuple[str, ...] = (),
    unit: str = "",
    source: str,
    help: str,  # noqa: A002 - the word every CLI uses
) -> Any:
    SETTINGS.append(SettingLine(field, variable, aliases, default, unit, source, help))

    def convert(text: str) -> T:
        try:
            return parse(text)
        except ValueError as error:
            shown = "***" if parse in (values.secret, values.nats_servers) else text
            raise SettingsError(variable, shown, str(error)) from None

    return environ.var(default=default, converter=convert, name=variable, help=help)
