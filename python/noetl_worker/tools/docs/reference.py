"""Writer of the pages in docs/tools: one page for each kind, and an index. The texts come from config models, guides
(`page.md`) and the table of failures."""

from __future__ import annotations

import importlib.resources
import json
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.contract import Tool
from noetl_worker.tools.docs.description import FieldDescription, KindDescription, describe_kind
from noetl_worker.tools.docs.guide import Guide, read_guide
from noetl_worker.tools.elsewhere import INSTEAD
from noetl_worker.tools.error_kinds import ERROR_KINDS
from noetl_worker.tools.fields import WORKER_FIELDS

_INDEX: Final = "every_kind.md"
_MADE: Final = "<!-- Made by `make docs`"


def write_pages(folder: Path, tools: Iterable[Tool[Any]]) -> None:
    """Write the pages into `folder`, and first remove the pages of an earlier call. Raises ConfigurationError if
    `folder` has a page that was written by hand."""
    pages = reference_pages(tools)
    folder.mkdir(parents=True, exist_ok=True)
    there = sorted(folder.glob("*.md"))
    written = [file.name for file in there if not file.read_text(encoding="utf-8").startswith(_MADE)]
    if written:
        raise ConfigurationError(f"{folder} has {', '.join(written)}, written by hand: name another directory")
    for file in there:
        file.unlink()
    for name, text in pages.items():
        (folder / name).write_text(text, encoding="utf-8")


def reference_pages(tools: Iterable[Tool[Any]]) -> dict[str, str]:
    """Return file name -> text of each page. README.md describes the fields and failures that all kinds share."""
    described = [(describe_kind(tool), read_guide(tool)) for tool in tools]
    index = (importlib.resources.files("noetl_worker.tools.docs") / _INDEX).read_text(encoding="utf-8")
    parts = {
        "contents": "\n".join(_entry(kind) for kind, _ in described),
        "error_kinds": "\n".join(
            f"| `{name}` | {one.meaning} | {one.retryable} |" for name, one in ERROR_KINDS.items()
        ),
        "worker_fields": _filled(f"  {', '.join(f'`{name}`' for name in WORKER_FIELDS)}."),
        "elsewhere": "\n".join(_item(f"`{kind}`: {instead}") for kind, instead in INSTEAD.items()),
    }
    for name, text in parts.items():
        index = index.replace(f"{{{name}}}", text)
    return {"README.md": index} | {f"{kind.kind}.md": _page(kind, guide) for kind, guide in described}


def _entry(kind: KindDescription) -> str:
    names = ", ".join([f"[`{kind.kind}`]({kind.kind}.md)", *(f"`{alias}`" for alias in kind.aliases)])
    return _item(f"{names}: {kind.summary}")


def _page(kind: KindDescription, guide: Guide) -> str:
    parts = [f"{_MADE} from the config model and the guide of the kind. -->", f"# {kind.kind}", _reflowed(kind.text)]
    if kind.aliases:
        parts.append("Also: " + ", ".join(f"`{alias}`" for alias in kind.aliases) + ".")
    if guide.example:
        parts.append(f"```yaml\n{guide.example}\n```")
    sections = {
        "Fields": "\n".join(map(_field, kind.fields)),  # a list, as a table with sentences is too wide for a terminal
        "Result": guide.result or kind.result,
        "Failures": "\n".join(_item(f"`{name}`: {when}") for name, when in guide.errors.items()),
        "Worth knowing": guide.traps,
    }
    parts += [f"## {title}\n\n{text}" for title, text in sections.items() if text]
    parts.append("What every kind shares: [Tools](README.md).")
    return "\n\n".join(part for part in parts if part) + "\n"


def _field(field: FieldDescription) -> str:
    also = f" ({', '.join(f'`{name}`' for name in field.spellings)})" if field.spellings else ""
    is_empty = field.default in (None, [], {}, "")
    shown = "needed" if field.is_needed else "" if is_empty else f"default `{json.dumps(field.default, default=str)}`"
    what = ", ".join(part for part in (f"`{field.name}`{also}", field.type, shown) if part)
    return _item(f"{what} – {field.meaning}")


def _item(text: str) -> str:
    return _filled(f"- {text}")


def _filled(text: str) -> str:
    return textwrap.fill(text, 120, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)


def _reflowed(text: str) -> str:
    """Return a docstring with the developers' tag `differs-from-upstream:` replaced by "Unlike the published
    workers:", for readers of the documentation."""
    return re.sub(r"differs-from-upstream:\s*", "Unlike the published workers: ", text)
