"""The part of a playbook that a plane refuses, so that its author gets a line of the file."""

from __future__ import annotations

from dataclasses import dataclass

from noetl_worker.authoring.outline import Path
from noetl_worker.errors import PlaybookError, TemplateError


@dataclass(frozen=True, slots=True)
class Spot:
    """A part of a playbook, as well as its plane can name it."""

    step: str = ""
    path: Path = ()
    """Path below the step; without a step, from the top."""
    template: str = ""
    """A whole text somewhere below the path."""


class RefusedPart(PlaybookError):
    """A part of a playbook for which a plane does not execute it."""

    def __init__(self, reason: str, spot: Spot) -> None:
        super().__init__(reason)
        self.spot = spot


class RefusedTemplate(TemplateError):
    """A template that the Rust plane cannot render."""

    def __init__(self, reason: str, template: str) -> None:
        super().__init__(reason)
        self.spot = Spot(template=template)
