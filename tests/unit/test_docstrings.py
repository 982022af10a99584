"""Docstrings can be read once: a verb or a noun phrase comes first, and the public surface has its Args and Raises."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Final, NamedTuple, TypeGuard

import pytest

PACKAGE: Final = Path(__file__).parents[2] / "python"
SURFACE: Final = (
    "cases",
    "engine.protocol",
    "envelope",
    "errors",
    "event_set",
    "text.json_text",
    "models",
    "template",
    "testing",
    "tools.contract",
    "tools.registry",
)
"""What docs/library.md and docs/add-a-tool.md name, below `noetl_worker`. `exported` has the names of each."""
PAGES: Final = ("library.md", "add-a-tool.md")
BY_ANOTHER_NAME: Final = ("engine", "tools")
"""`engine` has the calls of `engine.protocol`; `noetl_worker.tools` is the entry point group."""
AS_THE_CONTRACT: Final = ("MemoryControlPlane", "RecordedLogger")
"""Their methods are those of `ToolControlPlane` and `ToolLogger`, and documented there."""
RELATION_WORDS: Final = re.findall(
    r"\w+",
    """
    After As At Because Before Beside Both By Either For From How If In It Its Neither Nobody None Not Of On One Only
    Since So Than That Their Them Themselves These They This Those To Unless Until What Whatever When Where Whether
    Which Whichever While Who Whoever Whom Whose Why With Within Without
