"""One setting: its variable, its spellings, its default, and how its text becomes a value."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

import attr
import environ

from noetl_worker.errors import SettingsError
from noetl_worker.settings import values

_LINE: Final = "noetl_worker.settings.line"
FILE_SUFFIX: Final = "_FILE"
"""NATS_PASSWORD_FILE names a file with what NATS_PASSWORD would have; every secret has such a variable."""


@dataclass(frozen=True, slots=True)
class SettingLine:
    """One entry of docs/settings.md."""

    field: str
    variable: str
    aliases: tuple[str, ...]
    default: str
    unit: str
    source: str
    help: str
    is_secret: bool

    @property
    def names(self) -> tuple[str, ...]:
        """The variable, then its other spellings."""
        return (self.variable, *self.aliases)

    @property
    def file_variable(self) -> str:
        """Of a secret: the variable that names a file with it."""
        return f"{self.variable}{FILE_SUFFIX}"


def setting(
    variable: str,
    default: str = "",
    parse: Callable[[str], Any] = values.text,
    *,
    aliases: tuple[str, ...] = (),
    unit: str = "",
    source: str = "ours",
    help: str,  # noqa: A002 - the word every CLI uses
) -> Any:
    """A field of a settings class; `lines_of` knows its name."""
    is_secret = parse in (values.secret, values.nats_servers)

    def convert(text: str) -> Any:
        try:
            return parse(text)
        except ValueError as error:
            raise SettingsError(variable, "***" if is_secret else values.without_login(text), str(error)) from None

    made = environ.var(default=default, converter=convert, name=variable, help=help)
    made.metadata[_LINE] = SettingLine("", variable, aliases, default, unit, source, help, is_secret)
    return made


def lines_of(settings: type) -> list[SettingLine]:
    """The line of each field of a settings class, in their order."""
    return [
        replace(attribute.metadata[_LINE], field=attribute.name)
        for attribute in attr.fields(settings)
        if _LINE in attribute.metadata
    ]
