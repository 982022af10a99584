"""The codes of the mistakes that `noetl-worker check` finds. codes.yaml has an example and a remedy for each code."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from noetl_worker.text import yaml_text

Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Code:
    """A kind of mistake that `noetl-worker check` finds. NW101, for example, is an unknown key."""

    name: str
    title: str
    example: str
    mend: str
    is_warning: bool = False
    """True if a mistake is always a warning: the playbook runs, and does something else than it seems to do."""
    is_judged: bool = False
    """True if the severity depends on the planes. The mistake is an error if a plane refuses the playbook because of
    it, else a warning."""
    plane: str = ""
    """Name of the plane, for a mistake that concerns only one plane; "" for both planes. See also `fails`."""
    fails: bool = False
    """True if a mistake that concerns one plane (see `plane`) is an error when the playbook is checked for this plane
    alone. Such a mistake is a warning in all other cases."""
    is_refusal: bool = False
    """True if the mistake's message is the error text of a plane that refuses the playbook. If both planes refuse the
    playbook, the mistake is an error."""

    @property
    def severity(self) -> Severity:
        return "warning" if self.is_warning or self.is_judged or self.plane else "error"


GROUPS: Final[Mapping[str, str]] = {
    "NW1": "Shape",
    "NW2": "Tools",
    "NW3": "Templates",
    "NW4": "Flow",
    "NW5": "Planes",
    "NW6": "Code",
}
_TEXTS: Final = importlib.resources.files("noetl_worker.authoring.lint") / "codes.yaml"
CODES: Final[Mapping[str, Code]] = {
    name: Code(name, **fields) for name, fields in yaml_text.loads(_TEXTS.read_text(encoding="utf-8")).items()
}
