"""The mistakes in a playbook that `noetl-worker dev` and `noetl-worker test` show before they run the playbook."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from noetl_worker.authoring.dev.orchestration.playbook import read_file_text
from noetl_worker.authoring.lint.files import inspect
from noetl_worker.authoring.lint.findings import Mistake
from noetl_worker.authoring.lint.formats import FORMATS
from noetl_worker.authoring.lint.settings_file import find_settings
from noetl_worker.tools.registry import Registry

_COMPLETED: Final = "NW108"
"""Code for a missing apiVersion, kind or metadata, which `noetl-worker dev` and `test` allow and real planes refuse."""


def look_at(file: Path, *, plane: str, select: tuple[str, ...] = ()) -> list[tuple[bool, str]]:
    """Return a pair for each finding: True if the finding keeps the playbook from running, and the finding as a line of
    text.

    Args:
        plane: the plane that the playbook will run on, python or rust.
        select: codes to look for; empty: the codes that the settings file beside the playbook selects.
    """
    settings = find_settings(file.resolve().parent).with_flags(plane=plane, select=select)
    found = inspect(read_file_text(file), str(file), Registry(), settings)
    return [(_is_fatal(mistake), FORMATS["text"]([mistake])) for mistake in found]


def _is_fatal(mistake: Mistake) -> bool:
    return mistake.severity == "error" and mistake.code != _COMPLETED
