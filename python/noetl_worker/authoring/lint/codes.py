"""Every code of `check`: its meaning, a playbook that has it, and how to mend it. The texts are in codes.yaml."""

from __future__ import annotations

import importlib.resources
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from noetl_worker.text import yaml_text

Severity: TypeAlias = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Code:
    name: str
    title: str
    example: str
    mend: str
    is_warning: bool = False
    """Always a warning: the playbook runs, and does something other than it looks like."""
    is_judged: bool = False
    """A warning, and an error where a plane refuses the playbook for it."""
    plane: str = ""
    """The one plane the code concerns. It is a warning, unless a playbook for that plane `fails` there."""
    fails: bool = False
    is_refusal: bool = False
    """The plane's own words. An error where the other plane refuses the playbook too."""

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
