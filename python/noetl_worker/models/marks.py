"""Marks of what a claim may contain. A command without templates, references and secrets is not searched for them."""

from __future__ import annotations

from typing import Final, NamedTuple


class Marks(NamedTuple):
    """Things that a claim may contain. True means perhaps, False means certainly not."""

    templates: bool = True
    """A text with `{{`, `{%` or `{#`."""
    references: bool = True
    """A field in the result store, or a keychain entry."""
    secrets: bool = True
    """A key that names a secret (`secrets`), or a URL, which may contain a password."""


ALL: Final = Marks()
