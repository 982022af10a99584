from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from noetl_worker.cli.config import settings_markdown
from noetl_worker.errors import SettingsError
from noetl_worker.remote.jetstream.connection import nats_login
from noetl_worker.settings.settings import Secret, load_settings
from unit.planes import refusal


def test_defaults_are_those_of_the_table() -> None:
    settings = load_settings({})
    assert settings.nats_servers == ["nats://localhost:4222"]
    assert settings.server_url == "http://localhost:8082"
    assert settings.filters == ("noetl.commands", "noetl.commands.>")
    assert (settings.max_concurrent, settings.ack_wait_s) == (16, 30.0)
    assert settings.metrics_bind == "0.0.0.0:9090"


@pytest.mark.parametrize(
    ("variable", "value", "allowed"),
    [
        ("WORKER_MAX_CONCURRENT", "many", "a whole number from 1 to 10000"),
        ("WORKER_MAX_CONCURRENT", "0", "a whole number from 1 to 10000"),
        ("WORKER_HEARTBEAT_INTERVAL", "15s", "seconds, a number from 0.1"),
        ("NOETL_SERVER_URL", "localhost:8082", "a URL that starts with http:// or https://"),
        ("WORKER_METRICS_BIND", "9090", "HOST:PORT"),
        ("WORKER_METRICS_BIND", "0.0.0.0:²", "HOST:PORT"),
        ("NOETL_CONTROL_PLANE", "java", "one of auto, python, rust"),
        ("NATS_URL", "http://localhost", "a URL that starts with nats://"),
        ("NATS_URL", "nats://h:42a2", "a URL whose port is a number"),
        ("NOETL_SERVER_URL", "http://h:80a", "a URL whose port is a number"),
        ("NOETL_SNOWFLAKE_NODE_ID", "1024", "a whole number from 0 to 1023"),
        ("NOETL_DUCKDB_MEMORY_LIMIT", "much", "a size as DuckDB reads it"),
        ("NOETL_MCP_URL", "localhost", "a URL that starts with http:// or https://"),
        ("NOETL_MCP_GIT_HUB_ENDPOINT", "ftp://h", "a URL that starts with http:// or https://"),
        ("NOETL_MCP_GITHUB_URL", "h", "a URL that starts with http:// or https://"),
        ("NOETL_MCP_REQUEST_TIMEOUT_SECONDS", "soon", "seconds, a number"),
        ("NOETL_SECRETS_DIR", "/does/not/exist", "the path of a directory"),
        ("NOETL_TASK_SEQUENCE_MAX_ITERATIONS", "-1", "a whole number from 1"),
        ("NOETL_WORKER_KUBERNETES_ALLOW", "namespaces", "namespaces=jobs,etl-*;service-accounts=runner;secrets=app-*"),
        (
            "NOETL_WORKER_KUBERNETES_ALLOW",
            "namespaces=a;roles=b",
            "namespaces, service-accounts, secrets with patterns",
        ),
        ("NOETL_WORKER_KUBERNETES_ALLOW", "secrets=a;secrets=b", "each part once"),
        ("NOETL_WORKER_KUBERNETES_ALLOW", ";", "each part once"),
        ("NOETL_WORKER_CREDENTIALS_ALLOW", "etl/*", "NAME=PATTERN,PATTERN entries"),
        ("NOETL_WORKER_CREDENTIALS_ALLOW", "etl/*=", "NAME=PATTERN,PATTERN entries"),
        ("NOETL_WORKER_CREDENTIALS_ALLOW", "=pg;a=b", "NAME=PATTERN,PATTERN entries"),
        ("NOETL_WORKER_CREDENTIALS_ALLOW", "a=b;;c=d;a=e", "each name once"),
        ("NATS_CREDS", "/does/not/exist", "the path of a file that can be read"),
        ("NOETL_SECRET_A_FILE", "/does/not/exist", "the path of a file that can be read"),
    ],
)
def test_value_that_does_not_parse_names_variable_value_and_what_is_allowed(
    variable: str, value: str, allowed: str
) -> None:
    text = refusal({variable: value})
    for told in (variable, "is not usable", allowed):
        assert told in text
    assert value in text or variable == "NATS_URL"


def test_allow_lists_have_their_patterns_by_name() -> None:
    settings = load_settings(
        {
            "NOETL_WORKER_KUBERNETES_ALLOW": " namespaces = jobs, etl-* ; secrets=app-*; ",
            "NOETL_WORKER_CREDENTIALS_ALLOW": "etl/*=pg-*,s3;web=pg-web",
        }
    )
    assert settings.kubernetes_allow == {"namespaces": ("jobs", "etl-*"), "secrets": ("app-*",)}
    assert settings.credentials_allow == {"etl/*": ("pg-*", "s3"), "web": ("pg-web",)}
    assert (load_settings({}).kubernetes_allow, load_settings({}).credentials_allow) == (None, None)


