"""`noetl-worker check PATH...`: find mistakes in playbooks before the playbooks run."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from noetl_worker.cli.engine_notice import notice_missing_engine
from noetl_worker.cli.system import with_extra_local
from noetl_worker.errors import PlaybookError
from noetl_worker.models.wire import Dialect
from noetl_worker.observability.terminal import counted, say

if TYPE_CHECKING:
    from noetl_worker.authoring.lint.findings import Mistake

EXIT_FOUND: Final = 1
_STDIN: Final = Path("-")


class CheckFormat(str, Enum):
    TEXT = "text"
    JSON = "json"
    SARIF = "sarif"
    GITHUB = "github"


def check(
    paths: Annotated[
        list[Path] | None, typer.Argument(help="Playbooks, folders of them, or - for standard input.")
    ] = None,
    format_: Annotated[CheckFormat, typer.Option("--format", help="How findings are written.")] = CheckFormat.TEXT,
    plane: Annotated[
        Dialect | None, typer.Option("--plane", help="Plane that the playbooks are for. What fails there is an error.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 for warnings too.")] = False,
    select: Annotated[
        list[str] | None, typer.Option("--select", metavar="CODE", help="These codes alone: NW101, or NW1 for a group.")
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option("--ignore", metavar="CODE", help="Not these codes.")] = None,
    credentials: Annotated[
        Path | None,
        typer.Option("--credentials", help="A file {NAME: {type, data}} with the names that `auth` may have."),
    ] = None,
    baseline: Annotated[
        Path | None, typer.Option("--baseline", help="File of earlier findings. They are left out.")
    ] = None,
    write_baseline: Annotated[
        Path | None, typer.Option("--write-baseline", help="Write all findings into this file, for --baseline.")
    ] = None,
    stdin_filename: Annotated[
        str, typer.Option("--stdin-filename", help="Name of standard input in findings.")
    ] = "<stdin>",
    only_playbooks: Annotated[
        bool, typer.Option("--only-playbooks", help="Skip files that do not look like a playbook.")
    ] = False,
    markdown: Annotated[
        Path | None, typer.Option("--markdown", help="Write the page of all codes to this file, and check nothing.")
    ] = None,
) -> None:
    """Look for mistakes in playbooks. Runs nothing, and uses no network.

    `.noetl-check.yaml` beside the playbooks, or in a folder above, may have the
    options select, ignore, plane, strict, credentials and baseline. A flag wins.

    Exit codes: 0 no error (there may be warnings); 1 an error was found;
    2 a flag is wrong, or a file cannot be read.
    """
    notice_missing_engine()
    with with_extra_local():
        from noetl_worker.authoring.lint.formats import FORMATS
    if markdown is not None:
        _write_page(markdown)
        return
    flags = {
        "select": tuple(select or ()),
        "ignore": tuple(ignore or ()),
        "plane": plane.value if plane is not None else None,
        "strict": strict,
        "credentials": credentials,
        "baseline": baseline,
    }
    found, files, is_wrong = _find_mistakes(paths or [], flags, stdin_filename, only_playbooks=only_playbooks)
    if write_baseline is not None:
        _write_baseline(write_baseline, found)
        return
    _show(FORMATS[format_.value](found), found, files)
    raise typer.Exit(EXIT_FOUND if is_wrong else 0)


def _show(text: str, found: list[Mistake], files: int) -> None:
    if text:
        say(text)
    errors = sum(mistake.severity == "error" for mistake in found)
    warnings = len(found) - errors
    say(f"{counted(files, 'playbook')}: {counted(errors, 'error')}, {counted(warnings, 'warning')}", err=True)


def _find_mistakes(
    paths: list[Path], flags: Mapping[str, object], stdin_filename: str, *, only_playbooks: bool
) -> tuple[list[Mistake], int, bool]:
    """Check playbooks. Return the mistakes, the number of playbooks, and whether `check` has to fail.

    An error makes `check` fail; with the setting `strict`, a warning does too.
    """
    from noetl_worker.authoring.lint.files import inspect, playbooks_in
    from noetl_worker.authoring.lint.settings_file import find_settings
    from noetl_worker.tools.registry import Registry

    if not paths:
        raise PlaybookError("name a playbook, a folder of them, or - for standard input")
    registry, found, files, is_wrong = Registry(), [], 0, False
    texts = [(Path(stdin_filename), sys.stdin.read(), stdin_filename)] if _STDIN in paths else []
    named = playbooks_in([path for path in paths if path != _STDIN], only_playbooks=only_playbooks)
    for path, text, name in [*texts, *((path, text, str(path)) for path, text in named)]:
        settings = find_settings(path.resolve().parent).with_flags(**flags)
        mistakes = inspect(text, name, registry, settings)
        is_wrong |= any(settings.strict or mistake.severity == "error" for mistake in mistakes)
        found += mistakes
        files += 1
    return found, files, is_wrong


def _write_baseline(file: Path, found: list[Mistake]) -> None:
    from noetl_worker.authoring.lint.baseline import write_baseline

    say(f"{counted(write_baseline(file, found), 'finding')} written to {file}", err=True)


def _write_page(file: Path) -> None:
    from noetl_worker.authoring.lint.page import page

    try:
        file.write_text(page(), encoding="utf-8")
    except OSError as error:
        raise PlaybookError(f"{file}: {error.strerror or error}; name a file that can be written") from error
