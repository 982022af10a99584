"""The mistakes that `check` found, with their places."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from noetl_worker.authoring.dev.positions import Path, Place, PlaybookText
from noetl_worker.authoring.lint.codes import CODES, Severity
from noetl_worker.tools.fields import excerpt
from noetl_worker.tools.registry import Registry

_LONGEST: Final = 500
"""Most characters of a message, which may quote the playbook."""


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """One finding."""

    file: str
    line: int
    column: int
    code: str
    message: str
    severity: Severity


@dataclass(slots=True)
class Inspected:
    """A playbook being checked, and the mistakes found so far."""

    playbook: PlaybookText
    file: str
    registry: Registry
    plane: str | None = None
    """The plane the playbook is for, python or rust; None: both."""
    credentials: Collection[str] | None = None
    """Names that `auth` may give; None: unknown."""
    found: list[Mistake] = field(default_factory=list)

    @property
    def document(self) -> Mapping[str, object]:
        value = self.playbook.value
        return value if isinstance(value, dict) else {}

    def add(self, code: str, where: Place | Path, message: str, *, is_warning: bool = False) -> None:
        """Report a mistake, once per place: a mistake in an anchor is reported once for all its aliases.

        Args:
            where: a path: where that value begins.
            is_warning: here, whatever the code is otherwise.
        """
        about = CODES[code]
        severity: Severity = "warning" if is_warning else about.severity
        if about.plane:
            if self.plane not in (None, about.plane):
                return
            severity = "error" if about.fails and self.plane else "warning"
            message = f"on the {about.plane.capitalize()} plane {message}"
        shown = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in message)
        place = where if isinstance(where, Place) else self.playbook.at(where)
        mistake = Mistake(self.file, place.line, place.column, code, excerpt(shown, _LONGEST), severity)
        if mistake not in self.found:
            self.found.append(mistake)

    def has(self, prefix: str) -> bool:
        """Return True if there is an error of a group such as NW1."""
        return any(mistake.code.startswith(prefix) and mistake.severity == "error" for mistake in self.found)
