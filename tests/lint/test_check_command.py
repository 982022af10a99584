"""`noetl-worker check` as it is typed, and what `dev` says before it runs a playbook."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from integration.processes import Ended, typed
from lint.head import HEAD
from noetl_worker.cli import app_for
from noetl_worker.cli.local_worker import local_settings
from noetl_worker.models.wire import Dialect

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[2]
WRONG = "workflow:\n  - step: start\n    tol: {kind: noop}\n" + HEAD
WARNED = 'workload: {a: 1}\nworkflow:\n  - step: start\n    tool: {kind: noop, result: "{{ workload.b }}"}\n' + HEAD
FINE = "workflow:\n  - step: start\n    tool: {kind: noop}\n" + HEAD


def written(folder: Path, text: str, name: str = "p.yaml") -> str:
    file = folder / name
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(text, encoding="utf-8")
    return str(file)


def checked(*words: str) -> Ended:
    return typed("check", *words)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (
            "p.yaml",
            WRONG.encode(),
            "3:5: NW101 unknown key 'tol' of a step; did you mean 'tool'?; the Rust plane refuses it",
        ),
        (
            "p.test.yaml",
            b"playbook: p.yaml\ncases:\n- expect: {}\n",
            "2:1: NW101 this is a file of tests, which `noetl-worker test` reads",
        ),
        ("p.yaml", FINE.removesuffix(HEAD).encode() + b"    desc: \xe4\n", "4:11: NW100 not UTF-8"),
        (
            "p.yaml",
            f"workload: {{a: !!bool x}}\n{FINE}".encode(),
            "1:1: NW100 not YAML: a tag (!!...) that does not fit its value",
        ),
    ],
    ids=["key", "file of tests", "encoding", "tag"],
)
def test_error_is_one_line_and_exit_code_1(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    ended = checked(str(file))
    assert (ended.code, ended.out) == (1, f"{file}:{said}\n")
    assert ended.err == "1 playbook: 1 error, 0 warnings\n"


def test_warning_is_exit_code_0_and_with_strict_1(tmp_path: Path) -> None:
    file = written(tmp_path, WARNED)
    assert [checked(file).code, checked(file, "--strict").code] == [0, 1]
    assert "NW309" in checked(file).out


def test_folder_gives_its_playbooks_and_no_other_yaml(tmp_path: Path) -> None:
    """A folder that is called like a playbook is looked into, and a link to nowhere is none."""
    written(tmp_path, WRONG, "old.yaml/a.yml")
    written(tmp_path, FINE)
    (tmp_path / "gone.yaml").symlink_to("/nowhere/a.yaml")
    written(tmp_path, "services: {}\n", "compose.yaml")
    written(tmp_path, WRONG, ".hidden/b.yaml")
    ended = checked(str(tmp_path))
    assert ended.err == "2 playbooks: 1 error, 0 warnings\n"
    assert "a.yml:3:5" in ended.out


def test_named_file_that_is_no_playbook_is_an_error_but_for_a_hook(tmp_path: Path) -> None:
    file = written(tmp_path, "services: {}\n")
    assert checked(file).code == 1
    assert checked(file, "--only-playbooks").code == 0


def test_standard_input_is_called_as_the_editor_says(tmp_path: Path) -> None:
    words = ["check", "-", "--stdin-filename", "open.yaml"]
    done = CliRunner().invoke(app_for(words), words, input=WRONG)
    assert done.exit_code == 1
    assert done.stdout.startswith("open.yaml:3:5: NW101 ")


@pytest.mark.parametrize("form", ["json", "sarif", "github"])
def test_formats_name_the_place_and_the_code(form: str, tmp_path: Path) -> None:
    file = written(tmp_path, WRONG)
    out = checked(file, "--format", form).out
    if form == "json":
        (found,) = json.loads(out)
        assert (found["line"], found["column"], found["code"], found["severity"]) == (3, 5, "NW101", "error")
    elif form == "sarif":
        (run,) = json.loads(out)["runs"]
        (result,) = run["results"]
        assert result["ruleId"] in {rule["id"] for rule in run["tool"]["driver"]["rules"]}
        assert result["locations"][0]["physicalLocation"]["region"] == {"startLine": 3, "startColumn": 5}
    else:
        assert out.startswith(f"::error file={file},line=3,col=5,title=NW101::unknown key")


@pytest.mark.parametrize("form", ["json", "sarif"])
def test_nothing_found_is_still_a_document(form: str, tmp_path: Path) -> None:
    assert json.loads(checked(written(tmp_path, FINE), "--format", form).out) is not None


def test_text_of_a_playbook_cannot_speak_for_the_check(tmp_path: Path) -> None:
    """A key with a line break or an escape sequence neither begins a command of GitHub's nor colours a terminal."""
    file = written(tmp_path, FINE + '    "x\\n::error::y\\e[31m\\u202e": 1\n')
    ended = checked(file, "--format", "github")
    assert ended.code == 1
    assert len(ended.out.splitlines()) == 1
    assert not {"\x1b", "\u202e"} & set(ended.out)


@pytest.mark.parametrize(
    ("flags", "codes"),
    [
        ((), ["NW101", "NW309"]),
        (("--select", "NW1"), ["NW101"]),
        (("--ignore", "NW101"), ["NW309"]),
        (("--select", "NW3", "--ignore", "NW309"), []),
    ],
)
def test_select_and_ignore_take_codes_and_groups(flags: tuple[str, ...], codes: list[str], tmp_path: Path) -> None:
    file = written(tmp_path, WARNED.replace("start\n", "start\n    whn: 1\n"))
    out = checked(file, "--format", "json", *flags).out
    assert [one["code"] for one in json.loads(out)] == codes


