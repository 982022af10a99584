"""Where a setting comes from, secrets in files, contexts of the NATS CLI, and the settings of tools."""

from __future__ import annotations

import ast
import json
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path

import pytest

import noetl_worker
from integration.processes import environment
from noetl_worker.engine import chosen as engine
from noetl_worker.errors import SettingsError
from noetl_worker.remote.jetstream.connection import nats_login
from noetl_worker.settings.settings import SETTINGS, environment_for_workers, load_settings, read_settings
from noetl_worker.settings.sources import GONE, unknown_names
from noetl_worker.worker.worker import Worker
from patience import PATIENCE_S
from unit.planes import refusal

NOWHERE = Path(os.devnull)


# ── where it came from ──


def test_each_value_has_its_source_and_the_first_source_wins(tmp_path: Path) -> None:
    dotenv, token = tmp_path / ".env", tmp_path / "token"
    dotenv.write_text("WORKER_POOL_NAME=a\nWORKER_ID=b\nNOETL_DATA_DIR=/d\n")
    token.write_text("t0ken\n")
    environment = {
        "LOG_LEVEL": "info",
        "WORKER_ID": "c",
        "NOETL_WORKER_HTTP_TIMEOUT": "3",
        "NATS_TOKEN_FILE": str(token),
        "PORT": "1234",
    }
    reading = read_settings(environment, flags={"LOG_LEVEL": "debug"}, dotenv=dotenv)
    assert {name: (one.text, one.source) for name, one in reading.given.items()} == {
        "LOG_LEVEL": ("debug", "flag"),
        "WORKER_ID": ("c", "environment"),
        "NOETL_WORKER_HTTP_TIMEOUT_S": ("3", "environment (NOETL_WORKER_HTTP_TIMEOUT)"),
        "NATS_TOKEN": ("t0ken", "environment (NATS_TOKEN_FILE)"),
        "WORKER_METRICS_BIND": ("0.0.0.0:1234", "environment"),
        "WORKER_POOL_NAME": ("a", ".env"),
        "NOETL_DATA_DIR": ("/d", ".env"),
    }


# ── secrets in files ──


def test_every_secret_may_be_in_a_file(tmp_path: Path) -> None:
    secrets = [line for line in SETTINGS if line.is_secret]
    assert {line.variable for line in secrets} == {
        "NATS_URL",
        "NATS_PASSWORD",
        "NATS_TOKEN",
        "NATS_SEED",
        "NATS_JWT",
        "NOETL_INTERNAL_API_TOKEN",
        "NOETL_WORKER_DEBUG_TOKEN",
    }
    given = {"NATS_NKEY": str(tmp_path / "NATS_URL")}  # a JWT wants a key beside it
    for line in secrets:
        file = tmp_path / line.variable
        file.write_text("nats://h:1\n" if line.variable == "NATS_URL" else f"of {line.variable}\n")
        key = {} if line.variable != "NATS_JWT" else given
        settings = load_settings({line.file_variable: str(file), **key}, dotenv=NOWHERE)
        assert getattr(settings, line.field).reveal() == file.read_text().strip()


def test_file_of_a_secret_that_is_unreadable_empty_or_one_of_two_stops_the_start(tmp_path: Path) -> None:
    empty, binary = tmp_path / "empty", tmp_path / "binary"
    empty.write_text(" \n")
    binary.write_bytes(b"\xff\xfe")
    for path, allowed in ((tmp_path / "none", "No such file"), (empty, "not empty"), (binary, "not UTF-8 text")):
        assert re.search(rf"NATS_PASSWORD_FILE.*{allowed}", refusal({"NATS_PASSWORD_FILE": str(path)}))
    both = refusal({"NATS_PASSWORD_FILE": str(empty), "NATS_PASSWORD": "hunter2"})
    assert re.search(r"NATS_PASSWORD_FILE.*set it or NATS_PASSWORD, not both", both)


def test_flag_wins_over_the_file_that_the_environment_names(tmp_path: Path) -> None:
    given = {"NATS_PASSWORD_FILE": str(tmp_path / "none")}
    assert load_settings(given, flags={"NATS_PASSWORD": "x"}, dotenv=NOWHERE).nats_password.reveal() == "x"


# ── contexts of the NATS CLI ──


def context(home: Path, name: str = "prod", **keys: object) -> dict[str, str]:
    """Save one as `nats context save` does; the environment that finds it."""
    file = home / "nats" / "context" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    saved = dict.fromkeys(("description", "url", "user", "password", "creds", "nkey", "cert", "key", "ca", "nsc"), "")
    file.write_text(json.dumps({**saved, "color_scheme": "", **keys}))
    return {"XDG_CONFIG_HOME": str(home), "NATS_CONTEXT": name}


