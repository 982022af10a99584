"""Kind `python`: code from addresses, credentials as environment, modules, and configs that cannot be used."""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from closed_port import closed_port
from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import ToolResult

from .http_server import Answer, Seen, ToolServer
from .one_template import run_tool


def python(config: dict[str, Any], **context: Any) -> ToolResult:
    return run_tool("python", config, **context)


def serve(server: ToolServer, path: str, code: str) -> None:
    server.routes[path] = lambda seen: Answer(200, code.encode())


# ── code from somewhere ─────────────────────────────────────────────────────────────────────────


def test_code_from_an_http_address(server: ToolServer) -> None:
    serve(server, "/jobs/hello.py", "result = f'hello {who}'")
    assert python({"script": server.url("/jobs/hello.py"), "input": {"who": "ada"}}).data == "hello ada"


def test_code_from_an_endpoint_with_a_credential(server: ToolServer) -> None:
    def guarded(seen: Seen) -> Answer:
        allowed = seen.headers.get("authorization") == "Bearer t"
        return Answer(200, b"result = 1") if allowed else Answer(401)

    server.routes["/jobs/a.py"] = guarded
    source = {"type": "http", "endpoint": server.url("/jobs/"), "auth": "alias"}
    config = {"script": {"uri": "a.py", "source": source}}
    assert python(config, credentials={"alias": {"type": "bearer", "token": "t"}}).data == 1
    with pytest.raises(ToolError) as caught:
        python({"script": {"uri": server.url("/jobs/a.py")}})
    assert (caught.value.kind, caught.value.code) == ("auth", "401")


def test_code_from_a_bucket(server: ToolServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"127.0.0.1:{server.port}")
    serve(server, "/storage/v1/b/my-bucket/o/scripts%2Fhello.py", "result = 'from gs'")
    assert python({"script": "gs://my-bucket/scripts/hello.py"}).data == "from gs"
    assert server.requests[0].param("alt") == "media"
    config = {"script": {"uri": "gs://my-bucket/scripts/hello.py", "source": {"type": "gcs", "auth": "google_oauth"}}}
    credentials = {"google_oauth": {"type": "google_oauth", "access_token": "g"}}
    assert python(config, credentials=credentials).data == "from gs"
    assert server.requests[1].headers["authorization"] == "Bearer g"


def test_endpoint_is_the_address_itself_as_in_the_fixtures(server: ToolServer) -> None:
    serve(server, "/raw/hello_world.py", "result = 'from the endpoint'")
    source = {
        "type": "http",
        "endpoint": server.url("/raw/hello_world.py"),
        "method": "GET",
        "headers": {"Authorization": "Bearer t", "X-None": None},
        "timeout": 30,
    }
    assert python({"script": {"uri": "hello_world.py", "source": source}}).data == "from the endpoint"
    seen = server.requests[0].headers
    assert (seen["authorization"], "x-none" in seen) == ("Bearer t", False)


