"""Kind `script`, on a fake of the Kubernetes API: the objects of its Job, and its result.

How a Job is waited for is that of kind `container`: test_container.py.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import RecordedLogger, run_tool
from noetl_worker.tools.kinds.script.script import ScriptTool

from .cluster import CORE, JOBS, FakeCluster, completing, condition, terminated
from .containers import CREDENTIALS, WATCHED, refusing
from .http_server import Answer, ToolServer

PEM = Path(__file__).with_name("loopback.pem")
LOG = b"line 1\nline \xff\n"
CONFIG = {"script": {"type": "inline", "content": "print('hi')"}, "input": {"day": "monday"}, "auth": "k8s"}


def script(cluster: FakeCluster, config: dict[str, Any] | None = None, **context: Any) -> Any:
    tool = ScriptTool(cluster, first_poll_s=0.001)
    return run_tool(tool, {**CONFIG, **(config or {})}, execution_id=42, credentials=CREDENTIALS, **context)


def test_job_runs_and_its_output_is_the_result() -> None:
    done = {**condition("Complete"), "succeeded": 1}
    cluster = FakeCluster({"active": 1}, done, container=terminated(0, "Completed"), log=LOG)
    result = script(cluster)
    assert result.status is ToolStatus.SUCCESS
    assert re.fullmatch(r"noetl-script-42-[0-9a-f]{8}", result.data["job_name"])
    assert 0 <= result.data.pop("execution_time") < 10
    assert result.data == {
        "status": "completed",
        "job_name": result.data["job_name"],
        "namespace": "noetl",
        "succeeded": 1,
        "failed": 0,
        "pod_name": "new-pod",
        "exit_code": 0,
        "output": "line 1\nline \ufffd\n",
    }
    assert cluster.deleted == []


def test_cluster_is_called_over_tls_with_the_authority_and_token_that_are_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Of the worker's service account, or of the credential; nothing answers there but with 404."""
    (tmp_path / "token").write_text("account-token\n")
    (tmp_path / "ca.crt").write_bytes(PEM.read_bytes())
    with ToolServer(tls=(PEM, PEM)) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        k8s = {"url": server.url(""), "token": "other-token", "ca_file": str(PEM)}
        for auth in (None, "k8s"):
            tool = ScriptTool(service_account=tmp_path)
            with pytest.raises(ToolError, match=f"refuses POST {JOBS}: HTTP 404"):
                run_tool(tool, {**CONFIG, "auth": auth}, credentials={"k8s": k8s})
    assert [seen.headers["authorization"] for seen in server.requests] == ["Bearer account-token", "Bearer other-token"]


def test_a_null_in_the_environment_of_a_job_counts_as_absent() -> None:
    cluster = completing()
    script(cluster, {"job": {"env": {"A": "a", "B": None}, "resources": {"limits": {"cpu": None}}}})
    assert cluster.last("Secret")["stringData"] == {"A": "a"}


def test_objects_that_are_created() -> None:
    cluster = completing()
    job = {
        "image": "python:3.12",
        "backoffLimit": 1,
        "ttlSecondsAfterFinished": 60,
        "timeout": 90,
        "install_dependencies": ["requests", "numpy"],
        "env": {"TOKEN": "hush"},
        "resources": {"limits": {"memory": "512Mi"}},
        "serviceAccountName": "runner",
    }
    script(cluster, {"job": job}, step="a step!")
    spec = cluster.last("Job")["spec"]
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"], spec["activeDeadlineSeconds"]) == (1, 60, 90)
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert (container["image"], pod["serviceAccountName"]) == ("python:3.12", "runner")
    assert container["command"][3:] == ["sh", '{"day":"monday"}', "requests", "numpy"]
    assert container["resources"] == {"limits": {"memory": "512Mi"}}
    assert "hush" not in json.dumps(cluster.last("Job"))
    assert cluster.last("Secret")["stringData"] == {"TOKEN": "hush"}
    assert cluster.last("ConfigMap")["data"] == {"script.py": "print('hi')"}
    name = cluster.last("Job")["metadata"]["name"]
    for kind in ("Secret", "ConfigMap"):
        (owner,) = cluster.last(kind)["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Job", name, "uid-0")
    labels = cluster.last("Job")["metadata"]["labels"]
    assert labels["noetl-worker.step-name"] == "a-step"
    assert not WATCHED & labels.keys()


