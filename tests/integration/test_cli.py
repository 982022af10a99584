"""The command line as a person at a laptop uses it.

As a process: what is done before there is a command, signals, and what really is on standard output. In this process:
what differs in arguments and playbooks alone, since most of a command is its start.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer
import yaml
from typer.testing import CliRunner

from integration.processes import Ended, WorkerProcess, command_line, environment, program, typed, until
from noetl_worker import __version__
from noetl_worker.cli.setting_flags import SettingFlags, long_flag, with_setting_flags
from noetl_worker.settings.settings import SETTINGS

EXAMPLES = Path(__file__).parents[2] / "examples"
ELSEWHERE = {
    "branch.yaml": "docs/laptop.md has it, and test_page_commands.py runs it",
    "child.yaml": "parent.yaml starts it",
    "demo.yaml": "test_demo_of_a_clone.py",
    "packages.yaml": "test_packages_command.py, with an index of its own",
}
RUNNABLE = sorted(path.name for path in EXAMPLES.glob("*.yaml") if path.name not in ELSEWHERE)


def json_lines(text: str) -> list[dict[str, Any]]:
    """Every line is one JSON object; anything else raises."""
    found = [json.loads(line) for line in text.splitlines()]
    assert all(isinstance(one, dict) for one in found)
    return found


def complaint(ended: Ended) -> str:
    """The one line on stderr of a command that could not begin; nothing on stdout."""
    assert ended.code != 0
    assert ended.out == ""
    first, *others = ended.err_lines
    assert not others or (len(others) == 1 and "--anyway" in others[0]), ended.err
    return first


def playbook(directory: Path, *steps: dict[str, Any]) -> str:
    document = {
        "apiVersion": "noetl.io/v2",
        "kind": "Playbook",
        "metadata": {"name": "p", "path": "tests/p"},
        "workload": {"who": "world", "deep": {"er": 1}},
        "workflow": list(steps),
    }
    file = directory / "p.yaml"
    file.write_text(yaml.safe_dump(document, sort_keys=False))
    return str(file)


ECHO = {"step": "start", "tool": {"kind": "shell", "command": "echo {{ workload.who }} {{ workload.deep.er }}"}}

# ── run, config, tools ──


@pytest.mark.parametrize("words", [["nats", "ensure"], ["dev", str(EXAMPLES / "hello.yaml")]])
def test_engine_that_does_not_exist_is_one_line_for_every_command(words: list[str], tmp_path: Path) -> None:
    ended = command_line(tmp_path, *words, NOETL_WORKER_ENGINE="fortran")
    said = "NOETL_WORKER_ENGINE='fortran' is not usable: one of auto, rust, python"
    assert complaint(ended) == f"noetl-worker {words[0]}: {said}"
    assert ended.code == 2


def test_version_names_version_engine_and_interpreter(tmp_path: Path) -> None:
    ended = command_line(tmp_path, "--version")
    assert ended.code == 0
    assert ended.out.startswith(f"noetl-worker {__version__} (engine: ")
    assert f"Python {sys.version.split()[0]}" in ended.out


def test_help_lists_the_commands_and_exit_codes(tmp_path: Path) -> None:
    ended = command_line(tmp_path, "--help")
    assert ended.code == 0
    assert all(name in ended.out for name in ("run", "dev", "tools", "config", "--version"))
    assert "Exit codes" in typed("run", "--help").out


def test_run_is_the_default_command(tmp_path: Path) -> None:
    ended = command_line(tmp_path, WORKER_MAX_CONCURRENT="none")
    assert ended.code == 2
    [first], [second] = (
        json_lines(one.err) for one in (ended, command_line(tmp_path, "run", WORKER_MAX_CONCURRENT="none"))
    )
    assert {**first, "timestamp": ""} == {**second, "timestamp": ""}


def test_every_setting_has_a_flag_whose_help_says_variable_unit_and_default() -> None:
    told = " ".join(typed("run", "--help").out.replace("│", " ").split())
    missing = [
        line.field
        for line in SETTINGS
        if long_flag(line) not in told
        or f"{line.variable}; {f'default {line.default} {line.unit}'.strip() if line.default else 'no default'}"
        not in told
    ]
    assert missing == []


def test_flag_of_any_setting_reaches_it_and_no_other() -> None:
    given: list[SettingFlags] = []

    @with_setting_flags()
    def command(flags: SettingFlags) -> None:
        given.append(flags)

    app = typer.Typer()
    app.command()(command)
    words = [word for line in SETTINGS for word in (long_flag(line), f"of {line.variable}")]
    assert CliRunner().invoke(app, words).exit_code == 0
    [flags] = given
    assert {name: text for name, text in flags.items() if text is not None} == {
        line.variable: f"of {line.variable}" for line in SETTINGS
    }


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        ("noetl-worker do", "doctor"),
        ("noetl-worker run --ack-w", "--ack-wait-s"),
        ("noetl-worker tools task", "task_sequence"),
        ("noetl-worker exec post", "postgres"),
        (f"noetl-worker dev {EXAMPLES}/branch.yaml --step h", "high"),
    ],
)
def test_shell_completes_commands_flags_and_kinds(words: str, offered: str) -> None:
    asked = {"_NOETL_WORKER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    assert typed(**asked).out.split() == [offered]


def test_shell_that_completes_is_answered_by_the_process(tmp_path: Path) -> None:
    asked = {"_NOETL_WORKER_COMPLETE": "complete_bash", "COMP_WORDS": "noetl-worker do", "COMP_CWORD": "1"}
    assert command_line(tmp_path, **asked).out.split() == ["doctor"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("dev", "p.yaml", "--log-level", "verbose"), "noetl-worker dev: Invalid value for '--log-level'"),
        (("dev", "p.yaml", "--dialect", "go"), "'go' is not one of 'python', 'rust'"),
        (("dev",), "noetl-worker dev: Missing argument 'playbook'"),
        (("dev", "p.yaml", "--kep"), "noetl-worker dev: No such option: --kep"),
        (("run", "--log-level", "verbose"), "LOG_LEVEL='verbose' is not usable: one of debug, info"),
        (("completion", "tcsh"), "noetl-worker completion: Invalid value for 'shell': 'tcsh' is not one of"),
        (("dve",), "noetl-worker: No such command 'dve'"),
    ],
)
def test_wrong_argument_is_one_line_and_exit_2(words: tuple[str, ...], said: str) -> None:
    ended = typed(*words)
    assert (ended.code, ended.out, len(ended.err_lines)) == (2, "", 1)
    assert said in ended.err


def test_completion_prints_the_script_of_a_shell(tmp_path: Path) -> None:
    for ended in (command_line(tmp_path, "completion", "zsh", SHELL=""), typed("completion", SHELL="/bin/bash")):
        assert (ended.code, ended.err) == (0, "")
        assert "_NOETL_WORKER_COMPLETE" in ended.out
    unknown = typed("completion", SHELL="/bin/tcsh")
    assert (unknown.code, unknown.out, len(unknown.err_lines)) == (2, "", 1)
    assert "bash, zsh, fish" in unknown.err


def test_config_shows_every_setting_and_no_secret(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("WORKER_POOL_NAME=from-dotenv\nNATS_TOKEN=t0ken\n")
    secrets = {"NATS_URL": "nats://u:s3cr3t@nats:4222", "NATS_PASSWORD": "pa55", "NOETL_INTERNAL_API_TOKEN": "1nternal"}
    ended = command_line(tmp_path, "config", **secrets)
    assert ended.code == 0
    rows = [line.split("\t") for line in ended.out.splitlines()]
    assert [row[0] for row in rows] == [line.variable for line in SETTINGS], "a line each, whole, for a pipe"
    shown = {variable: (value, source) for variable, value, _, source in rows}
    assert shown["WORKER_POOL_NAME"] == ("from-dotenv", ".env")
    assert shown["NATS_PASSWORD"] == ("***", "environment")
    assert shown["NATS_URL"] == ("nats://***@nats:4222", "environment")
    assert shown["WORKER_HEARTBEAT_INTERVAL"] == ("15", "default")
    for secret in ("s3cr3t", "pa55", "1nternal", "t0ken"):
        assert secret not in ended.out + ended.err


@pytest.mark.parametrize(
    ("variable", "given", "shown"),
    [
        ("NATS_URL", "nats://u:p@ssw0rd@h,tls://t0ken@i:1", "nats://***@h,tls://***@i:1"),
        ("NOETL_SERVER_URL", "http://u:p@ssw0rd@h/p", "http://***@h/p"),
        ("NOETL_SERVER_URL", "http://u:1/ssw0rd@h", "http://***@h"),
        ("NOETL_WORKER_TRUSTED_SERVERS", "http://a,http://u:p@b", "http://a,http://***@b"),
        ("NOETL_MCP_A_URL", "https://h/@owner/name", "https://h/@owner/name"),
        ("NATS_USER", "me@example.org", "me@example.org"),
    ],
)
def test_config_hides_the_login_of_an_address_and_nothing_else(variable: str, given: str, shown: str) -> None:
    rows = [line.split("\t") for line in typed("config", **{variable: given}).out.splitlines()]
    assert [value for name, value, *_ in rows if name == variable] == [shown]


@pytest.mark.parametrize(
    ("variable", "given"),
    [
        ("NOETL_WORKER_KIND_LIMITS", "postgres=4,container=2"),
        ("NOETL_WORKER_CREDENTIALS_ALLOW", "etl/*=pg-etl-*,s3;billing/invoices=pg-billing"),
    ],
)
def test_config_shows_values_by_name_in_the_form_that_the_variable_takes(variable: str, given: str) -> None:
    rows = [line.split("\t") for line in typed("config", **{variable: given}).out.splitlines()]
    assert [value for name, value, *_ in rows if name == variable] == [given]


def test_config_shows_what_a_flag_says_and_that_it_is_one() -> None:
    given = ("--nats-consumer", "gpu", "-c", "3", "--nats-token", "t0ken")
    ended = typed("config", *given, WORKER_MAX_CONCURRENT="5")
    assert (ended.code, ended.err) == (0, "")
    rows = [line.split("\t") for line in ended.out.splitlines()]
    by_flag = {variable: value for variable, value, _, source in rows if source == "flag"}
    assert by_flag == {"NATS_CONSUMER": "gpu", "WORKER_MAX_CONCURRENT": "3", "NATS_TOKEN": "***"}
    wrong = typed("config", "--concurrency", "many")
    assert (wrong.code, "WORKER_MAX_CONCURRENT='many'" in complaint(wrong)) == (2, True)


def test_tools_lists_the_kinds() -> None:
    ended = typed("tools")
    assert ended.code == 0
    assert {"noop", "shell", "http", "python", "playbook", "task_sequence"} <= set(ended.out.split())


# ── dev ──


@pytest.mark.parametrize("name", RUNNABLE)
def test_example_completes(name: str) -> None:
    ended = typed("dev", str(EXAMPLES / name))
    assert ended.code == 0, ended.out + ended.err
    assert "COMPLETED" in ended.out
    assert ended.err == ""


def test_wrong_step_name_is_answered_with_the_nearest_one(tmp_path: Path) -> None:
    arcs = {"next": {"arcs": [{"step": "reprot"}]}}
    file = playbook(tmp_path, {**ECHO, **arcs}, {"step": "report", "tool": {"kind": "noop"}})
    line = complaint(typed("dev", file, "--dialect", "rust"))
    assert "step 'start'" in line
    assert "'reprot'" in line
    assert "'report'" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("workflow: [\n  - step: start", "NW100"),
        ("just text", ""),
        ("", ""),
        ("apiVersion: noetl.io/v2\nkind: Playbook\nmetadata: {name: p}\nworkflow: []\n", "workflow"),
    ],
    ids=["missing", "broken", "text", "empty", "no steps"],
)
def test_file_that_is_no_playbook_is_named_in_one_line(text: str | None, said: str, tmp_path: Path) -> None:
    file = tmp_path / "broken.yaml"
    if text is not None:
        file.write_text(text)
    ended = typed("dev", str(file))
    assert ended.code == 2
    line = complaint(ended)
    assert str(file) in line
    assert said in line


@pytest.mark.parametrize(
    ("given", "said"),
    [
        *((one, "--set") for one in ("who=Ada", "workload.=1", "workload.who")),
        ("workload.who.first=Ada", "--set workload.who.first: workload.who is not a mapping"),
    ],
)
def test_override_that_cannot_be_set_is_named(given: str, said: str, tmp_path: Path) -> None:
    ended = typed("dev", playbook(tmp_path, ECHO), "--set", given)
    assert ended.code == 2
    assert said in complaint(ended)


@pytest.mark.parametrize("dialect", ["python", "rust"])
def test_json_is_all_that_stdout_has(dialect: str, tmp_path: Path) -> None:
    sets = ("--set", "workload.who=Ada", "--set", "workload.deep.er=2")
    words = ("dev", playbook(tmp_path, ECHO), *sets, "--json", "--dialect", dialect)
    ended = command_line(tmp_path, *words) if dialect == "python" else typed(*words)
    assert ended.code == 0
    assert ended.err == ""
    lines = json_lines(ended.out)
    assert [line["event"] for line in lines] == ["begin", "started", "output", "done", "summary"]
    assert lines[-1]["status"] == "COMPLETED"
    assert "Ada 2" in json.dumps(lines[-1]["result"])


def test_json_tells_a_failure_too(tmp_path: Path) -> None:
    file = playbook(tmp_path, {"step": "start", "tool": {"kind": "python", "code": "raise ValueError('not today')"}})
    ended = typed("dev", file, "--json")
    assert ended.code == 1
    assert json_lines(ended.out)[-1]["status"] == "FAILED"
    assert "not today" in ended.out


# ── dev --keep ──


async def test_keep_serves_execute_until_a_signal_and_leaves_no_process(tmp_path: Path) -> None:
    """SIGTERM; for Ctrl-C: tests/security/test_dev_of_another_user.py."""
    words = ["dev", playbook(tmp_path, ECHO), "--keep", "--json"]
    kept = WorkerProcess(tmp_path, "dev", {"COLUMNS": "200"}, words)
    try:
        await kept.wait_logged("summary")
        [begin] = kept.logged("begin")
        url = begin["control_plane"]
        token = {"Authorization": f"Bearer {Path(begin['NOETL_INTERNAL_API_TOKEN_FILE']).read_text()}"}
        async with httpx.AsyncClient(trust_env=False, verify=False, headers=token) as client:
            answer = await client.post(f"{url}/api/execute", json={"path": "tests/p", "payload": {"who": "Bob"}})
            execution_id = answer.json()["execution_id"]

            async def is_over() -> bool:
                status = (await client.get(f"{url}/api/executions/{execution_id}/status")).json()
                return bool(status.get("completed"))

            await until(is_over, "the execution asked for")
        kept.signal()
        assert await kept.exit_code() == 143
        port = int(begin["nats"].rpartition(":")[2])
        await until(lambda: is_closed(port), "the end of nats-server")
    finally:
        await asyncio.to_thread(kept.end)


async def is_closed(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    writer.close()
    return False


def started_after(code: str, *arguments: str) -> Ended:
    """The command line in an interpreter that has run this before."""
    whole = f"{code}\nfrom noetl_worker.__main__ import main\nmain()"
    return program([sys.executable, "-c", whole, *arguments], environment())


@pytest.mark.parametrize(
    ("who", "missing", "arguments"),
    [
        ("noetl-worker dev", "yaml", ["dev", "p.yaml"]),
        ("noetl-worker test", "yaml", ["test", "p.test.yaml"]),
        ("noetl-worker dev", "uvicorn", ["dev", "p.yaml"]),
    ],
)
def test_what_only_the_extra_installs_is_named_with_how_to_install_it(
    who: str, missing: str, arguments: list[str]
) -> None:
    ended = started_after(f"import sys; sys.modules[{missing!r}] = None", *arguments)
    said = complaint(ended)
    assert ended.code == 2
    assert said.startswith(f"{who}: {missing}")
    assert said.endswith('is not installed: pip install "noetl-worker[local]" (in a clone: ".[local]")')


def test_ctrl_c_while_the_command_line_loads_leaves_no_traceback() -> None:
    code = """
import sys
class Stop:
    def find_spec(self, name, path=None, target=None):
        if name == "typer":
            raise KeyboardInterrupt
sys.meta_path.insert(0, Stop())
"""
    assert started_after(code, "config") == Ended(130, "", "")
