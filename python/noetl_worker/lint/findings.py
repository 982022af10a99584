"""What `check` found, and where."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

from noetl_worker.lint.codes import CODES
from noetl_worker.lint.positions import Place, PlaybookText
from noetl_worker.tools.fields import excerpt
from noetl_worker.tools.registry import Registry

Severity: TypeAlias = Literal["error", "warning"]


_LONGEST: Final = 500
"""Characters: a message may quote what a playbook says."""


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
    """One playbook that is being looked at, and what the rules have found so far."""

    playbook: PlaybookText
    file: str
    registry: Registry
    plane: str | None = None
    """python or rust: the one plane that it is for; None: both."""
    credentials: frozenset[str] | None = None
    """Names that `auth` may give; None: not known."""
    found: list[Mistake] = field(default_factory=list)

    @property
    def document(self) -> Mapping[str, object]:
        value = self.playbook.value
        return value if isinstance(value, dict) else {}

    def add(self, code: str, place: Place, message: str, *, severity: Severity | None = None) -> None:
        """Report it once a place: what is wrong of a loop's anchor is wrong once."""
        level = severity or CODES[code].severity
        message = excerpt(
            "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in message), _LONGEST
        )
        mistake = Mistake(self.file, place.line, place.column, code, message, level)
        if mistake not in self.found:
            self.found.append(mistake)

    def add_of_plane(self, code: str, place: Place, message: str, plane: str, *, fails: bool) -> None:
        """What does not work on this plane: a warning; an error if it fails there, and the playbook is for it."""
        if self.plane in (None, plane):
            is_error = fails and self.plane == plane
            self.add(
                code, place, f"on the {plane.capitalize()} plane {message}", severity="error" if is_error else "warning"
            )

    def has(self, prefix: str) -> bool:
        """Whether there is an error of a group, as NW1."""
        return any(mistake.code.startswith(prefix) and mistake.severity == "error" for mistake in self.found)