@pytest.mark.parametrize(("step", "label"), [("a" * 62 + "_bcd", "a" * 62), ("日本", "step"), ("_x y_", "x-y")])
def test_step_name_of_any_length_and_alphabet_is_a_label(step: str, label: str) -> None:
    cluster = completing()
    script(cluster, step=step)
    assert cluster.last("Job")["metadata"]["labels"]["noetl-worker.step-name"] == label


def test_command_that_is_delivered_again_waits_for_its_job() -> None:
    cluster = completing()
    first, second = script(cluster), script(cluster)
    assert second.status is ToolStatus.SUCCESS
    assert first.data["job_name"] == second.data["job_name"]
    assert sum(seen.method == "POST" and seen.url.path == JOBS for seen in cluster.requests) == 2
    assert script(cluster, attempt=2).data["job_name"] != first.data["job_name"]


@pytest.mark.parametrize(
    ("exit_code", "reason", "code", "told"),
    [(3, "Error", "3", "BackoffLimitExceeded"), (137, "OOMKilled", "out_of_memory", "OOMKilled; BackoffLimitExceeded")],
)
def test_job_that_fails_is_told_with_its_exit_code(exit_code: int, reason: str, code: str, told: str) -> None:
    failed = {**condition("Failed", "BackoffLimitExceeded"), "failed": 4}
    result = script(FakeCluster(failed, container=terminated(exit_code, reason), log=LOG))
    assert result.error.message == f"Job {result.data['job_name']} failed: exit code {exit_code} ({told})"
    assert (result.error.kind, result.error.code, result.exit_code) == ("process", code, exit_code)
    assert (result.data["failed"], result.data["output"]) == (4, "line 1\nline \ufffd\n")


def test_object_that_is_refused_takes_the_job_back() -> None:
    cluster = completing(before=refusing(403, "secrets is forbidden", path="/secrets"))
    with pytest.raises(ToolError) as caught:
        script(cluster)
    assert str(caught.value) == f"the Kubernetes API refuses POST {CORE}/secrets: HTTP 403 (secrets is forbidden)"
    assert (caught.value.kind, caught.value.code) == ("auth", "403")
    assert cluster.deleted == list(cluster.jobs)


def test_unknown_field_of_the_job_is_told() -> None:
    logger = RecordedLogger()
    script(completing(), {"job": {"imagee": "x"}}, logger=logger)
    problem = "script: job: unknown field 'imagee' is ignored; did you mean 'image'?"
    assert logger.records[0][2]["problem"] == problem


def test_script_from_a_file_and_from_an_address(server: ToolServer, tmp_path: Path) -> None:
    cluster = completing()
    (tmp_path / "job.py").write_text("print('from file')")
    script(cluster, {"script": {"type": "local", "uri": str(tmp_path / "job.py")}})
    assert cluster.last("ConfigMap")["data"] == {"script.py": "print('from file')"}
    server.routes["/job.py"] = lambda seen: Answer(200, b"print('from http')")
    script(cluster, {"script": {"type": "http", "uri": server.url("/job.py")}}, attempt=2)
    assert cluster.last("ConfigMap")["data"] == {"script.py": "print('from http')"}


def test_script_that_no_config_map_can_hold_is_refused() -> None:
    cluster = completing()
    with pytest.raises(
        ConfigurationError, match="the script is over 1000000 bytes, which a ConfigMap cannot hold: let the script"
    ):
        script(cluster, {"script": {"content": "#" * 1_000_001}})
    assert cluster.objects == {}


def test_worker_without_a_service_account_refuses_the_kind(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    with pytest.raises(ConfigurationError, match=r"script: the worker runs in no .* without a service account"):
        run_tool(ScriptTool(service_account=tmp_path), {**CONFIG, "auth": None})
