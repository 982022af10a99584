"""The part of a playbook that a plane cannot execute, so that messages can name a line of the file."""

from __future__ import annotations

from dataclasses import dataclass

from noetl_worker.authoring.outline import Path
from noetl_worker.errors import PlaybookError, TemplateError


@dataclass(frozen=True, slots=True)
class Spot:
    """A part of a playbook."""

    step: str = ""
    """Name of the part's step; "" for a part outside the steps."""
    path: Path = ()
    """Path of the part, below its step or, without a step, below the top of the playbook."""
    template: str = ""
    """Text of the refused template, somewhere below `path`, if the template's exact path is not known; otherwise ""."""


class RefusedPart(PlaybookError):
    """A plane does not execute a playbook because of one part of it."""

    def __init__(self, reason: str, spot: Spot) -> None:
        super().__init__(reason)
        self.spot = spot


class RefusedTemplate(TemplateError):
    """The Rust plane cannot render a template."""

    def __init__(self, reason: str, template: str) -> None:
        super().__init__(reason)
        self.spot = Spot(template=template)
