"""A setting: its variable, its other spellings, its default, and its parser."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from noetl_worker.errors import SettingsError
from noetl_worker.settings import values

_LINE: Final = "noetl_worker.settings.line"
FILE_SUFFIX: Final = "_FILE"
"""Suffix of a variable that names a file: NATS_PASSWORD_FILE names the password's file. Every secret has one."""


@dataclass(frozen=True, slots=True)
class SettingLine:
    """An entry of docs/settings.md."""

    field: str
    variable: str
    aliases: tuple[str, ...]
    default: str
    unit: str
    source: str
    help: str
    is_secret: bool
    parse: Callable[[str], Any]

    @property
    def names(self) -> tuple[str, ...]:
        """The variable, then its other spellings."""
        return (self.variable, *self.aliases)

    @property
    def file_variable(self) -> str:
        """The variable that names a file holding the secret."""
        return f"{self.variable}{FILE_SUFFIX}"

    def value(self, text: str) -> Any:
        """Parse a text. Raises SettingsError for a text that is not allowed."""
        try:
            return self.parse(text)
        except ValueError as error:
            shown = "***" if self.is_secret else values.strip_login(text)
            raise SettingsError(self.variable, shown, str(error)) from None


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
    """Define a field of a settings class; `setting_lines` adds the field's name."""
    is_secret = parse in (values.secret, values.nats_servers)
    line = SettingLine("", variable, aliases, default, unit, source, help, is_secret, parse)
    return field(default_factory=lambda: line.value(default), metadata={_LINE: line})


def setting_lines(settings: Any) -> list[SettingLine]:
    """Return the setting of each field of a settings class, in the fields' order."""
    return [replace(one.metadata[_LINE], field=one.name) for one in fields(settings) if _LINE in one.metadata]
