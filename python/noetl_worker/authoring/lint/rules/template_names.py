"""Findings about a word of a template, where it stands."""

from __future__ import annotations

from noetl_worker.authoring.dev.template_names import Reading, Word
from noetl_worker.authoring.lint.findings import Inspected


def add_of_word(
    inspection: Inspected, reading: Reading, word: Word, code: str, message: str, *, is_warning: bool | None = None
) -> None:
    """Report a mistake at the word's place in the text."""
    place = inspection.playbook.within(reading.path, word.line, word.name)
    inspection.add(code, place, message, is_warning=is_warning)
