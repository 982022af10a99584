"""Commands as the real planes handed them out, against the values that the planes' own workers gave for them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from compat import recorded_claims
from compat.recorded_claims import Case, same, theirs
from noetl_worker.errors import TemplateError
from noetl_worker.tools.registry import Registry

EQUAL: dict[str, list[Case]] = {
    "a list-valued tool finds the flat names of the Rust plane under ctx": [
        ("rust", "set-rule", 7),
        ("rust", "set-shadows-workload", 7),
        ("rust", "set-step-bare", 7),
        ("rust", "set-step-ctx", 7),
        ("rust", "set-step-output", 7),
    ],
    "a missing key that begins with an underscore is undefined": [
        ("rust", "undefined-list", 4),
        ("rust", "view-seq-scalar", 10),
    ],
    "a failed task that a rule lets pass is absent on the Python plane": [
        ("python", "loop-policy-continue", 5),
        ("python", "loop-policy-continue", 6),
        ("python", "policy-else-fails", 0),
        ("python", "single-policy", 0),
    ],
    "unnamed tasks count from zero": [("python", "sequence-unnamed", 0)],
    "a rule of the Rust plane keeps all names, and the plane's word for a success": [("rust", "set-rule", 0)],
    "an input that is called like a missing step is nothing": [("python", "rhai-args", 5), ("python", "rhai-bare", 3)],
    "data of the task before is read as `data`, under `_prev` and its label": [("python", "sequence-names", 0)],
}

EARLIER_STEPS: list[Case] = [
    ("python", "list-reads-lists", 3),
    ("python", "list-reads-rows", 3),
    ("python", "view-python", 7),
    ("python", "view-noop", 7),
]


REGISTRIES: list[Registry] = []


@pytest.fixture(scope="module", autouse=True)
async def one_registry(anyio_backend: Any) -> AsyncIterator[None]:
    """For all claims, as a worker has it: with its template for the next."""
    REGISTRIES.append(Registry(plugins=False))
    yield
    await REGISTRIES.pop().aclose()


async def value(case: Case) -> Any:
    return await recorded_claims.value(case, REGISTRIES[-1])


async def equals(case: Case) -> None:
    ours, their = await value(case), theirs(case)
    assert same(ours, their), f"ours   {ours}\ntheirs {their}"


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{what}-{case[1]}") for what, cases in EQUAL.items() for case in cases]
)
async def test_value_is_the_recorded_one(case: Case) -> None:
    await equals(case)


async def test_bare_name_of_a_rule_reaches_later_steps_of_the_python_plane_and_keeps_its_type() -> None:
    """Theirs are texts."""
    case: Case = ("python", "set-rule", 0)
    assert theirs(case)["ctx"] == {"x": "5", "bare": "5", "st": "ok", "direct": ""}
    assert (await value(case))["ctx"] == {"x": 5, "bare": 5, "st": "ok", "direct": ""}


async def test_tasks_own_set_is_local_but_for_ctx() -> None:
    """The published Rust worker lets nothing leave, and the Python one ignores the block; the DSL keeps `ctx.`."""
    for case in (("rust", "set-task-bare", 0), ("rust", "set-task-iter", 0)):
        assert "_context_updates" not in await value(case)
        assert "_context_updates" not in theirs(case)
    assert (await value(("python", "set-task-bare", 0)))["ctx"] == theirs(("python", "set-task-bare", 0))["ctx"] == {}
    case = ("rust", "set-task-ctx", 0)
    assert set((await value(case))["_context_updates"]) == {"ctx.x", "ctx.y", "ctx.l", "ctx.whole"}
    assert (await value(case))["two"] == {**theirs(case)["two"], "y": 5}  # a name of the same block
    assert (await value(("rust", "loop-sequence", 4)))["_context_updates"] == {"ctx.lastid": 1}


async def test_names_of_a_list_valued_tool_on_the_rust_plane() -> None:
    case: Case = ("rust", "names-list", 0)
    look = (await value(case))["look"]
    assert look == {**theirs(case)["look"], "has_keychain": True}  # theirs is posted as [REDACTED]


@pytest.mark.parametrize("case", EARLIER_STEPS, ids=str)
async def test_list_valued_tool_reads_what_an_earlier_step_has_under_context_only(case: Case) -> None:
    """`result` is left out: older playbooks call the step's data so, and theirs has no such name."""
    ours, their = (await value(case))["results"]["look"], theirs(case)["results"]["look"]
    assert same({**ours, "result": None}, {**their, "result": None})