""",
)
"""Words that leave the subject of a first sentence to the reader."""
RELATIONS: Final = re.findall(r"\w+", "after behind beside between by look_into of only others since within")
"""Words that say neither what a function returns nor what it does."""
VERBS: Final = re.findall(
    r"\w+",
    """
    Ack Acknowledge Act Add Adjust Allow Answer Apply Ask Attribute Await Begin Build Call Cancel Carry
    Change Charge Check Claim Clear Close Collect Combine Compare Compile Compress Confine Connect Convert
    Copy Count Create Cut Decide Decode Define Delete Deny Describe Do Drive Drop Encode End Escape Evaluate
    Exclude Execute Expand Extend Fail Fetch Find Flush Forget Fork Format Free Give Go Guard Guess Handle
    Have Hide Hold Ignore Import Install Issue Join Keep Kill Lay Leave Let Limit List Listen Load Lock Log
    Look Make Mark Match Measure Merge Move Nak Name Note Open Parse Pass Pause Poll Prepare Print Process
    Provide Publish Pull Put Queue Quote Raise Rate Read Reap Record Redact Refuse Register Remember Remove
    Render Repeat Replace Report Request Resolve Return Run Say Search Send Serve Set Shorten Show Shut Sign
    Signal Sleep Split Start Step Stop Store Submit Subscribe Subtract Summarise Switch Take Tell Test
    Toggle Try Turn Update Use Wait Wake Warn Watch Withdraw Work Wrap Write Yield
    """,
)
"""Imperatives that begin the docstrings of functions, sorted. A new docstring may need a further one."""
Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
SECTION: Final = re.compile(r"^(\w+):$")
ENTRY: Final = re.compile(r"^    (\w+): \S")


class Docstring(NamedTuple):
    """A docstring, or a text below a field or a constant."""

    place: str
    """File and line."""
    text: str
    of_function: bool
    """True for a function or method that is not a property."""

    @property
    def first_word(self) -> str:
        return self.text.split()[0].strip("`,.:;()") if self.text.strip() else ""

    def __str__(self) -> str:
        return f"{self.place}: {self.text.strip().splitlines()[0] if self.text.strip() else 'empty'}"


class Described(NamedTuple):
    """A function, and the docstring that has to describe it."""

    name: str
    function: Function
    text: str


@cache
def tree(module: str) -> ast.Module:
    path = PACKAGE.joinpath(*module.split("."))
    return ast.parse((path / "__init__.py" if path.is_dir() else path.with_suffix(".py")).read_text(encoding="utf-8"))


def exported(module: str) -> list[str]:
    """What `__all__` lists; where no list is written out, the functions and classes of the module."""
    body = tree(module).body
    for node in body:
        if isinstance(node, ast.Assign) and ast.unparse(node).startswith("__all__ = ['"):
            names: list[str] = ast.literal_eval(node.value)
            return names
    return [node.name for node in body if isinstance(node, Definition) and not node.name.startswith("_")]


def defined(module: str, name: str) -> Definition | None:
    """Where it is written, however often it was imported on the way; None for a constant or an alias of a type."""
    for node in tree(module).body:
        if isinstance(node, Definition) and node.name == name:
            return node
        if isinstance(node, ast.ImportFrom) and any(name == one.name for one in node.names):
            return defined(str(node.module), name)
    return None


def described(definition: Definition) -> Iterator[Described]:
    """The functions of it that a user calls."""
    own = ast.get_docstring(definition) or ""
    if isinstance(definition, Function):
        yield Described(definition.name, definition, own)
    elif definition.name not in AS_THE_CONTRACT:
        for member in definition.body:
            if isinstance(member, Function) and (member.name == "__init__" or not member.name.startswith("_")):
                text = ast.get_docstring(member) or ""
                yield Described(f"{definition.name}.{member.name}", member, text or own * (member.name == "__init__"))


def every_function() -> Iterator[Described]:
    for module in SURFACE:
        for name in exported(f"noetl_worker.{module}"):
            if (definition := defined(f"noetl_worker.{module}", name)) is not None:
                yield from described(definition)


def parameters(function: Function) -> list[str]:
    given = function.args
    named = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
    return [one.arg for one in named if one is not None and one.arg not in ("self", "cls")]


def raised(function: Function) -> set[str]:
    """Exceptions that it raises by their names, in its own lines."""
    found = (node.exc for node in ast.walk(function) if isinstance(node, ast.Raise))
    return {call.func.id for call in found if isinstance(call, ast.Call) and isinstance(call.func, ast.Name)}


def entries(text: str, section: str) -> list[str]:
    """The names that a section of a docstring has (Google's style)."""
    found: list[str] = []
    at = ""
    for line in text.splitlines():
        if (heading := SECTION.match(line)) is not None:
            at = heading[1]
        elif at == section and (entry := ENTRY.match(line)) is not None:
            found.append(entry[1])
    return found


def is_property(function: Function) -> bool:
    return any(ast.unparse(one).endswith(("property", ".setter")) for one in function.decorator_list)


def is_text(node: ast.stmt) -> TypeGuard[ast.Expr]:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@cache
def docstrings() -> list[Docstring]:
    """Return all docstrings and attribute docstrings of the package."""
    found = []
    for file in sorted(PACKAGE.glob("noetl_worker/**/*.py")):
        place = file.relative_to(PACKAGE.parent).as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            body: list[ast.stmt] = node.body if isinstance(getattr(node, "body", None), list) else []
            for index, statement in enumerate(body):
                if is_text(statement):
                    of_function = index == 0 and isinstance(node, Function) and not is_property(node)
                    text = str(ast.literal_eval(statement.value))
                    found.append(Docstring(f"{place}:{statement.lineno}", text, of_function))
    return found


FUNCTIONS: Final = {one.name: one for one in every_function()}


def test_docstring_names_each_argument() -> None:
    wrong = {
        name: (entries(one.text, "Args"), parameters(one.function))
        for name, one in FUNCTIONS.items()
        if sorted(entries(one.text, "Args")) != sorted(parameters(one.function))
    }
    assert wrong == {}, "the Args of a docstring, and what it should name"


def test_docstring_names_what_is_raised() -> None:
    raises = {name: raised(one.function) - {*entries(one.text, "Raises")} for name, one in FUNCTIONS.items()}
    assert {name: missing for name, missing in raises.items() if missing} == {}


@pytest.mark.parametrize("folder", ["python", "tests", "benches", "docs", "build_backend"])
def test_no_function_is_named_by_a_relation_alone(folder: str) -> None:
    found = [
        f"{file.relative_to(PACKAGE.parent)}:{node.lineno}: {node.name}"
        for file in sorted((PACKAGE.parent / folder).rglob("*.py"))
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, Function) and node.name.strip("_") in RELATIONS
    ]
    assert found == [], "a function says what it returns or does"


def test_no_rust_function_is_named_by_a_relation_alone() -> None:
    pattern = re.compile(rf"\bfn (?:{'|'.join(RELATIONS)})\b")
    files = [file for file in sorted((PACKAGE.parent / "rust").rglob("*.rs")) if "target" not in file.parts]
    assert files
    found = [f"{file.name}: {one}" for file in files for one in pattern.findall(file.read_text(encoding="utf-8"))]
    assert found == [], "a function says what it returns or does"


def test_surface_is_what_the_pages_name() -> None:
    """A module that is added to one of the two pages is held to the same."""
    pages = "".join((PACKAGE.parent / "docs" / page).read_text(encoding="utf-8") for page in PAGES)
    named = {name.rstrip(".") for name in re.findall(r"noetl_worker\.([a-z_.]+)", pages)}
    assert named <= {*SURFACE, *BY_ANOTHER_NAME}


def test_no_docstring_begins_with_a_relation_word() -> None:
    wrong = [str(one) for one in docstrings() if one.first_word in RELATION_WORDS]
    assert wrong == [], "\n" + "\n".join(wrong)


def test_docstring_of_a_function_begins_with_a_verb() -> None:
    wrong = [str(one) for one in docstrings() if one.of_function and one.first_word not in VERBS]
    assert wrong == [], "\n" + "\n".join(wrong)
