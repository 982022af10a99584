"""An error of a config has its field."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from noetl_worker.errors import ConfigurationError
from noetl_worker.tools.fields import decode


@dataclass(frozen=True)
class Picky:
    size: int = 1

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigurationError("give 1 or more", field="size", code="small")


def test_error_with_a_field_is_given_the_kind_of_its_tool() -> None:
    with pytest.raises(ConfigurationError) as caught:
        decode("picky", Picky, {"size": 0}, {"size": 0})
    error = caught.value
    assert (str(error), error.field, error.tool, error.code) == ("picky: give 1 or more", "size", "picky", "small")
    outer = error.in_tool("outer", field="inner", because="why")
    assert (str(outer), outer.field) == ("picky: give 1 or more (why)", "inner.size")


def test_error_of_one_text_stays_as_a_plug_in_wrote_it() -> None:
    error = ConfigurationError("echo: no", kind="auth", retryable=True, code="c")
    assert (str(error), error.field, error.kind, error.retryable, error.code) == ("echo: no", "", "auth", True, "c")


def test_suggestion_ends_the_text() -> None:
    assert str(ConfigurationError("no 'htp'", suggestion="http")) == "no 'htp'; did you mean 'http'?"
