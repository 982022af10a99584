"""A setting: its variable, its other spellings, its default, and its parser. texts.ini describes it for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from noetl_worker.errors import SettingsError
from noetl_worker.settings import values

_LINE: Final = "noetl_worker.settings.line"
FILE_SUFFIX: Final = "_FILE"
"""Suffix of a variable that names a file: NATS_PASSWORD_FILE names the password's file. Every secret has one."""


class SettingText(NamedTuple):
    """Texts about a setting, for people."""

    help: str
    unit: str
    source: str
    """Program that the variable's name comes from."""


@cache
def setting_texts() -> Mapping[str, SettingText]:
    """Return the texts of all settings by variable. Only commands that show settings read them."""
    from configparser import ConfigParser

    texts = ConfigParser(interpolation=None, delimiters="=", comment_prefixes="#")
    texts.read_string(Path(__file__).with_name("texts.ini").read_text(encoding="utf-8"))
    return {
        name: SettingText(" ".join(one["help"].split()), one.get("unit", ""), one.get("source", "ours"))
        for name, one in texts.items()
        if name != texts.default_section
    }


@dataclass(frozen=True, slots=True)
class SettingLine:
    """An entry of docs/settings.md."""

    field: str
    variable: str
    aliases: tuple[str, ...]
    default: str
    is_secret: bool
    parse: Callable[[str], Any]

    @property
    def names(self) -> tuple[str, ...]:
        """The variable, then its other spellings."""
        return (self.variable, *self.aliases)

    @property
    def text(self) -> SettingText:
        """Texts about this setting; the variable of a file has none of its own."""
        texts, secret = setting_texts(), self.variable.removesuffix(FILE_SUFFIX)
        if self.variable not in texts and secret in texts:
            return SettingText(f"path of a file that has what {secret} would", "", "ours")
        return texts[self.variable]

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
) -> Any:
    """Define a field of a settings class; `setting_lines` adds the field's name."""
    is_secret = parse in (values.secret, values.nats_servers)
    line = SettingLine("", variable, aliases, default, is_secret, parse)
    return field(default_factory=lambda: line.value(default), metadata={_LINE: line})


def setting_lines(settings: Any) -> list[SettingLine]:
    """Return the setting of each field of a settings class, in the fields' order."""
    return [replace(one.metadata[_LINE], field=one.name) for one in fields(settings) if _LINE in one.metadata]
