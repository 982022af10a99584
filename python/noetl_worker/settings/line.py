"""The declaration of a setting: variable, aliases, default, parser, and texts for people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Final

from noetl_worker.errors import SettingsError
from noetl_worker.settings import values

_LINE: Final = "noetl_worker.settings.line"
FILE_SUFFIX: Final = "_FILE"
"""Suffix of a variable that names a file: NATS_PASSWORD_FILE names the password's file. Every secret has such a
variable."""


@dataclass(frozen=True, slots=True)
class SettingLine:
    """The declaration of one setting: an entry of docs/settings.md."""

    field: str
    """Name of the field in `Settings`. It is "" for a variable such as NOETL_SECRET_<NAME>, which has no field."""
    variable: str
    aliases: tuple[str, ...]
    """Further variables that set the same field, such as names that NoETL's published workers use."""
    default: str
    is_secret: bool
    """True for a secret. Its value is hidden in output, and `variable` + `_FILE` may name a file with the value."""
    parse: Callable[[str], Any]
    """Parser of the setting's text, which raises ValueError with the allowed values."""
    meaning: str = ""
    """Explanation for people, for docs/settings.md and the help of the flag."""
    unit: str = ""
    source: str = "ours"
    """Program from which the variable's name or default comes, such as "Rust worker"; "ours" for this worker."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all environment variables that set this field: `variable`, then its aliases."""
        return (self.variable, *self.aliases)

    @property
    def file_variable(self) -> str:
        """Name of the environment variable that gives the path of a file with the secret."""
        return f"{self.variable}{FILE_SUFFIX}"

    def value(self, text: str) -> Any:
        """Return the parsed value of `text`. Raises SettingsError if `text` is not allowed; this error does not show a
        secret."""
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
    meaning: str,
    unit: str = "",
    source: str = "ours",
) -> Any:
    """Define a field of a settings class by the environment variable that sets the field.

    Args:
        variable: environment variable that sets the field.
        default: text that is parsed if no source sets the variable.
        parse: returns the value of a text, or raises ValueError with the allowed values.
        aliases: other names of the variable.
        meaning: explanation for people, for docs/settings.md, `noetl-worker config` and the help of the flag.
        unit: unit of the value, shown with `meaning`.
        source: program that the variable's name or default comes from.
    """
    is_secret = parse in (values.secret, values.nats_servers)
    line = SettingLine("", variable, aliases, default, is_secret, parse, meaning, unit, source)
    return field(default_factory=lambda: line.value(default), metadata={_LINE: line})


def setting_lines(settings: Any) -> list[SettingLine]:
    """Return the declaration of each setting in a settings class, in the order of the fields."""
    return [replace(one.metadata[_LINE], field=one.name) for one in fields(settings) if _LINE in one.metadata]
