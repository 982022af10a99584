"""The list of attacks in docs/attacks.md, from the tests' own words: `python tests/security/attack_table.py`."""

from __future__ import annotations

import ast
import textwrap
from pathlib import Path

DOCUMENT = Path(__file__, "../../../docs/attacks.md").resolve()
BEGIN, END = "<!-- attacks: begin -->\n", "<!-- attacks: end -->\n"
NO_ATTACK = "(no attack)"
"""How the docstring of a test begins that shows what must go on working, or what a setting does."""


def rows_of(file: Path) -> list[str]:
    """The attacks of one file; none if it has none."""
    module = ast.parse(file.read_text(encoding="utf-8"))
    attacks: list[str] = []
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            said = " ".join((ast.get_docstring(node) or NO_ATTACK).split("\n\n")[0].split())
            if not said.startswith(NO_ATTACK):
                attacks += wrapped(f"- {said}", "  ")
    if not attacks:
        return []
    title = (ast.get_docstring(module) or file.stem).splitlines()[0]
    return ["", *wrapped(f"**{title}** (`tests/security/{file.name}`)", ""), "", *attacks]


def wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, 120, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def table() -> str:
    files = sorted(Path(__file__).parent.glob("test_*.py"))
    return "\n".join(row for file in files for row in rows_of(file)) + "\n"


def current() -> str:
    text = DOCUMENT.read_text(encoding="utf-8")
    return text[text.index(BEGIN) + len(BEGIN) : text.index(END)]


if __name__ == "__main__":
    whole = DOCUMENT.read_text(encoding="utf-8")
    DOCUMENT.write_text(whole.replace(BEGIN + current(), BEGIN + table()), encoding="utf-8")
