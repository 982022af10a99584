"""Marks of what a claim may contain. What a claim certainly lacks is not searched for."""

from __future__ import annotations

from typing import Final, NamedTuple


class Marks(NamedTuple):
    """Marks of what a claim may contain. True means perhaps, False means certainly not."""

    templates: bool = True
    """A text with `{{`, `{%` or `{#`."""
    references: bool = True
    """A reference to a field in the result store, or to a keychain entry."""
    secrets: bool = True
    """A key that is named like a secret, or a URL, which may contain a password."""


ALL: Final = Marks()