def test_empty_metrics_bind_means_off_and_other_empty_values_mean_unset() -> None:
    settings = load_settings({"WORKER_METRICS_BIND": "", "WORKER_MAX_CONCURRENT": "", "NATS_STREAM": ""})
    assert settings.metrics_bind == ""
    assert settings.max_concurrent == 16


def test_port_of_cloud_run_is_the_metrics_port_unless_bound_otherwise() -> None:
    assert load_settings({"PORT": "8080"}).metrics_bind == "0.0.0.0:8080"
    assert load_settings({"PORT": "8080", "WORKER_METRICS_BIND": ""}).metrics_bind == ""


def test_python_workers_names_are_aliases_and_the_rust_workers_name_wins() -> None:
    assert load_settings({"NOETL_WORKER_MAX_INFLIGHT_COMMANDS": "9"}).max_concurrent == 9
    both = {"NOETL_WORKER_MAX_INFLIGHT_COMMANDS": "9", "WORKER_MAX_CONCURRENT": "7"}
    assert load_settings(both).max_concurrent == 7


def test_nats_login_prefers_user_pair_then_url_then_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())  # nkeys, which is an extra
    creds = tmp_path / "worker.creds"
    creds.write_text("x")
    url = {"NATS_URL": "nats://u:p%40ss@h:4222"}
    assert nats_login(load_settings(url)) == {"user": "u", "password": "p@ss"}
    pair = {**url, "NATS_USER": "a", "NATS_PASSWORD": "b"}
    assert nats_login(load_settings(pair)) == {"user": "a", "password": "b"}
    assert nats_login(load_settings({"NATS_URL": "nats://tok@h"})) == {"token": "tok"}
    assert nats_login(load_settings({"NATS_TOKEN": "t"})) == {"token": "t"}
    assert nats_login(load_settings({**pair, "NATS_CREDS": str(creds)})) == {"user_credentials": str(creds)}


def test_secrets_never_show_in_repr_format_or_error() -> None:
    settings = load_settings(
        {"NATS_URL": "nats://u:hunter2@h", "NATS_PASSWORD": "hunter2", "NOETL_INTERNAL_API_TOKEN": "hunter2"}
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in f"{settings.nats_password} {settings.nats_url} {settings.nats_password!s}"
    assert settings.nats_servers == ["nats://h"]
    assert Secret("hunter2").reveal() == "hunter2"
    assert "NATS_URL" in refusal({"NATS_URL": "nats://u:hunter2@"})


needs_a_strict_urllib = pytest.mark.skipif(sys.version_info < (3, 11, 4), reason="urllib takes brackets in a password")


@pytest.mark.parametrize(
    "url",
    [
        "nats://u:p/hunter2@h",
        "nats://u:1/hunter2@h",
        "nats://u:1#hunter2@h",
        "nats://u:1?hunter2@h",
        "nats://to/hunter2@h",
        "nats://a:1,nats://u:p/hunter2@h",
        "http://u:p/hunter2@h",
        pytest.param("nats://u:p[hunter2]x@h", marks=needs_a_strict_urllib),
        pytest.param("http://u:p[hunter2]x@h", marks=needs_a_strict_urllib),
    ],
)
def test_password_that_is_not_percent_encoded_stops_the_start_and_is_not_shown(url: str) -> None:
    variable = "NATS_URL" if url.startswith("nats") else "NOETL_SERVER_URL"
    assert "percent-encoded" in refusal({variable: url})


@pytest.mark.parametrize("url", ["ftp://u:hunter2@h", "u:hunter2@h", "http://u:hunter2@", "http://u:hun@hunter2@h:x"])
def test_password_in_an_address_that_is_not_usable_is_not_shown(url: str) -> None:
    for variable in ("NOETL_SERVER_URL", "NOETL_WORKER_TRUSTED_SERVERS", "NOETL_MCP_A_URL"):
        assert "a URL" in refusal({variable: url})


def test_settings_that_contradict_each_other_stop_the_start() -> None:
    assert "NOETL_TLS_CLIENT_KEY" in refusal({"NOETL_TLS_CLIENT_CERT": __file__})
    assert "WORKER_MAX_CONCURRENT" in refusal({"NOETL_WORKER_MAX_ACK_PENDING": "4"})


def test_page_has_the_settings_as_the_code_has_it() -> None:
    page = Path(__file__, "../../../docs/settings.md").resolve().read_text()
    assert settings_markdown() in page


def test_credentials_file_without_its_package_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    creds = tmp_path / "y.creds"
    creds.write_text("x")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        SettingsError, match=r"NATS_CREDS=.*y\.creds' is not usable: .*pip install 'noetl-worker\[nkeys\]'"
    ):
        nats_login(load_settings({"NATS_CREDS": str(creds)}))
