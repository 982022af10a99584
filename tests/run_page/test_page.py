"""The file: what is in it, what never is, and that text of a playbook is no markup."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from noetl_worker.authoring.run_page.page import render_page
from noetl_worker.authoring.run_page.run import CommandState
from noetl_worker.authoring.run_page.shown_values import MOST_CHARS
from run_page.told_plane import command, data_of, hostile_run, in_a_row, made_run, many_items, shown

ATTACKS = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\"'><svg onload=alert(1)>",
    "<!--<script>",
    "]]>&lt;b&gt;&amp;",
    "line\u2028separator\u2029end",
    "{{policy}}{{script}}",
)
SECRET = "s3cr3t-Passw0rd-94k2"


def hostile(text: str) -> str:
    return render_page(hostile_run(text, status=text))


@pytest.mark.parametrize("text", ATTACKS)
def test_text_of_a_playbook_is_never_markup(text: str) -> None:
    """The page has as many tags as the one of a harmless run, and its data is what was put in."""
    harmless, page = hostile("harmless"), hostile(text)
    assert page.count("<") == harmless.count("<")
    assert page.count("\u2028") == page.count("\u2029") == 0
    assert page.startswith(harmless[: harmless.index('<script id="data"')])
    data = data_of(page)
    kept = text.replace("\u2028", "\\u{2028}").replace("\u2029", "\\u{2029}")
    assert (data["steps"][0]["name"], data["commands"][0]["error"], data["run"]["path"]) == (kept, kept, kept)


@pytest.mark.parametrize("control", ["\u202e", "\u2066", "\u200f", "\x1b", "\x00", "\ud800"])
def test_control_that_turns_a_text_or_steers_a_terminal_is_shown_as_its_number(control: str) -> None:
    page = hostile(f"invoice{control}fdp.exe")
    assert control not in page
    assert data_of(page)["steps"][0]["name"] == f"invoice\\u{{{ord(control):x}}}fdp.exe"


def test_policy_lets_the_pages_own_script_and_style_run_and_nothing_else() -> None:
    page = render_page(made_run([command("start")]))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    (style,), script = re.findall(r"<style>(.*?)</style>", page, re.DOTALL), page.rpartition("<script>")[2]
    script = script.partition("</script>")[0]
    for text, rule in ((style, "style-src"), (script, "script-src")):
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert rules[rule] == f"'sha256-{digest}'"
    assert (rules["default-src"], rules["base-uri"], rules["form-action"]) == ("'none'", "'none'", "'none'")
    assert "connect-src" not in rules


def test_page_names_no_address_and_is_small() -> None:
    page = render_page(made_run([command("start")]))
    addresses = set(re.findall(r"""(?:https?:)?//[\w.-]+""", page))
    assert addresses - {"//"} == {"http://www.w3.org"}  # the namespace of SVG, which is a name
    assert "url(" not in page.replace("url(#arrow", "")
    assert "innerHTML" not in page
    assert "insertAdjacent" not in page
    assert len(page.encode()) < 100_000


def test_secret_of_the_workload_or_of_a_command_is_nowhere_on_the_page() -> None:
    run = made_run(
        [
            command("start", input={"auth": {"type": "bearer", "token": SECRET}, "url": "http://api"}),
            command("next", 1, output={"echo": f"got {SECRET}"}, stdout=f"using {SECRET}", stderr=SECRET),
            command("last", 2, error=f"refused {SECRET}", state=CommandState.FAILED),
        ],
        workload={"db": {"password": SECRET}},
        error=f"login with {SECRET} failed",
        notes=[f"not found: {SECRET}"],
    )
    page = render_page(run)
    assert SECRET not in page
    assert "[REDACTED]" in page


def test_secret_of_this_process_and_what_looks_like_one_are_taken_out() -> None:
    own, key = "own-Token-8823-kkq", "ghp_" + "a1B2" * 9
    run = made_run([command("start", output={"said": f"{own} and {key}"}, stdout=f"{key}\n{own}")])
    page = render_page(run, [own])
    assert own not in page
    assert key not in page


def test_code_is_shown_as_it_was_written_and_the_rest_as_json() -> None:
    data = shown(made_run([command("start", input={"code": "a = 1\nb = 2\n", "input": {"n": 2**62}})]))
    assert data["commands"][0]["input"] == [
        ["code", "a = 1\nb = 2\n"],
        ["", '{\n  "input": {\n    "n": 4611686018427387904\n  }\n}'],
    ]


def test_long_value_is_cut_and_says_how_long_it_is() -> None:
    ((_, text, whole),) = shown(made_run([command("start", output="x " * MOST_CHARS)]))["commands"][0]["output"]
    assert (len(text), whole) == (MOST_CHARS, 2 * MOST_CHARS)


def test_secret_on_the_cut_is_taken_out_before() -> None:
    printed = "x" * (MOST_CHARS - 9) + " " + SECRET
    page = render_page(made_run([command("start", input={"password": SECRET}, stdout=printed)]))
    assert SECRET[:6] not in page


def test_time_that_no_event_says_is_left_out() -> None:
    waiting = command("start", state=CommandState.WAITING, claimed=None, ended=None, attempts=0, worker="")
    (said,) = shown(made_run([waiting], status="RUNNING", ended=None))["commands"]
    assert said == {"step": 0, "state": "waiting", "id": "1:start:0", "event": "1", "issued": 0.0, "attempts": 0}


def test_graph_has_each_step_and_says_which_ways_were_taken() -> None:
    playbook = in_a_row("start", "next")
    playbook["workflow"][0]["next"]["arcs"].append({"step": "other", "when": "{{ 1 > 2 }}"})
    playbook["workflow"].append({"step": "other", "tool": [{"kind": "noop"}]})
    data = shown(made_run([command("start"), command("next", 1)], playbook))
    assert [step["kind"] for step in data["steps"]] == ["python", "python", "task_sequence"]
    assert data["steps"][0]["ways"] == [
        {"to": 1, "when": "", "taken": True},
        {"to": 2, "when": "{{ 1 > 2 }}", "taken": False},
    ]
    assert {tuple(way["ends"]): way["taken"] for way in data["graph"]["ways"]} == {(0, 1): True, (0, 2): False}


def test_playbook_of_very_many_steps_is_not_drawn() -> None:
    names = [f"s{number}" for number in range(200)]
    assert shown(made_run([], in_a_row(*names)))["graph"] is None


def test_end_that_the_plane_adds_is_no_step_unless_something_leads_there() -> None:
    added = {"step": "end", "tool": {"kind": "python"}}
    without, with_arc = in_a_row("start"), in_a_row("start")
    with_arc["workflow"][0]["next"] = "end"
    for playbook in (without, with_arc):
        playbook["workflow"].append(added)
    assert [step["name"] for step in shown(made_run([command("start")], without))["steps"]] == ["start"]
    assert [step["name"] for step in shown(made_run([command("start")], with_arc))["steps"]] == ["start", "end"]


def test_page_of_a_thousand_commands_is_less_than_a_megabyte() -> None:
    assert len(render_page(many_items(1000))) < 1_000_000