@pytest.fixture
def no_account(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without an AWS account: no variables, no files, no role."""
    pytest.importorskip("botocore")
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "BOTO_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.mark.usefixtures("no_account")
@pytest.mark.parametrize(
    "named", [{"region": "eu-west-1", "auth": "aws"}, {"auth": {"credential": "aws", "region": "eu-west-1"}}]
)
def test_code_from_an_s3_bucket_is_asked_for_with_the_credentials_signature(
    server: ToolServer, named: dict[str, Any]
) -> None:
    serve(server, "/my-bucket/jobs/a%20%2Bb.py", "result = 'from s3'")
    source = {"type": "s3", **named, "endpoint": server.url("/")}
    aws = {"type": "aws", "access_key_id": "AKIDEXAMPLE", "secret_access_key": "s3cret-key", "session_token": "st"}
    config = {"script": {"uri": "s3://my-bucket/jobs/a +b.py", "source": source}}
    assert python(config, credentials={"aws": aws}).data == "from s3"
    headers = server.requests[0].headers
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/")
    assert "/eu-west-1/s3/aws4_request, SignedHeaders=host;" in headers["authorization"]
    assert headers["x-amz-security-token"] == "st"


@pytest.mark.usefixtures("no_account")
def test_open_s3_bucket_is_asked_without_a_signature_and_a_wrong_region_is_told(server: ToolServer) -> None:
    source = {"type": "s3", "endpoint": server.url("/")}
    serve(server, "/open/a.py", "result = 1")
    assert python({"script": {"uri": "s3://open/a.py", "source": source}}).data == 1
    assert "authorization" not in server.requests[0].headers
    server.routes["/far/a.py"] = lambda seen: Answer(400, b"", {"x-amz-bucket-region": "eu-north-1"})
    text = r"'s3://far/a.py' cannot be fetched: HTTP 400 \(its bucket is in eu-north-1: give script.source.region\)"
    with pytest.raises(ToolError, match=text):
        python({"script": {"uri": "s3://far/a.py", "source": source}})


@pytest.mark.usefixtures("no_account")
@pytest.mark.parametrize("uri", ["s3://open/../other/a.py", "s3://../a.py", "gs://open/../other/a.py", "gs://../a.py"])
def test_name_of_an_object_leads_to_no_other_bucket(
    server: ToolServer, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url("").rstrip("/"))
    with pytest.raises(ToolError, match="cannot be a part of an address"):
        python({"script": {"uri": uri, "source": {"endpoint": server.url("/")}}})
    assert server.requests == []


@pytest.mark.usefixtures("no_account")
def test_key_with_empty_parts_is_asked_for_as_it_is(server: ToolServer) -> None:
    serve(server, "/open/a//b.py", "result = 1")
    source = {"type": "s3", "endpoint": server.url("/")}
    assert python({"script": {"uri": "s3://open/a//b.py", "source": source}}).data == 1


def test_code_with_a_byte_order_mark(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"\xef\xbb\xbfresult = 1")
    assert python({"script": str(tmp_path / "a.py")}).data == 1


def test_address_that_does_not_answer_may_be_asked_again() -> None:
    address = f"http://127.0.0.1:{closed_port()}/a.py"
    with pytest.raises(ToolError, match=f"python: script '{address}' cannot be fetched: ConnectError") as caught:
        python({"script": address + "?signature=hidden"})
    assert (caught.value.kind, caught.value.retryable) == ("connection", True)
    assert "hidden" not in str(caught.value)


def test_slow_address_ends_at_its_timeout(server: ToolServer) -> None:
    source = {"type": "http", "timeout": 0.2}
    with pytest.raises(ToolError, match="cannot be fetched: TimeoutError"):
        python({"script": {"uri": server.url("/silent"), "source": source}})


def test_code_over_the_limit_is_refused(server: ToolServer, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="is over 4 MiB"):
        python({"script": server.url("/huge") + "?mb=5"})
    (tmp_path / "a.py").write_bytes(b"#" * (4 << 20) + b"\n")
    with pytest.raises(ConfigurationError, match="is over 4 MiB"):
        python({"script": str(tmp_path / "a.py")})


def test_relative_script_that_is_not_there_says_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    text = f"script: 'steps/load.py' cannot be read: No such file or directory (looked for in {tmp_path})"
    for uri in ("steps/load.py", "file:steps/load.py"):
        with pytest.raises(ConfigurationError, match=re.escape(text.replace("steps/load.py", uri))):
            run_tool("python", {"script": {"uri": uri, "source": {"type": "file"}}})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"script": "/no/such.py"}, "script: '/no/such.py' cannot be read: No such file or directory"),
        (
            {"code": "1", "deps": {"venv_path": "/no/such"}},
            "deps: 'venv_path' is '/no/such', which has no bin/python on this worker: name another",
        ),
        ({"code": "1", "cwd": "/no/such"}, "'cwd' '/no/such' is no directory of this worker"),
        (
            {"code": "1", "auth": {"a": {"type": "gcs", "service_account_json": "{"}}},
            "auth: 'a': 'service_account_json' is not JSON",
        ),
    ],
)
def test_broken_config_is_refused_with_its_reason(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        python(config)
    assert str(caught.value) == f"python: {message}"


# ── credentials ─────────────────────────────────────────────────────────────────────────────────

SHOW = "import os\nresult = {name: os.environ.get(name) for name in names}"


@pytest.mark.parametrize(
    ("service", "data", "variables"),
    [
        ("gcs_hmac", {"access_key_id": "i", "secret_access_key": "s"},
         {"AWS_ACCESS_KEY_ID": "i", "AWS_SECRET_ACCESS_KEY": "s"}),
        ("s3", {"access_key_id": "i", "secret_access_key": "s", "region": "eu-1", "endpoint": "http://minio"},
         {"AWS_ACCESS_KEY_ID": "i", "AWS_DEFAULT_REGION": "eu-1", "AWS_ENDPOINT_URL": "http://minio"}),
        ("azure_storage", {"connection_string": "c"}, {"AZURE_STORAGE_CONNECTION_STRING": "c"}),
        ("postgres", {"db_host": "h", "db_port": 5432, "db_user": "u", "db_password": "p", "db_name": "d"},
         {"PGHOST": "h", "PGPORT": "5432", "PGUSER": "u", "PGPASSWORD": "p", "PGDATABASE": "d"}),
        ("bearer", {"token": "t"}, {"AWS_ACCESS_KEY_ID": None}),
    ],
)  # fmt: skip
def test_credentials_are_variables(service: str, data: dict[str, Any], variables: dict[str, Any]) -> None:
    auth = {"store": {"source": "credential", "key": "alias", "service": service}}
    config = {"code": SHOW, "auth": auth, "input": {"names": list(variables)}}
    assert python(config, credentials={"alias": data}).data == variables


def test_google_key_is_a_file_that_is_gone_afterwards() -> None:
    account = {"type": "service_account", "private_key": "k", "client_email": "e", "project_id": "p"}
    code = """
import os
path = os.environ["GOOGLE_APPLICATION_CREDENTIALS"]
result = [json.load(open(path)), oct(os.stat(path).st_mode & 0o777), path, os.environ["GOOGLE_CLOUD_PROJECT"],
          os.listdir(), auth["gcs"]["client_email"]]
"""
    auth = {"gcs": {"key": "gcs_service_account", "tool": "service_account", "source": "credential"}}
    data = python({"code": code, "auth": auth}, credentials={"gcs_service_account": account}).data
    assert data[:2] == [account, "0o600"]
    assert not Path(data[2]).exists()
    assert data[3:] == ["p", [], "e"]


def test_alias_alone_and_key_file_as_text() -> None:
    credentials = {"google": {"type": "gcp", "service_account_json": json.dumps({"client_email": "e"})}}
    code = "import os\nresult = [json.load(open(os.environ['GOOGLE_APPLICATION_CREDENTIALS'])), list(auth)]"
    assert python({"code": code, "auth": "google"}, credentials=credentials).data == [{"client_email": "e"}, ["google"]]


def test_credentials_are_not_the_next_commands() -> None:
    config = {"code": "import os\nresult = [os.environ.get('AWS_ACCESS_KEY_ID'), auth]"}
    assert python(config).data == [None, {}]


# ── modules and names ───────────────────────────────────────────────────────────────────────────


def test_libs_in_the_form_of_an_import_from() -> None:
    libs = {"dumps": {"from": "json", "import": "dumps"}, "path": {"from": "os", "import": "path"}, "p": "os.path"}
    submodule = {"client": {"from": "http", "import": "client"}}
    config = {"code": "result = [dumps([1]), path.sep, p.basename('/a/b'), client.OK]", "libs": {**libs, **submodule}}
    assert python(config).data == ["[1]", "/", "b", 200]


def test_modules_of_the_playbook_are_imported_from_sys_path(tmp_path: Path) -> None:
    (tmp_path / "shared_code.py").write_text("VALUE = 7")
    config = {"code": "import shared_code\nresult = shared_code.VALUE", "deps": {"sys_path": [str(tmp_path)]}}
    assert python(config).data == 7


def test_virtual_environment_has_its_interpreter(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    config = {"code": "import sys\nresult = sys.executable", "deps": {"venv_path": str(tmp_path)}}
    assert python(config).data == str(tmp_path / "bin" / "python")


def test_names_of_the_python_worker() -> None:
    code = """
result = {
    "found": get_val({"a": [{"b": 1}]}, ["a", 0, "b"]),
    "default": get_val({"a": 1}, ["a", "b"], "none"),
    "merged": deep_merge({"a": {"x": 1}, "l": [1]}, {"a": {"y": 2}, "l": [2]}),
    "utc": now_utc().tzinfo is datetime.timezone.utc,
    "text": format_iso8601(datetime.datetime(2026, 1, 2, tzinfo=datetime.timezone.utc)),
    "plain": make_serializable({"when": datetime.date(2026, 1, 2)}),
    "id": len(str(uuid.uuid4())),
}
"""
    assert python({"code": code}).data == {
        "found": 1,
        "default": "none",
        "merged": {"a": {"x": 1, "y": 2}, "l": [1, 2]},
        "utc": True,
        "text": "2026-01-02T00:00:00+00:00",
        "plain": {"when": "2026-01-02"},
        "id": 36,
    }
