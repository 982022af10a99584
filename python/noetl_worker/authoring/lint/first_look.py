"""The findings that `dev` shows before it runs a playbook."""

from __future__ import annotations

from pathlib import Path

from noetl_worker.authoring.dev.session import load_document
from noetl_worker.authoring.lint.files import inspect
from noetl_worker.authoring.lint.formats import FORMATS
from noetl_worker.authoring.lint.settings_file import settings_beside
from noetl_worker.tools.registry import Registry


def look_at(file: Path, *, plane: str) -> list[str]:
    """Return a line for each finding.

    Raises:
        PlaybookError: it cannot be run at all, in one line.
    """
    text, _ = load_document(file, {})
    settings = settings_beside(file.resolve().parent).with_flags(plane=plane)
    return [FORMATS["text"]([mistake]) for mistake in inspect(text, str(file), Registry(), settings)]
