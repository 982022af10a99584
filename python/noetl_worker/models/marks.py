"""What a claim may have in it: a command without templates, references and secrets is not walked."""

from __future__ import annotations

from typing import Final, NamedTuple


class Marks(NamedTuple):
    """Whether something of a kind may be there; False is certain."""

    templates: bool = True
    """`{{`, `{%` or `{#` in a text."""
    references: bool = True
    """A field in the result store, or a keychain entry."""
    secrets: bool = True
    """A key that names a secret (`secrets`), or an address, which may have a password in it."""


ALL: Final = Marks()
