"""Kind `secrets`: what the worker offers to playbooks, Google's Secret Manager, and that no value leaves."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from noetl_worker.errors import ConfigurationError, CredentialError, ToolError
from noetl_worker.models import ToolResult
from noetl_worker.testing import run_tool
from noetl_worker.text.secrets.known import KnownSecrets
from noetl_worker.tools.kinds.noop.noop import NoopTool
from noetl_worker.tools.kinds.secrets.secrets import SecretsTool
from noetl_worker.tools.registry import Registry
from tool_settings import tool_settings

Answer = Callable[[httpx.Request], httpx.Response]
GOOGLE = {"gcp": {"type": "bearer", "token": "ya29.token"}}


DB = tool_settings(NOETL_SECRET_DB="hunter22")


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GOOGLE_CLOUD_PROJECT", raising=False)


def fetched(config: dict[str, Any], answer: Answer | None = None, **context: Any) -> tuple[ToolResult, set[str]]:
    secrets: set[str] = set()
    tool = SecretsTool(httpx.MockTransport(answer) if answer else None)
    return run_tool(tool, config, secrets=secrets, **context), secrets


def refused(config: dict[str, Any], answer: Answer | None = None, **context: Any) -> ToolError:
    with pytest.raises(ToolError) as caught:
        fetched(config, answer, **context)
    return caught.value


# ── env ─────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["db", "DB", "NOETL_SECRET_DB"])
def test_what_the_worker_offers_is_read_and_known_as_a_secret(name: str) -> None:
    result, secrets = fetched({"name": name}, settings=DB)
    assert result.data == {
        "status": "success", "name": name, "provider": "env", "value": "hunter22", "secret_value": "hunter22",
    }  # fmt: skip
    assert secrets == {"hunter22"}


def test_the_workers_own_variables_are_not_read() -> None:
    settings = tool_settings(NOETL_INTERNAL_API_TOKEN="workers-own")
    error = refused({"name": "NOETL_INTERNAL_API_TOKEN"}, settings=settings)
    assert (str(error), error.kind) == (
        "Secret 'NOETL_INTERNAL_API_TOKEN' not found in environment: set NOETL_SECRET_NOETL_INTERNAL_API_TOKEN for the "
        "worker, or list NOETL_INTERNAL_API_TOKEN in NOETL_KEYCHAIN_ENV_VARS",
        "not_found",
    )


def test_a_variable_that_is_listed_is_read() -> None:
    settings = tool_settings(API_KEY="listed-value", NOETL_KEYCHAIN_ENV_VARS="OTHER, API_KEY", OF_NOBODY="unlisted")
    assert fetched({"name": "API_KEY"}, settings=settings)[0].data["value"] == "listed-value"
    assert "unlisted" not in settings.named.values()


@pytest.mark.parametrize("value", ["abc", "ab \n", "demo", "Admin@123"])
def test_a_value_too_short_to_be_hidden_is_not_given_out(value: str) -> None:
    error = refused({"name": "db"}, keep=KnownSecrets().add, settings=tool_settings(NOETL_SECRET_DB=value))
    assert (str(error), error.kind) == (
        "Secret 'db' is too short or too common to be redacted in results: give it a random text of at least "
        "12 characters",
        "resource",
    )


# ── file ────────────────────────────────────────────────────────────────────────────────────────


def test_a_mounted_secret_is_read_without_its_last_line_break(tmp_path: Path) -> None:
    mounted = tmp_path / "..2026" / "db"
    mounted.parent.mkdir()
    mounted.write_bytes(b"first line\nsecond line\n")
    (tmp_path / "db").symlink_to(mounted)
    settings = tool_settings(NOETL_SECRETS_DIR=str(tmp_path))
    result, secrets = fetched({"name": "db", "provider": "file"}, settings=settings)
    assert result.data["value"] == "first line\nsecond line"
    assert secrets == {"first line\nsecond line"}
    (tmp_path / "key").write_bytes(b"\xff\xfe\xfd")
    assert fetched({"name": "key", "provider": "file"}, settings=settings)[0].data["value"] == "//79"


def test_files_elsewhere_are_not_read(tmp_path: Path) -> None:
    error = refused({"name": "db", "provider": "file"})
    assert str(error) == "secrets: provider file needs NOETL_SECRETS_DIR to be set for the worker"
    (tmp_path / "in").mkdir()
    (tmp_path / "out").write_text("not for playbooks")
    settings = tool_settings(NOETL_SECRETS_DIR=str(tmp_path / "in"))
    for name in ("../out", str(tmp_path / "out")):
        error = refused({"name": name, "provider": "file"}, settings=settings)
        assert str(error) == f"secrets: {name!r} is outside NOETL_SECRETS_DIR: name a file in it"
    missing = refused({"name": "db", "provider": "file"}, settings=settings)
    assert (str(missing), missing.kind) == (
        f"Secret 'db' cannot be read from {tmp_path}/in: No such file or directory", "not_found",
    )  # fmt: skip


# ── Google ──────────────────────────────────────────────────────────────────────────────────────


def given(value: bytes, seen: list[httpx.Request] | None = None) -> Answer:
    """What Secret Manager answers (documented form of projects.secrets.versions.access)."""

    def answer(request: httpx.Request) -> httpx.Response:
        if seen is not None:
            seen.append(request)
        name = request.url.path.removeprefix("/v1/").removesuffix(":access").replace("latest", "5")
        return httpx.Response(200, json={"name": name, "payload": {"data": base64.b64encode(value).decode()}})

    return answer


@pytest.mark.parametrize(
    ("config", "path"),
    [
        ({"name": "db", "project": "p1"}, "projects/p1/secrets/db/versions/latest"),
        ({"name": "db", "project_id": "p1", "version": 3}, "projects/p1/secrets/db/versions/3"),
        ({"name": "label", "secret_name": "db", "project": "p1"}, "projects/p1/secrets/db/versions/latest"),
        ({"secret_name": "projects/p2/secrets/db"}, "projects/p2/secrets/db/versions/latest"),
        ({"name": "projects/p2/secrets/db/versions/7"}, "projects/p2/secrets/db/versions/7"),
    ],
)
def test_a_google_secret_is_fetched_with_the_credential(config: dict[str, Any], path: str) -> None:
    seen: list[httpx.Request] = []
    config = {"provider": "gcp", "auth": "gcp", **config}
    result, secrets = fetched(config, given(b"hunter22", seen), credentials=GOOGLE)
    assert str(seen[0].url) == f"https://secretmanager.googleapis.com/v1/{path}:access"
    assert seen[0].headers["authorization"] == "Bearer ya29.token"
    assert (result.data["provider"], result.data["value"]) == ("google", "hunter22")
    assert result.data["version"] == path.rpartition("/")[2].replace("latest", "5")
    assert "hunter22" in secrets


@pytest.mark.parametrize(
    "config",
    [
        {"name": "projects/../secrets/db"},
        {"name": "../x", "project": "p"},
        {"name": "db", "project": "p", "version": "1/../../../other/secrets/x"},
    ],
)
def test_name_or_version_leads_to_no_other_address_of_google(config: dict[str, Any]) -> None:
    seen: list[httpx.Request] = []
    with pytest.raises(ConfigurationError, match="cannot be a part of an address"):
        fetched({"provider": "gcp", "auth": "gcp", **config}, given(b"hunter22", seen), credentials=GOOGLE)
    assert seen == []


def test_the_workers_own_identity_is_used_without_a_credential(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", "metadata.test")
    monkeypatch.setenv("HOME", "/nonexistent")
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p3")
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.host == "metadata.test":
            return httpx.Response(200, json={"access_token": "own-token", "expires_in": 3600})
        return given(b"hunter22", seen)(request)

    secrets: set[str] = set()
    tool = SecretsTool(httpx.MockTransport(answer))
    registry = Registry([tool], plugins=False)
    run_tool("secret_manager", {"name": "db"}, registry=registry, secrets=secrets)
    assert seen[0].url.path == "/v1/projects/p3/secrets/db/versions/latest:access"
    assert secrets == {"own-token", "hunter22"}


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [(403, "auth", False), (404, "not_found", False), (429, "rate_limit", True), (503, "server_error", True)],
)
def test_googles_refusal_is_told_with_its_reason(status: int, kind: str, retryable: bool) -> None:
    body = {"error": {"code": status, "message": "Secret [db] not found", "status": "X"}}
    config = {"secret_name": "projects/p/secrets/db", "auth": "gcp"}
    error = refused(config, lambda request: httpx.Response(status, json=body), credentials=GOOGLE)
    assert str(error) == (
        f"Google's Secret Manager does not give projects/p/secrets/db/versions/latest: HTTP {status} "
        "(Secret [db] not found)"
    )
    assert (error.kind, error.retryable, error.code) == (kind, retryable, str(status))
    assert isinstance(error, CredentialError) == (kind == "auth")


@pytest.mark.parametrize("body", ["<html>", "{}", '{"payload": {}}', '{"payload": {"data": "?"}}'])
def test_an_answer_without_data_is_told(body: str) -> None:
    config = {"secret_name": "projects/p/secrets/db", "auth": "gcp"}
    error = refused(config, lambda request: httpx.Response(200, text=body), credentials=GOOGLE)
    expected = "Google's Secret Manager gives no data for projects/p/secrets/db/versions/latest: add a version"
    assert (str(error), error.kind) == (expected, "parse")


def test_google_out_of_reach_is_a_connection_failure() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused")

    error = refused({"secret_name": "projects/p/secrets/db", "auth": "gcp"}, refuse, credentials=GOOGLE)
    assert (str(error), error.kind, error.retryable) == (
        "Google's Secret Manager cannot be reached: ConnectError: refused", "connection", True,
    )  # fmt: skip


# ── use, and that it does not leave ─────────────────────────────────────────────────────────────


def test_the_next_task_of_a_sequence_has_the_value() -> None:
    registry = Registry([SecretsTool(), NoopTool()], plugins=False, settings=DB)
    tasks = [
        {"name": "db", "kind": "secrets", "secret_name": "db"},
        {"name": "use", "kind": "noop", "result": "password={{ db.value }}"},
    ]
    secrets: set[str] = set()
    result = run_tool("task_sequence", {"tasks": tasks}, registry=registry, secrets=secrets)
    assert result.data["results"]["use"] == "password=hunter22"
    assert secrets == {"hunter22"}


def test_a_google_name_without_a_project_is_told() -> None:
    error = refused({"name": "db", "provider": "google", "auth": "gcp"}, given(b"x"), credentials=GOOGLE)
    assert isinstance(error, ConfigurationError)
    text = "secrets: a Google secret needs 'project', or its whole name projects/<project>/secrets/<name>"
    assert str(error) == text
