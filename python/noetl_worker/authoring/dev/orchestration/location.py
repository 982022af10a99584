"""The location of a part of a playbook that a plane cannot execute. Messages use the location to name a line of the
playbook's file.
"""

from __future__ import annotations

from dataclasses import dataclass

from noetl_worker.authoring.outline import Path
from noetl_worker.errors import PlaybookError, TemplateError


@dataclass(frozen=True, slots=True)
class Location:
    """The location of a part of a playbook: its step, and its path in the step."""

    step: str = ""
    """Name of the step that contains the located part of the playbook; "" for a part outside the steps."""
    path: Path = ()
    """Path of the located part inside the step. For a part outside the steps, the path inside the whole playbook."""
    template: str = ""
    """Text of a refused template whose exact path is unknown; otherwise "". A search below `path` for this text gives
    the template's line."""


class RefusedPart(PlaybookError):
    """Error for a playbook that a plane does not execute because of one part of it. `location` locates this part."""

    def __init__(self, reason: str, location: Location) -> None:
        super().__init__(reason)
        self.location = location


class RefusedTemplate(TemplateError):
    """Error for a template that the Rust plane cannot render.

    The template's place in the playbook is not known. So `location` has only the template's text, to search for.
    """

    def __init__(self, reason: str, template: str) -> None:
        super().__init__(reason)
        self.location = Location(template=template)
