"""The check of one playbook by all rules of `noetl-worker check`."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final

from noetl_worker.authoring.dev.positions import read_text
from noetl_worker.authoring.lint.findings import Inspected, Mistake
from noetl_worker.authoring.lint.rules.code import check_code
from noetl_worker.authoring.lint.rules.flow import check_flow
from noetl_worker.authoring.lint.rules.planes import check_planes
from noetl_worker.authoring.lint.rules.refusals import check_refusals
from noetl_worker.authoring.lint.rules.shape import check_shape
from noetl_worker.authoring.lint.rules.templates import check_templates, find_templates
from noetl_worker.authoring.lint.rules.tools import check_tools
from noetl_worker.authoring.lint.rules.traps import check_traps
from noetl_worker.tools.registry import Registry

_SIGNS: Final = re.compile(
    r"^(?:workflow\s*:|kind\s*:\s*['\"]?Playbook\b|apiVersion\s*:\s*['\"]?noetl\.io/)", re.MULTILINE
)
_OTHER_KIND: Final = re.compile(r"^kind\s*:\s*['\"]?(?!Playbook\b)\w", re.MULTILINE)
_WORKFLOW: Final = re.compile(r"^workflow\s*:", re.MULTILINE)
_SILENCED: Final = re.compile(r"#[ \t]*noetl:[ \t]*ignore\b[ \t:]*(NW\d+(?:[ \t,]+NW\d+)*)?")


def looks_like_a_playbook(text: str) -> bool:
    """Return whether the text of a YAML file is probably a playbook, not another resource such as a Subscription."""
    other = _OTHER_KIND.search(text)
    return _SIGNS.search(text) is not None and (other is None or _WORKFLOW.search(text) is not None)


def inspect_text(
    text: str,
    file: str,
    registry: Registry,
    *,
    plane: str | None = None,
    credentials: Collection[str] | None = None,
) -> list[Mistake]:
    """Return the mistakes of a playbook in the order of its lines. Lines marked `# noetl: ignore` are left out.

    Args:
        text: the playbook.
        file: path of the playbook, for the findings.
        registry: the tools of this worker.
        plane: python or rust. A mistake that fails on this plane is an error; mistakes of only the other plane are
            left out. None: both planes.
        credentials: names of the credentials that exist; None: names in `auth` are not checked.
    """
    playbook = read_text(text)
    inspection = Inspected(playbook, file, registry, plane, credentials)
    if playbook.unreadable is not None:
        place, reason, is_bare = playbook.unreadable
        hint = '; quote it: "{{ ... }}"' if is_bare else ""
        inspection.add("NW307" if is_bare else "NW100", place, reason + hint)
    else:
        check_shape(inspection)
        check_tools(inspection)
        readings = list(find_templates(inspection))
        check_templates(inspection, readings)
        check_flow(inspection)
        check_planes(inspection, readings)
        check_traps(inspection)
        check_refusals(inspection)
        check_code(inspection)
    lines = playbook.lines
    return sorted(mistake for mistake in inspection.judged() if not _is_silenced(mistake, lines))


def _is_silenced(mistake: Mistake, lines: list[str]) -> bool:
    """Return True if a comment `# noetl: ignore` covers a mistake.

    The comment is at the end of the mistake's line, or alone on the line above.
    """
    own = lines[mistake.line - 1] if mistake.line <= len(lines) else ""
    above = lines[mistake.line - 2].strip() if mistake.line > 1 else ""
    for text in (own, above if above.startswith("#") else ""):
        found = _SILENCED.search(text)
        if found is not None and (found[1] is None or mistake.code in re.findall(r"NW\d+", found[1])):
            return True
    return False
