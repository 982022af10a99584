"""Whatever stands in a config, it is taken or refused with a ToolError: nothing else comes out of `prepare`."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from noetl_worker.errors import ToolError
from noetl_worker.testing import tool_context
from noetl_worker.tools import fields
from noetl_worker.tools.docs.guide import read_guide
from noetl_worker.tools.registry import Registry

REGISTRY = Registry(plugins=False)
CONTEXT = tool_context(registry=REGISTRY, variables={"x": 1, "deep": {"list": [1, None, {"a": "b"}]}})

TEMPLATES = ("{{ x }}", "{{ deep }}", "{{ nope }}", "{{ 1 // 0 }}", "{{ a b }}")
ODD = ("", " ", "a", "5", "-1", "1.5", "true", "null", "30s", "http://[", "noetl://x", "/tmp/f", "\x00", "\ud800")
TEXTS = st.sampled_from((*TEMPLATES, *ODD, "http://h/p?q=1"))
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=True), TEXTS, st.text(max_size=6)
)
WORDS = st.sampled_from(
    ["type", "kind", "name", "data", "credential", "source", "rules", "policy", "when", "then", "do", "ref", "uri", "a"]
)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | TEXTS, inner, max_size=3), max_leaves=6
)


@pytest.mark.sweep
@pytest.mark.parametrize("kind", REGISTRY.kinds())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_config_of_any_form_is_taken_or_refused_with_a_tool_error(kind: str, data: Any) -> None:
    given_ones = data.draw(_fields(kind))
    config = {**_example(kind), **given_ones} if data.draw(st.booleans()) else given_ones
    try:
        prepared = REGISTRY.prepare(kind, config, CONTEXT)
    except ToolError as error:
        message = str(error)
    else:
        message = prepared.kind
    assert message


@functools.cache
def _fields(kind: str) -> st.SearchStrategy[dict[str, Any]]:
    tool = REGISTRY.get(kind)
    spellings = fields.field_spellings(tool.config_model, getattr(tool, "field_aliases", {}))
    own = sorted({*fields.field_names(tool.config_model), *spellings})
    return st.dictionaries(st.sampled_from([*own, "spec", "timeout", "retry", "unknown"]), VALUES, max_size=4)


@functools.cache
def _example(kind: str) -> dict[str, Any]:
    """The guide's: a config that works, so that one odd field of it is reached."""
    example = yaml.safe_load(read_guide(REGISTRY.get(kind)).example)
    return example if isinstance(example, dict) else {"tasks": example}
