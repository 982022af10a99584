"""Descriptions of a tool kind for people: the kind's purpose, its fields and their meaning. The config model of the
kind is the source.

The purpose is the docstring of the model. The meaning of a field is the string literal below the field. These texts are
read from the source file on request, never when a command runs.
"""

from __future__ import annotations

import ast
import dataclasses
import functools
import inspect
import itertools
import re
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from noetl_worker.tools import fields
from noetl_worker.tools.contract import Tool

NO_DEFAULT: Final = dataclasses.MISSING
_RESULT: Final = ("Result:", "Data:")


@dataclass(frozen=True, slots=True)
class FieldDescription:
    """Description of one field of a tool's config model, for the documentation."""

    name: str
    spellings: tuple[str, ...]
    """Other names that a playbook may use for the field."""
    type: str
    """Type of the field in words, such as `a list of text`."""
    default: Any
    """Value if the playbook does not set the field; NO_DEFAULT if the field is required."""
    meaning: str

    @property
    def is_needed(self) -> bool:
        return self.default is NO_DEFAULT


@dataclass(frozen=True, slots=True)
class KindDescription:
    """Description of one tool kind, for the documentation."""

    kind: str
    aliases: tuple[str, ...]
    text: str
    """Docstring of the kind's config model, without indentation and without its `Result:` (or `Data:`) paragraph."""
    result: str
    """Description of the result's data: the `Result:` or `Data:` paragraph of the config model's docstring."""
    fields: tuple[FieldDescription, ...]

    @property
    def summary(self) -> str:
        """Return the first sentence of `text`, up to a semicolon if the sentence has one."""
        first = " ".join(self.text.split("\n\n")[0].split())
        return re.split(r"(?<=[.])\s|;\s", first)[0].rstrip(".:") + "." if first else ""


def describe_kind(tool: Tool[Any]) -> KindDescription:
    """Return the description that `noetl-worker tools KIND` shows."""
    model = tool.config_model
    spellings = fields.field_spellings(model, getattr(tool, "field_aliases", {}))
    docs, hints = field_docs(model), fields.field_types(model)
    order = [name for base in model.__mro__ for name in inspect.get_annotations(base)]  # own fields first
    described = tuple(
        FieldDescription(
            name=field.name,
            spellings=tuple(sorted(other for other, name in spellings.items() if name == field.name)),
            type=fields.describe(hints[field.name]),
            default=_default(field),
            meaning=docs.get(field.name, ""),
        )
        for field in sorted(dataclasses.fields(model), key=lambda field: order.index(field.name))
        if field.init
    )
    text = inspect.cleandoc(model.__doc__ or "")
    if text.startswith(f"{model.__name__}("):  # the docstring that dataclass generates if there is none
        text = ""
    paragraphs = text.split("\n\n")
    results = [paragraph for paragraph in paragraphs if paragraph.startswith(_RESULT)]
    return KindDescription(
        kind=tool.kind,
        aliases=tuple(getattr(tool, "aliases", ())),
        text="\n\n".join(paragraph for paragraph in paragraphs if paragraph not in results),
        result="\n\n".join(paragraph.partition(":")[2].strip() for paragraph in results),
        fields=described,
    )


def field_docs(model: type) -> Mapping[str, str]:
    """Return field -> its description, for a config model and its base classes. A description is the string literal
    below the field, joined to one line. The result is empty if the source file is not installed."""
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if dataclasses.is_dataclass(base):
            docs.update(_docs_in(base))
    return docs


@functools.lru_cache(maxsize=128)
def _docs_in(model: type) -> Mapping[str, str]:
    try:
        source = inspect.getsource(model)
    except (OSError, TypeError):  # an install without sources still has its schemas
        return {}
    (definition,) = ast.parse(textwrap.dedent(source)).body
    body = definition.body if isinstance(definition, ast.ClassDef) else []
    docs: dict[str, str] = {}
    for field, below in itertools.pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            text = below.value.value if is_text else None  # type: ignore[attr-defined]
            if isinstance(text, str):
                docs[field.target.id] = " ".join(text.split())
    return docs


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else NO_DEFAULT
