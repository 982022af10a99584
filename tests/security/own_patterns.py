"""Every regular expression of the package, how it is used, and texts that are made of its own pieces."""

from __future__ import annotations

import ast
import re
from itertools import chain
from pathlib import Path

import noetl_worker

ROOT = Path(noetl_worker.__file__).parent
USES = ("search", "match", "fullmatch", "finditer", "findall", "sub", "subn", "split")
CALLS = {f"re.{name}" for name in ("compile", *USES)}
GIVEN_TO = {"NamedVariables": {"fullmatch"}}
"""Classes that are given a pattern, and what they call of it."""
WINDOW = 3
"""Pieces of a pattern that are repeated together, at most."""
SIGNS = "a0 A\n/:@\"'.,-_{}[]()<>=&;\\\t%$#"
"""For a piece that is one of several characters: the first that it takes."""
PIECE = re.compile(
    r"(?P<class>\[\^?\]?(?:\\.|[^\]\\])*\]|\\[wWdDsS]|(?<!\\)\.)"
    r"|\\x(?P<code>..)|\\(?P<escaped>[^bBAZ\d])"
    r"|(?P<none>\\.|\(\?P<\w+>|\(\?[a-z]*<?[=!:)]|[*+?]\??|\{\d+,?\d*\}\??|\{,\d+\}|[()|^$])"
    r"|(?P<literal>.)",
    re.DOTALL,
)
ESCAPED = {"n": "\n", "t": "\t", "r": "\r"}


def own_patterns() -> dict[re.Pattern[str], tuple[str, set[str]]]:
    """Pattern -> where it stands, and what is called of it; `search` where that cannot be told."""
    found: dict[re.Pattern[str], tuple[str, set[str]]] = {}
    for file in sorted(ROOT.rglob("*.py")):
        source = file.read_text(encoding="utf-8")
        for node in ast.walk(tree := ast.parse(source)):
            if isinstance(node, ast.Call) and (call := ast.unparse(node.func)) in CALLS:
                uses = {call.removeprefix("re.")} if call != "re.compile" else _uses(tree, node, source)
                flags = set(re.findall(r"\bre\.([A-Z]+)\b", ast.unparse(node).replace(ast.unparse(node.args[0]), "")))
                pattern = re.compile(_text_of(node.args[0]), sum(int(getattr(re, name)) for name in flags))
                where = f"{file.relative_to(ROOT)}:{node.lineno}"
                found.setdefault(pattern, (where, set()))[1].update(uses)
    return found


def _uses(tree: ast.Module, made: ast.Call, source: str) -> set[str]:
    """What is called of the name that the pattern is given."""
    for node in ast.walk(tree):
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is made:
            name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target)
            return set(re.findall(rf"\b{re.escape(name)}\.({'|'.join(USES)})\b", source)) or {"search"}
        if isinstance(node, ast.Call) and made in node.args and (name := ast.unparse(node.func)) in GIVEN_TO:
            return GIVEN_TO[name]
    return {"search"}


def _text_of(node: ast.expr) -> str:
    """The text of a pattern, `token` for what is put into it; one of bytes as text."""
    if isinstance(node, ast.Constant):
        return node.value.decode("latin-1") if isinstance(node.value, bytes) else str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_text_of, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _text_of(node.left) + _text_of(node.right)
    return "token"


def texts_for(pattern: re.Pattern[str]) -> list[tuple[str, str, str]]:
    """What opens a text, what is repeated in it, and what closes it."""
    pieces = _pieces(pattern.pattern)
    found: dict[tuple[str, str, str], None] = {}
    for start in range(len(pieces)):
        for end in range(start + 1, min(start + WINDOW, len(pieces)) + 1):
            for opening in ("", "".join(pieces[:start])):
                for closing in ("", "\x01", pieces[-1]):
                    found[opening, "".join(pieces[start:end]), closing] = None
    return list(found)


def _pieces(source: str) -> list[str]:
    """Literals as they are, and one character for each class, in their order; alternatives one after the other."""
    pieces: list[str] = []
    was_literal = False
    for match in PIECE.finditer(source):
        kind, text = str(match.lastgroup), str(match[match.lastindex or 0])
        if kind == "class":
            taken = re.compile(text, re.DOTALL)
            pieces.append(next(sign for sign in chain(SIGNS, map(chr, range(0x110000))) if taken.match(sign)))
        elif kind != "none":
            text = chr(int(text, 16)) if kind == "code" else ESCAPED.get(text, text) if kind == "escaped" else text
            pieces[-1:] = [pieces[-1] + text] if was_literal else [*pieces[-1:], text]
        was_literal = kind not in ("class", "none")
    return pieces
