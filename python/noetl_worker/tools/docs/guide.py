"""The handwritten part of a kind's documentation: an example, the result, the failures, the traps.

The text is in the Markdown file `page.md` beside the tool's module, also in a plug-in's package. The file may have four
headings. `## Example` has one YAML block with a step's `tool`. `## Result` replaces the `Result:` paragraph of the
model's docstring. `## Errors` has lines like "- `timeout`: the server does not answer". `## Traps` is free text.
"""

from __future__ import annotations

import importlib.resources
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.contract import Tool

_HEADINGS: Final = ("Example", "Result", "Errors", "Traps")
_ERROR: Final = re.compile(r"^- `([a-z_]+)`: (.+)$")


@dataclass(frozen=True, slots=True)
class Guide:
    """The sections of a kind's `page.md`, the handwritten part of the kind's documentation, as Markdown. A section that
    the file lacks is empty."""

    example: str = ""
    """A step's `tool` as YAML, without the Markdown code fence."""
    result: str = ""
    errors: Mapping[str, str] = field(default_factory=dict)
    """Kind of failure -> when this failure occurs. Kinds of failure that every tool has are not listed."""
    traps: str = ""


def read_guide(tool: Tool[Any]) -> Guide:
    """Return the guide parsed from the file `page.md` beside the tool's module, or an empty guide without this file."""
    package = type(tool).__module__.rpartition(".")[0]
    if not package:
        return Guide()
    file = importlib.resources.files(package) / "page.md"
    return parse_guide(file.read_text(encoding="utf-8"), tool.kind) if file.is_file() else Guide()


def parse_guide(text: str, kind: str) -> Guide:
    """Parse the text of a `page.md`. Raise ConfigurationError for an unknown heading or a malformed line under
    `Errors`."""
    _, *rest = re.split(r"^## +(\S.*)$", text, flags=re.MULTILINE)
    parts = dict(zip(map(str.rstrip, rest[::2]), (part.strip() for part in rest[1::2]), strict=True))
    odd = [name for name in parts if name not in _HEADINGS]
    if odd:
        raise ConfigurationError(f"guide of {kind!r}: heading {odd[0]!r} is none of {', '.join(_HEADINGS)}")
    example = parts.get("Example", "").removeprefix("```yaml\n").removesuffix("\n```")
    errors: dict[str, str] = {}
    for line in parts.get("Errors", "").splitlines():
        found = _ERROR.match(line)
        if found is None:
            raise ConfigurationError(
                f'guide of {kind!r}: the line {line!r} must have the form "- `error_kind`: when it occurs"'
            )
        errors[found[1]] = found[2]
    return Guide(example, parts.get("Result", ""), errors, parts.get("Traps", ""))
