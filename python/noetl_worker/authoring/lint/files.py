"""The playbook files that `noetl-worker check` reads, and the mistakes to report in them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from noetl_worker.authoring.dev.orchestration.playbook import read_file_text
from noetl_worker.authoring.lint.baseline import new_mistakes
from noetl_worker.authoring.lint.findings import Mistake
from noetl_worker.authoring.lint.inspector import inspect_text, looks_like_a_playbook
from noetl_worker.authoring.lint.settings_file import CheckSettings, credential_names
from noetl_worker.tools.registry import Registry


def playbooks_in(paths: Sequence[Path], *, only_playbooks: bool = False) -> Iterator[tuple[Path, str]]:
    """Yield the files to check, each with its text.

    Args:
        paths: files, which are always checked, and folders, in which YAML files that look like a playbook are checked.
        only_playbooks: True leaves out files in `paths` too if they do not look like a playbook.

    Raises:
        PlaybookError: a path cannot be read.
    """
    seen: set[Path] = set()
    for path in paths:
        is_folder = path.is_dir()
        for file in _yaml_files(path) if is_folder else (path,):
            if file.resolve() in seen:
                continue
            seen.add(file.resolve())
            text = read_file_text(file)
            if looks_like_a_playbook(text) or not (is_folder or only_playbooks):
                yield file, text


def _yaml_files(folder: Path) -> list[Path]:
    found = [*folder.rglob("*.yaml"), *folder.rglob("*.yml")]
    files = [file for file in found if not _is_no_file(os.fspath(file))]
    return sorted(file for file in files if not any(part.startswith(".") for part in file.relative_to(folder).parts))


def _is_no_file(path: str) -> bool:
    """Return True for a folder whose name ends in .yaml, and for a link to nothing.

    The function uses os.path, since the methods of Path raise PermissionError for a path without permission.
    """
    return os.path.isdir(path) or (os.path.islink(path) and not os.path.exists(path))  # noqa: PTH110, PTH112, PTH114


def inspect(text: str, file: str, registry: Registry, settings: CheckSettings) -> list[Mistake]:
    """Return the mistakes in a playbook. The settings say which codes are reported; mistakes in the baseline are left
    out.

    Args:
        text: the playbook.
        file: path of the playbook, for the findings.

    Raises:
        PlaybookError: the baseline or the credentials file that the settings name cannot be read.
    """
    names = credential_names(settings.credentials) if settings.credentials is not None else None
    found = inspect_text(text, file, registry, plane=settings.plane, credentials=names)
    wanted = [mistake for mistake in found if settings.wants(mistake.code)]
    return new_mistakes(settings.baseline, wanted) if settings.baseline is not None else wanted
