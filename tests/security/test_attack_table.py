"""docs/attacks.md has every attack of the tests here."""

from __future__ import annotations

from .attack_table import current, table


def test_table_of_attacks_is_the_tests_own() -> None:
    """(no attack) `python tests/security/attack_table.py` writes it."""
    assert current() == table()
