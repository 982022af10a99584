"""The mistakes that `noetl-worker check` has found in one playbook."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from noetl_worker.authoring.dev.positions import Place, PlaybookText
from noetl_worker.authoring.dev.template_names import Reading, Word
from noetl_worker.authoring.lint.codes import CODES, Severity
from noetl_worker.authoring.outline import Path
from noetl_worker.tools.fields import excerpt
from noetl_worker.tools.registry import Registry

_LONGEST: Final = 500
"""Largest number of characters of a message, which may quote the playbook."""


@dataclass(frozen=True, slots=True, order=True)
class Mistake:
    """A mistake in a playbook, with its place in the file: line and column."""

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
    """The plane that the playbook is checked for, python or rust; None: both."""
    credentials: Collection[str] | None = None
    """Names of the credentials that exist; None: not known."""
    found: list[Mistake] = field(default_factory=list)
    _said: set[tuple[int, int, str, str]] = field(default_factory=set)
    idle: list[range] = field(default_factory=list)
    """Line ranges that never run, such as a workbook entry that no step uses. A mistake there is only a warning."""
    refused_by: dict[Mistake, set[str]] = field(default_factory=dict)
    """Mapping from a mistake to the names of the planes that refuse the playbook because of the mistake."""
    refusers: set[str] = field(default_factory=set)
    """Names of the planes that refuse the playbook, for whatever mistake."""

    @property
    def document(self) -> Mapping[str, object]:
        value = self.playbook.value
        return value if isinstance(value, dict) else {}

    def add(self, code: str, where: Place | Path, message: str, *, is_warning: bool | None = None) -> None:
        """Report a mistake. The same mistake at the same place, such as in a YAML anchor, is reported once.

        Args:
            where: line and column, or the path of a value; then the value's first character is the place.
            is_warning: True makes this mistake a warning, False an error; None: the code decides.
        """
        about = CODES[code]
        severity: Severity = about.severity
        if is_warning is not None:
            severity = "warning" if is_warning else "error"
        if about.plane:
            if self.plane not in (None, about.plane):
                return
            severity = "error" if about.fails and self.plane else "warning"
            message = f"on the {about.plane.capitalize()} plane {message}"
        shown = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in message)
        place = where if isinstance(where, Place) else self.playbook.value_place(where)
        mistake = Mistake(self.file, place.line, place.column, code, excerpt(shown, _LONGEST), severity)
        said = (mistake.line, mistake.column, code, mistake.message)
        if said not in self._said:
            self._said.add(said)
            self.found.append(mistake)

    def add_word(
        self, reading: Reading, word: Word, code: str, message: str, *, is_warning: bool | None = None
    ) -> None:
        """Report a mistake at the line and column of a word in a template, once for the same mistake and place."""
        self.add(code, self.playbook.word_place(reading.path, word.line, word.name), message, is_warning=is_warning)

    def refuse(self, mistake: Mistake, plane: str) -> None:
        """Note that a plane refuses the playbook because of a mistake, so that the mistake is an error."""
        self.refused_by.setdefault(mistake, set()).add(plane)

    def judged(self) -> list[Mistake]:
        """Return the mistakes with their final severities.

        If the playbook is checked for both planes and only one of them refuses it, the message names that plane.
        """
        return [self._judged(mistake) for mistake in self.found]

    def _judged(self, mistake: Mistake) -> Mistake:
        planes = self.refused_by.get(mistake)
        if not planes:
            is_of_both = len(self.refusers) > 1 and CODES[mistake.code].is_refusal
            if is_of_both:
                return replace(mistake, severity="error")
            is_idle = any(mistake.line in lines for lines in self.idle) and not CODES[mistake.code].is_refusal
            return replace(mistake, severity="warning") if is_idle else mistake
        name = next(iter(planes)).capitalize()
        is_of_one = self.plane is None and len(planes) == 1
        named = f"{mistake.message}; the {name} plane refuses it" if is_of_one else mistake.message
        return replace(mistake, severity="error", message=named)

    def has(self, prefix: str) -> bool:
        """Return whether `noetl-worker check` found an error with a code that begins with `prefix`.

        A mistake for which a plane may refuse the playbook counts as an error.

        Args:
            prefix: first characters of the codes to look for, for example NW1.
        """
        found = [mistake for mistake in self.found if mistake.code.startswith(prefix)]
        return any(mistake.severity == "error" or CODES[mistake.code].is_judged for mistake in found)
