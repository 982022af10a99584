"""The baseline of `noetl-worker check`: a file with earlier findings, which a later check does not report again."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from noetl_worker.authoring.lint.findings import Mistake
from noetl_worker.errors import PlaybookError


def _identity(mistake: Mistake, folder: Path) -> str:
    """Return the text by which the baseline recognises a finding. The text has no line number, since lines move."""
    try:
        name = Path(os.path.relpath(mistake.file, folder)).as_posix()
    except ValueError:  # another drive
        name = mistake.file
    return f"{name}: {mistake.code} {mistake.message}"


def write_baseline(file: Path, mistakes: Iterable[Mistake]) -> int:
    """Write findings to a baseline file. Return their number. Raises PlaybookError if the file cannot be written."""
    lines = sorted(_identity(mistake, file.parent) for mistake in mistakes)
    try:
        file.write_text(json.dumps(lines, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise PlaybookError(f"{file}: {error.strerror or error}; name a file that can be written") from error
    return len(lines)


def new_mistakes(file: Path, mistakes: Sequence[Mistake]) -> list[Mistake]:
    """Return the findings that are not in the baseline file. Raises PlaybookError if the file cannot be read.

    If the file has a finding twice, two equal findings are left out, and a third is returned.
    """
    try:
        lines = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise PlaybookError(f"{file}: {error.strerror or error}; make the file with --write-baseline") from error
    except ValueError:
        lines = None
    if not isinstance(lines, list):
        raise PlaybookError(f"{file}: no baseline; make a baseline with --write-baseline")
    known = Counter(map(str, lines))
    found: list[Mistake] = []
    for mistake in mistakes:
        identity = _identity(mistake, file.parent)
        if known[identity]:
            known[identity] -= 1
        else:
            found.append(mistake)
    return found