def test_settings_file_beside_or_above_holds_and_flags_win(tmp_path: Path) -> None:
    file = written(tmp_path, WRONG, "deep/p.yaml")
    written(tmp_path, "ignore: [NW101]\n", ".noetl-check.yaml")
    assert checked(file).code == 0
    assert checked(file, "--ignore", "NW2").code == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ignroe: [NW1]\n", "unknown key 'ignroe'; did you mean 'ignore'?"),
        ("ignore: [NW9]\n", "no code begins with 'NW9'"),
        ("plane: go\n", "plane is 'go', not python or rust"),
        ("strict: maybe\n", "strict is 'maybe': write true or false"),
        ("[", "not YAML at line"),
        ("strict: !!bool x\n", "not YAML"),
        ("baseline: none.json\n", "none.json: No such file or directory; make the file with --write-baseline"),
        ("credentials: none.yaml\n", "none.yaml: No such file or directory"),
    ],
)
def test_wrong_settings_file_is_one_line(text: str, said: str, tmp_path: Path) -> None:
    written(tmp_path, text, ".noetl-check.yaml")
    ended = checked(written(tmp_path, FINE))
    assert ended.code == 2
    assert len(ended.err_lines) == 1
    assert said in ended.err


def test_missing_path_and_none_at_all_are_one_line(tmp_path: Path) -> None:
    for words in ((str(tmp_path / "none.yaml"),), ()):
        ended = checked(*words)
        assert (ended.code, len(ended.err_lines)) == (2, 1)


def test_baseline_leaves_out_what_is_known_as_often_as_it_is(tmp_path: Path) -> None:
    file, known = written(tmp_path, WRONG), str(tmp_path / "known.json")
    assert checked(file, "--write-baseline", known).code == 0
    assert checked(file, "--baseline", known).code == 0
    written(tmp_path, f"# a line above\n{WRONG}")
    assert checked(file, "--baseline", known).code == 0
    written(tmp_path, WRONG + "  - step: last\n    tol: {kind: noop}\n")
    assert checked(file, "--baseline", known).code == 1


@pytest.mark.parametrize(
    ("comment", "is_silent"),
    [
        ("# noetl: ignore NW101", True),
        ("# noetl: ignore", True),
        ("# noetl: ignore NW102, NW101", True),
        ("# noetl: ignore NW102", False),
    ],
)
def test_comment_silences_its_line_or_the_one_below(comment: str, is_silent: bool, tmp_path: Path) -> None:
    at_the_end = WRONG.replace("{kind: noop}", f"{{kind: noop}}  {comment}")
    above = WRONG.replace("    tol", f"    {comment}\n    tol")
    for text in (at_the_end, above):
        assert checked(written(tmp_path, text)).code == (0 if is_silent else 1)


def test_credentials_file_says_what_auth_may_name(tmp_path: Path) -> None:
    known = written(tmp_path, "shop: {type: bearer, data: {token: t}}\n", "known.yaml")
    tool = "{kind: http, url: 'https://example.org', auth: NAME}"
    for auth, code in (
        ("shop", 0),
        ("shpo", 1),
        ("{credential: shop}", 0),
        ("{credential: shpo}", 1),
        ("{type: api_key, name: X-Key, key: '{{ keychain.shop.key }}'}", 0),
        ("'{{ workload.auth }}'", 0),
    ):
        file = written(tmp_path, FINE.replace("{kind: noop}", tool.replace("NAME", auth)))
        assert checked(file, "--credentials", known).code == code, auth
        assert checked(file, "--select", "NW4").code == 0


def test_plane_makes_an_error_of_what_fails_there_and_leaves_out_the_other(tmp_path: Path) -> None:
    method = FINE.replace("{kind: noop}", "{kind: shell, command: \"echo {{ 'a'.upper() }}\"}")
    file = written(tmp_path, method)
    assert [checked(file, *words).code for words in ((), ("--plane", "rust"), ("--plane", "python"))] == [0, 1, 0]
    assert checked(file, "--plane", "python").out == ""


def test_hook_of_pre_commit_runs_as_it_is_written(tmp_path: Path) -> None:
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    _, *words = hook["entry"].split()
    files = [written(tmp_path, WRONG), written(tmp_path, "services: {}\n", "compose.yaml")]
    ended = typed(*words, *files)
    assert (ended.code, ended.err) == (1, "1 playbook: 1 error, 0 warnings\n")


# ── dev ─────────────────────────────────────────────────────────────────────────────────────────


def test_dev_warns_of_what_is_found_and_runs_and_with_strict_refuses_it(tmp_path: Path) -> None:
    file = written(tmp_path, WARNED)
    for flag, word, code in (("--json", "warning", 0), ("--strict", "error", 2)):
        ended = typed("dev", file, flag)
        assert (ended.code, bool(ended.out)) == (code, code == 0)
        assert ended.err_lines == [f"{word}: {file}:4:45: NW309 workload has no 'b'"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("workload.naem=1", "workload has no 'naem'; did you mean 'name'?"),
        ("workload.deep.err=1", "workload.deep has no 'err'; did you mean 'er'?"),
    ],
)
def test_dev_refuses_to_set_what_the_workload_has_not(given: str, said: str, tmp_path: Path) -> None:
    file = written(tmp_path, "workload: {name: a, deep: {er: 1}}\n" + FINE)
    ended = typed("dev", file, "--set", given)
    assert ended.code == 2
    assert ended.err_lines == [f"noetl-worker dev: --set {given.partition('=')[0]}: {said}"]


def test_dev_reads_how_strict_its_worker_is(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = {"NOETL_WORKER_UNDEFINED": "error"}
    settings = local_settings("nats://127.0.0.1:1", "http://127.0.0.1:1", Dialect.PYTHON, machine=machine).settings
    assert settings.undefined == "error"
