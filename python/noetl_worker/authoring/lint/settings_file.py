"""The settings of `noetl-worker check`, from `.noetl-check.yaml` in the playbooks' folder or a parent, and flags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from noetl_worker.authoring.dev.credential_files import read_document
from noetl_worker.authoring.lint.codes import CODES
from noetl_worker.errors import PlaybookError
from noetl_worker.tools.fields import nearest

NAME: Final = ".noetl-check.yaml"
_PLANES: Final = ("python", "rust")


@dataclass(frozen=True, slots=True)
class CheckSettings:
    """The settings of `noetl-worker check`. Mistakes are selected by code (NW101) or by code prefix (NW1)."""

    select: tuple[str, ...] = ()
    """Codes of the mistakes to report, such as NW101. If empty, all mistakes are reported."""
    ignore: tuple[str, ...] = ()
    """Codes of the mistakes not to report."""
    plane: str | None = None
    strict: bool = False
    baseline: Path | None = None
    credentials: Path | None = None

    def wants(self, code: str) -> bool:
        is_selected = not self.select or code.startswith(self.select)
        return is_selected and not (self.ignore and code.startswith(self.ignore))

    def with_flags(self, **flags: Any) -> CheckSettings:
        """Return a copy of these settings, overridden by the command-line flags that are not None, () or False.

        Raises PlaybookError for an unknown code or plane.
        """
        given = {name: value for name, value in flags.items() if value not in (None, (), False)}
        _check("the command line", given)
        return replace(self, **given)


def find_settings(folder: Path) -> CheckSettings:
    """Return the settings from the nearest `.noetl-check.yaml`, or the defaults if there is no such file.

    The file is looked for in this folder, then in each parent folder up to the root of the Git repository.

    Raises:
        PlaybookError: the file cannot be read, or has an unknown key or value.
    """
    for place in (folder, *folder.parents):
        file = place / NAME
        if file.is_file():
            return _read(file)
        if (place / ".git").exists():
            break
    return CheckSettings()


def _read(file: Path) -> CheckSettings:
    document = read_document(file, "not YAML")
    if not isinstance(document, dict):
        raise PlaybookError(f"{file}: write a mapping, such as `ignore: [NW309]`")
    known = tuple(CheckSettings.__dataclass_fields__)
    for name in document:
        if name not in known:
            raise PlaybookError(f"{file}: unknown key '{name}'{nearest(str(name), known)}")
    given = {name: value for name, value in document.items() if value is not None}
    for name in ("select", "ignore"):
        if name in given:
            codes = given[name] if isinstance(given[name], list) else [given[name]]
            given[name] = tuple(str(code) for code in codes)
    for name in ("baseline", "credentials"):
        if name in given:
            given[name] = file.parent / str(given[name])
    _check(str(file), given)
    return CheckSettings(**given)


def _check(source: str, given: Mapping[str, Any]) -> None:
    for name in ("select", "ignore"):
        for code in given.get(name, ()):
            if not any(known.startswith(code) for known in CODES) or not code:
                raise PlaybookError(f"{source}: {name}: no code begins with '{code}'{nearest(code, list(CODES))}")
    if given.get("plane") not in (None, *_PLANES):
        raise PlaybookError(f"{source}: plane is '{given['plane']}', not {' or '.join(_PLANES)}")
    if not isinstance(given.get("strict", False), bool):
        raise PlaybookError(f"{source}: strict is {given['strict']!r}: write true or false")


def credential_names(file: Path) -> Sequence[str]:
    """Return the names of the credentials in a YAML file {NAME: {type, data}}.

    Raises PlaybookError for an unreadable file. The error's text never contains a secret from the file.
    """
    document = read_document(file, "not YAML")
    if not isinstance(document, dict):
        raise PlaybookError(f"{file}: write a mapping of names to credentials, {{NAME: {{type: ..., data: ...}}}}")
    return [str(name) for name in document]