def test_context_gives_what_is_not_set_otherwise(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    keys = {"url": "nats://a:1,nats://b:2", "user": "u", "password": "p", "ca": str(authority)}
    there = context(tmp_path, **keys)
    reading = read_settings(there, dotenv=NOWHERE)
    assert reading.settings.nats_servers == ["nats://a:1", "nats://b:2"]
    assert nats_login(reading.settings) == {"user": "u", "password": "p"}
    assert reading.settings.nats_ca == str(authority)
    assert reading.given["NATS_USER"].source == "NATS context prod"
    by_path = {"NATS_CONTEXT": str(tmp_path / "nats/context/prod.json")}
    assert load_settings(by_path, dotenv=NOWHERE).nats_user == "u"
    in_home = {"HOME": str(tmp_path / "home"), "NATS_CONTEXT": "x"}
    context(tmp_path / "home/.config", "x", user="h")
    assert load_settings(in_home, dotenv=NOWHERE).nats_user == "h"


@pytest.mark.parametrize("name", ["mine", "~/mine.json"])
def test_context_of_a_user_who_has_no_home_names_its_file(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a pod's user without an entry, where nothing sets HOME."""
    monkeypatch.delenv("HOME")
    monkeypatch.setattr(pwd, "getpwuid", dict[int, object]().__getitem__)
    assert re.search(r"NATS_CONTEXT='.*mine.*'.*\(~/.*mine\.json: No such file", refusal({"NATS_CONTEXT": name}))


def test_login_of_a_context_is_not_mixed_with_one_that_is_set(tmp_path: Path) -> None:
    there = context(tmp_path, url="nats://a:1", user="u", password="p")
    settings = load_settings({**there, "NATS_TOKEN": "t"}, dotenv=NOWHERE)
    assert (settings.nats_servers, nats_login(settings)) == (["nats://a:1"], {"token": "t"})


@pytest.mark.parametrize(
    ("url", "login"),
    [
        ("nats://a:p@b:1", {"user": "a", "password": "p"}),
        ("nats://t0ken@b:1", {"token": "t0ken"}),
        ("nats://b:1", {"user": "u", "password": "c"}),
        ("nats://b:1,nats://a:p@c:1", {"user": "u", "password": "c"}),
    ],
)
def test_login_in_the_address_goes_before_that_of_a_context(url: str, login: dict[str, str], tmp_path: Path) -> None:
    there = context(tmp_path, url="nats://x:1", user="u", password="c")
    settings = load_settings({**there, "NATS_URL": url}, dotenv=NOWHERE)
    assert (settings.nats_servers[0], nats_login(settings)) == ("nats://b:1", login)


@pytest.mark.parametrize("key", ["nsc", "jetstream_domain", "inbox_prefix", "tls_first", "socks_proxy"])
def test_context_that_asks_for_what_a_worker_does_not_do_stops_the_start(key: str, tmp_path: Path) -> None:
    text = refusal(context(tmp_path, **{key: "x"}))
    assert re.search(rf"NATS_CONTEXT='prod'.*without {key}, which a worker does not support", text)


def test_context_that_is_not_there_or_is_none_names_its_file(tmp_path: Path) -> None:
    there = context(tmp_path)
    other = refusal({**there, "NATS_CONTEXT": "other"})
    assert re.search(r"NATS_CONTEXT='other'.*other\.json: No such file", other)
    (tmp_path / "nats/context/prod.json").write_text("{")
    assert "prod.json: the file is not JSON" in refusal(there)


# ── logins ──


def test_login_by_key_that_leaves_open_which_is_meant_stops_the_start(tmp_path: Path) -> None:
    file = tmp_path / "x"
    file.touch()
    both = refusal({"NATS_NKEY": str(file), "NATS_SEED": "SUhunter2"})
    assert re.search(r"NATS_SEED.*set it or NATS_NKEY, not both", both)
    for beside in ({}, {"NATS_CREDS": str(file)}):
        assert re.search(r"NATS_JWT.*together with NATS_SEED or NATS_NKEY", refusal({"NATS_JWT": "j", **beside}))
    assert re.search(r"NATS_CERT.*together with NATS_KEY", refusal({"NATS_CERT": str(file)}))


def test_keys_of_the_login_are_secrets_of_the_worker() -> None:
    settings = load_settings({"NATS_SEED": "SUseed", "NATS_JWT": "jwt-text"}, dotenv=NOWHERE)
    assert {"SUseed", "jwt-text"} <= set(settings.secrets())
    assert "SUseed" not in repr(settings)


# ── what cannot be read ──

TOO_LONG = "x" * 300
"""A name whose very question fails, as one in a directory that this user may not search does."""


@pytest.mark.parametrize("variable", ["NATS_CREDS", "NATS_NKEY", "NOETL_TLS_CA", "NOETL_SECRETS_DIR"])
def test_path_that_cannot_be_asked_for_is_a_wrong_setting(variable: str) -> None:
    assert re.search(f"{variable}=.*the path of a", refusal({variable: TOO_LONG}))


def test_dotenv_file_that_cannot_be_read_stops_the_start_in_one_line(tmp_path: Path) -> None:
    binary = tmp_path / ".env"
    binary.write_bytes(b"WORKER_ID=\xff\xfe\n")
    for path, reason in ((binary, "the file is not UTF-8 text"), (tmp_path / TOO_LONG, "File name too long")):
        assert re.match(rf"\.env='{path}' is not usable: .*{reason}", refusal({}, dotenv=path))
        with pytest.raises(SettingsError, match=reason):
            unknown_names(SETTINGS, {}, path)


# ── tools ──


@pytest.mark.parametrize("value", ["2GB", "1.5 GiB", "512mib", "80%"])
def test_memory_as_duckdb_reads_it_is_taken(value: str) -> None:
    assert load_settings({"NOETL_DUCKDB_MEMORY_LIMIT": value}, dotenv=NOWHERE).duckdb_memory_limit == value


def test_tools_find_in_the_environment_what_flags_dotenv_and_files_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, dotenv = tmp_path / "secret", tmp_path / ".env"
    secret.write_text("from a file\n")
    dotenv.write_text("NOETL_MCP_X_ENDPOINT=http://x\nNOETL_DATA_DIR=/in/dotenv\nNATS_TOKEN=t\n")
    own = {"NOETL_SECRET_A_FILE": str(secret), "NOETL_DATA_DIR": "/in/environment", "NOETL_SECRET_A_HOSTS": "h"}
    monkeypatch.setattr(os, "environ", dict(own))
    settings = load_settings(flags={"NOETL_WORKER_OUTBOX_DIR": "/flag"}, dotenv=dotenv)
    assert settings.data_dir == "/in/environment"
    assert os.environ == own
    assert settings.pick_tool_settings(()).named == {
        "NOETL_SECRET_A": "from a file",
        "NOETL_SECRET_A_HOSTS": "h",
        "NOETL_MCP_X_ENDPOINT": "http://x",
    }
    assert settings.files_read == (str(dotenv), str(secret))


def test_flag_takes_the_place_of_all_variables_that_say_the_same() -> None:
    """A worker refuses a secret and a file of it; of two spellings it would take the other one."""
    variables = {"NATS_PASSWORD": "a", "NOETL_WORKER_HTTP_TIMEOUT": "3", "NATS_USER": "u", "NOETL_SECRET_X_FILE": "/x"}
    flags = {"NATS_PASSWORD_FILE": "/b", "NOETL_WORKER_HTTP_TIMEOUT_S": "4", "NATS_USER": None, "NATS_TOKEN": " "}
    assert environment_for_workers(variables, flags) == {
        "NATS_PASSWORD_FILE": "/b",
        "NOETL_WORKER_HTTP_TIMEOUT_S": "4",
        "NATS_USER": "u",
        "NOETL_SECRET_X_FILE": "/x",
    }


NO_SETTINGS = {
    "NOETL_COMMANDS": "a stream",
    "NOETL_COMMAND_STARTS": "a bucket",
    "NOETL_DEAD_LETTERS": "a stream",
    "NOETL_WORKER_PROBES_PORTS": "from a supervisor to its worker",
    "NOETL_WORKER_PROBES_SOCKET": "from a supervisor to its worker",
    "NOETL_WORKER_SEALED_ENVIRONMENT": "from one start of the worker to the next",
    "NOETL_WORKER_SUPERVISOR": "from a supervisor to its worker",
    "WORKER_FIELDS": "a name in a module",
}


@pytest.mark.parametrize("how", ["flag", "dotenv"])
def test_engine_is_chosen_by_a_flag_and_by_dotenv_too(how: str, tmp_path: Path) -> None:
    """It is imported after the settings were read."""
    (tmp_path / ".env").write_text("NOETL_WORKER_ENGINE=python\n" if how == "dotenv" else "")
    flags = {"NOETL_WORKER_ENGINE": "python"} if how == "flag" else {}
    program = f"""
from noetl_worker.settings.settings import load_settings
load_settings(flags={flags!r})
from noetl_worker import cli
from noetl_worker.engine import chosen as engine
from noetl_worker.worker import worker_process
print(engine.ENGINE)
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={key: value for key, value in environment().items() if key != "NOETL_WORKER_ENGINE"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert (done.stdout.strip(), done.returncode) == ("python", 0), done.stderr


def test_worker_refuses_an_engine_that_is_not_the_imported_one() -> None:
    other = "rust" if engine.ENGINE == "python" else "python"
    with pytest.raises(SettingsError, match="NOETL_WORKER_ENGINE"):
        Worker(load_settings({"NOETL_WORKER_ENGINE": other}))
    assert Worker(load_settings({"NOETL_WORKER_ENGINE": engine.ENGINE})).settings.engine == engine.ENGINE


def test_every_variable_of_ours_that_the_code_names_is_a_setting() -> None:
    known = {name for line in SETTINGS for name in (*line.names, line.file_variable)} | NO_SETTINGS.keys() | GONE.keys()
    package, ours = Path(noetl_worker.__file__).parent, re.compile(r"(?:NOETL|WORKER|NATS)_[A-Z0-9_]*[A-Z0-9]")
    found = {
        f"{path.relative_to(package)}: {node.value}"
        for path in sorted(package.rglob("*.py"))
        if ours.search(text := path.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value not in known
        if ours.fullmatch(node.value)
    }
    assert sorted(found) == []


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("NOETL_WORKER_ALLOW_OVERRIDE", "give its tool a kind of its own"),
        ("NOETL_WORKER_DEAD_LETTER_SUBJECT", "noetl.dead_letters"),
        ("NOETL_WORKER_RATE_LIMIT", "NOETL_WORKER_KIND_LIMITS"),
    ],
)
def test_setting_that_is_gone_ends_the_start_and_names_what_to_use(name: str, instead: str, tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text(f"{name}=1\n")
    for variables, file in (({name: "1"}, NOWHERE), ({}, dotenv)):
        with pytest.raises(SettingsError, match=rf"{name}='1' is not usable: it is no setting any more.*{instead}"):
            read_settings(variables, dotenv=file)


def test_variable_that_is_named_as_ours_and_is_no_setting_is_found(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("NOETL_WORKER_MAX_NOT_FOUND=50\nNOETL_WORKER_ID=pod-0\nOTHER=1\n")
    given = {"NOETL_WORKER_DRAIN_TIMEOUT": "5", "NOETL_WORKER_DEBUG_TOKEN_FILE": "/token", "WORKER_ID": "pod-0"}
    given["NOETL_DUCKDB_SCOPE"] = "execution"  # a setting of an earlier version
    found = unknown_names(SETTINGS, given, dotenv)
    assert found == {
        "NOETL_DUCKDB_SCOPE": None,
        "NOETL_WORKER_DRAIN_TIMEOUT": "NOETL_WORKER_DRAIN_TIMEOUT_S",
        "NOETL_WORKER_MAX_NOT_FOUND": None,
    }


@pytest.mark.parametrize(
    ("mistyped", "meant"),
    [
        ("NOETL_WORKER_PROCESES", "NOETL_WORKER_PROCESSES"),
        ("NOETL_WORKER_OUTBOX_DIRECTORY", "NOETL_WORKER_OUTBOX_DIR"),
        ("NOETL_WORKER_PROCESS_MEMORY_MIB", "NOETL_WORKER_PROCESS_MEMORY_MB"),
        ("NOETL_WORKER_SERVICE_PORTS", None),
        ("WORKER_MAX_CONCURENT", "WORKER_MAX_CONCURRENT"),
        ("NATS_FILTER_SUBJECTS", "NATS_FILTER_SUBJECT"),
        ("NOETL_SERVR_URL", "NOETL_SERVER_URL"),
    ],
)
def test_variable_that_is_no_setting_has_the_nearest_one_beside_it(mistyped: str, meant: str | None) -> None:
    assert unknown_names(SETTINGS, {mistyped: "1"}, Path(os.devnull)) == {mistyped: meant}


def test_variables_that_other_programs_read_are_no_mistyped_settings() -> None:
    names = (
        "NATS_PORT",
        "NATS_SERVICE_HOST",
        "NATS_SERVER",
        "NATS_CLUSTER",
        "NOETL_HOME",
        "WORKER_PORT",
        "WORKER_NAME",
    )
    assert unknown_names(SETTINGS, dict.fromkeys(names, "1"), Path(os.devnull)) == {}


def test_password_without_a_user_is_unused() -> None:
    assert load_settings({"NATS_PASSWORD": "p"}, dotenv=NOWHERE).unused == ("NATS_PASSWORD",)
    assert load_settings({"NATS_PASSWORD": "p", "NATS_URL": "nats://w@h:1"}, dotenv=NOWHERE).unused == ()


def test_variables_that_kubernetes_makes_for_a_service_are_known() -> None:
    """Of the services `noetl-worker` and `noetl-worker-gpu`."""
    ports = ("PORT", "PORT_9090_TCP", "PORT_9090_TCP_PROTO", "PORT_9090_TCP_PORT", "PORT_9090_TCP_ADDR")
    names = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_METRICS", *ports)
    given = {f"NOETL_WORKER_{service}{name}": "x" for service in ("", "GPU_") for name in names}
    assert unknown_names(SETTINGS, given, Path(os.devnull)) == {}