async def test_data_of_an_earlier_step_is_the_results_own_as_a_single_tool_of_the_plane_sees_it() -> None:
    """Theirs gives the whole step in a list-valued tool, and what is in `data` is lost."""
    single, listed = theirs(("python", "view-python-status", 5)), theirs(("python", "view-python-status", 7))
    assert (single["data"], single["dx"]) == ({"x": 1}, 1)
    assert (listed["results"]["look"]["data"].get("x"), listed["results"]["look"]["dx"]) == (None, "")
    ours = (await value(("python", "view-python-status", 7)))["results"]["look"]
    assert (ours["data"], ours["dx"], ours["status"]) == ({"x": 1}, 1, "mine")


async def test_steps_input_wins_over_the_tools_on_the_python_plane() -> None:
    """`c` names a value of the step's input; theirs does not know it."""
    case: Case = ("python", "step-input", 0)
    assert await value(case) == {**theirs(case), "c": 4}
    assert theirs(case)["b"] == "step"
    assert await value(("rust", "step-input", 0)) == theirs(("rust", "step-input", 0))


async def test_text_of_data_that_looks_like_a_template_fails_no_step_and_stays_text() -> None:
    assert await value(("python", "braces-statement", 3)) == {"c": "{% if x %}", "u": "{% raw %}"}
    assert await value(("rust", "braces-statement", 4)) == {"c": "{% if x %}", "u": "{% raw %}"}
    for case in (("python", "braces-single", 3), ("rust", "braces-single", 4)):
        assert (await value(case))["t"] == "{{ 1 + 1 }}"
    assert (await value(("python", "error-template", 3)))["w"]["a"] == "{{ workload. }}"


async def test_template_of_the_author_that_does_not_parse_is_an_error_that_shows_it() -> None:
    with pytest.raises(TemplateError, match=r"template '\{\{ workload\. \}\}': expected name or number"):
        await value(("python", "error-template", 0))


async def test_iter_total_is_the_size_of_the_loop() -> None:
    data = await value(("python", "loop-sequential", 0))
    assert data["tot"] == 1  # theirs: nothing; the plane takes the list for one item
    assert (await value(("rust", "loop-sequential", 0)))["tot"] == theirs(("rust", "loop-sequential", 0))["tot"]


async def test_expression_that_ends_in_tojson_gives_the_value() -> None:
    case: Case = ("rust", "types-in-text", 4)
    ours, their = (await value(case))["look"], theirs(case)["look"]
    assert (ours["js"], ours["jlist"]) == (their["js"], their["jlist"])
    assert (await value(("rust", "filters-basic", 4)))["look"]["tojson"] == {"a": "x", "b": 1}


async def test_missing_keychain_entry_is_undefined() -> None:
    """`keychain` itself is defined for us wherever it is spoken of."""
    assert await value(("python", "keychain", 0)) == theirs(("python", "keychain", 0)) == {"kc": None, "has": False}
    await equals(("python", "keychain", 3))
    assert await value(("rust", "keychain", 4)) == {"look": {"kc": "-", "has": True}}
    assert theirs(("rust", "keychain", 4)) == {"look": {"kc": "-", "has": False}}


async def test_missing_name_in_the_input_of_a_single_tool_is_an_empty_text_on_the_python_plane() -> None:
    """Theirs leaves the template one level deeper; `default` replaces null for us, as on the Rust plane."""
    case: Case = ("python", "error-raise", 3)
    assert await value(case) == {**theirs(case), "st": "", "err": ""}
    ours, their = await value(("python", "undefined-single", 3)), theirs(("python", "undefined-single", 3))
    assert [ours[name] for name in ("top", "wl", "step", "deep", "nostep")] == [""] * 5
    assert [their[name] for name in ("top", "wl", "step")] == [""] * 3


async def test_subscript_of_an_object_is_a_key_or_nothing_and_never_a_method() -> None:
    look = (await value(("rust", "methods-list", 0)))["look"]
    assert (look["attr"], look["items"], look["get"]) == ("none", [["a", 1]], 1)
