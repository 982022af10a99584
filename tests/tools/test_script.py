"""Kind `script`, against an API server that answers as Kubernetes does, over TLS with the service account's files."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import RecordedLogger, run_tool
from noetl_worker.tools.kinds.script.script import ScriptTool

from .containers import WATCHED
from .http_server import Answer, Seen, ToolServer, as_json

PEM = Path(__file__).with_name("loopback.pem")
JOBS = "/apis/batch/v1/namespaces/noetl/jobs"
CORE = "/api/v1/namespaces/noetl"
DONE = {"type": "Complete", "status": "True"}


class FakeCluster:
    """Jobs that end as `status` says after `polls` looks at them; `objects` has what was created, by kind."""

    def __init__(self, server: ToolServer) -> None:
        self.server = server
        self.objects: dict[str, dict[str, Any]] = {}
        self.deleted: list[str] = []
        self.polls = 1
        self.status: dict[str, Any] = {"succeeded": 1, "conditions": [DONE]}
        self.terminated: dict[str, Any] = {"exitCode": 0, "reason": "Completed"}
        self.refusals: dict[str, Answer] = {}
        server.routes[JOBS] = self.create
        server.routes[f"{CORE}/configmaps"] = self.create
        server.routes[f"{CORE}/secrets"] = self.create
        server.routes[f"{CORE}/pods"] = lambda seen: as_json({"items": [self.pod("old", 1), self.pod("pod-1", 2)]})
        server.routes[f"{CORE}/pods/pod-1/log"] = lambda seen: Answer(200, b"line 1\nline \xff\n")

    def create(self, seen: Seen) -> Answer:
        if seen.path in self.refusals:
            return self.refusals[seen.path]
        made = json.loads(seen.body)
        made["metadata"]["uid"] = "uid-1"
        kind, name = made["kind"], made["metadata"]["name"]
        if self.objects.get(kind, made)["metadata"]["name"] == name and kind in self.objects:
            return as_json({"kind": "Status", "code": 409, "message": "exists"}, 409)
        self.objects[kind] = made
        if kind == "Job":
            self.server.routes[f"{JOBS}/{name}"] = self.job
        return as_json(made, 201)

    def job(self, seen: Seen) -> Answer:
        if seen.method == "DELETE":
            assert seen.param("propagationPolicy") == "Background"
            self.deleted.append(seen.path)
            return as_json({"kind": "Status"})
        self.polls -= 1
        if self.polls == 5:
            return as_json({"kind": "Status", "message": "etcd is down"}, 503)
        return as_json({**self.objects["Job"], "status": self.status if self.polls <= 0 else {"active": 1}})

    def pod(self, name: str, created: int) -> dict[str, Any]:
        ended = [{"name": "main", "state": {"terminated": self.terminated}}]
        return {
            "metadata": {"name": name, "creationTimestamp": f"2026-01-0{created}T00:00:00Z"},
            "status": {"containerStatuses": ended},
        }


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeCluster]:
    with ToolServer(tls=(PEM, PEM)) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
        (tmp_path / "token").write_text("account-token\n")
        (tmp_path / "ca.crt").write_bytes(PEM.read_bytes())
        yield FakeCluster(server)


def tool(tmp_path: Path) -> ScriptTool:
    return ScriptTool(service_account=tmp_path, first_poll_s=0.01)


CONFIG = {"script": {"type": "inline", "content": "print('hi')"}, "input": {"day": "monday"}}


def script(tmp_path: Path, config: dict[str, Any] | None = None, **context: Any) -> Any:
    return run_tool(tool(tmp_path), {**CONFIG, **(config or {})}, execution_id=42, **context)


def test_job_runs_and_its_output_is_the_result(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.polls = 8  # one of them is answered with 503
    result = script(tmp_path)
    assert result.status is ToolStatus.SUCCESS
    assert re.fullmatch(r"noetl-script-42-[0-9a-f]{8}", result.data["job_name"])
    assert 0 <= result.data.pop("execution_time") < 10
    assert result.data == {
        "status": "completed",
        "job_name": result.data["job_name"],
        "namespace": "noetl",
        "succeeded": 1,
        "failed": 0,
        "pod_name": "pod-1",
        "exit_code": 0,
        "output": "line 1\nline \ufffd\n",
    }
    assert {seen.headers["authorization"] for seen in cluster.server.requests} == {"Bearer account-token"}
    assert cluster.deleted == []


def test_a_null_in_the_environment_of_a_job_counts_as_absent(cluster: FakeCluster, tmp_path: Path) -> None:
    script(tmp_path, {"job": {"env": {"A": "a", "B": None}, "resources": {"limits": {"cpu": None}}}})
    assert cluster.objects["Secret"]["stringData"] == {"A": "a"}


def test_objects_that_are_created(cluster: FakeCluster, tmp_path: Path) -> None:
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
    script(tmp_path, {"job": job}, step="a step!")
    spec = cluster.objects["Job"]["spec"]
    assert (spec["backoffLimit"], spec["ttlSecondsAfterFinished"], spec["activeDeadlineSeconds"]) == (1, 60, 90)
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert (container["image"], pod["serviceAccountName"]) == ("python:3.12", "runner")
    assert container["command"][3:] == ["sh", '{"day":"monday"}', "requests", "numpy"]
    assert container["resources"] == {"limits": {"memory": "512Mi"}}
    assert "hush" not in json.dumps(cluster.objects["Job"])
    assert cluster.objects["Secret"]["stringData"] == {"TOKEN": "hush"}
    assert cluster.objects["ConfigMap"]["data"] == {"script.py": "print('hi')"}
    name = cluster.objects["Job"]["metadata"]["name"]
    for kind in ("Secret", "ConfigMap"):
        (owner,) = cluster.objects[kind]["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["name"], owner["uid"]) == ("Job", name, "uid-1")
    labels = cluster.objects["Job"]["metadata"]["labels"]
    assert labels["noetl-worker.step-name"] == "a-step"
    assert not WATCHED & labels.keys()


@pytest.mark.parametrize(("step", "label"), [("a" * 62 + "_bcd", "a" * 62), ("日本", "step"), ("_x y_", "x-y")])
def test_step_name_of_any_length_and_alphabet_is_a_label(
    step: str, label: str, cluster: FakeCluster, tmp_path: Path
) -> None:
    script(tmp_path, step=step)
    assert cluster.objects["Job"]["metadata"]["labels"]["noetl-worker.step-name"] == label


def test_command_that_is_delivered_again_waits_for_its_job(cluster: FakeCluster, tmp_path: Path) -> None:
    first = script(tmp_path)
    second = script(tmp_path)
    assert second.status is ToolStatus.SUCCESS
    assert first.data["job_name"] == second.data["job_name"]
    assert sum(seen.method == "POST" and seen.path == JOBS for seen in cluster.server.requests) == 2
    assert script(tmp_path, attempt=2).data["job_name"] != first.data["job_name"]


def test_job_that_fails_is_told_with_its_exit_code(cluster: FakeCluster, tmp_path: Path) -> None:
    failed = {"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}
    cluster.status = {"failed": 4, "conditions": [failed]}
    cluster.terminated = {"exitCode": 3, "reason": "Error"}
    result = script(tmp_path)
    name = result.data["job_name"]
    assert result.error.message == f"Job {name} failed: exit code 3 (BackoffLimitExceeded)"
    assert (result.error.kind, result.error.code, result.exit_code) == ("process", "3", 3)
    assert (result.data["failed"], result.data["output"]) == (4, "line 1\nline \ufffd\n")


def test_job_that_ran_out_of_memory_says_so(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.status = {"failed": 1, "conditions": [{"type": "Failed", "status": "True"}]}
    cluster.terminated = {"exitCode": 137, "reason": "OOMKilled"}
    result = script(tmp_path)
    assert result.error.message == f"Job {result.data['job_name']} failed: exit code 137 (OOMKilled)"
    assert result.error.code == "out_of_memory"


def test_object_that_is_refused_takes_the_job_back(cluster: FakeCluster, tmp_path: Path) -> None:
    cluster.refusals[f"{CORE}/secrets"] = as_json({"kind": "Status", "message": "secrets is forbidden"}, 403)
    with pytest.raises(ToolError) as caught:
        script(tmp_path)
    assert str(caught.value) == f"the Kubernetes API refuses POST {CORE}/secrets: HTTP 403 (secrets is forbidden)"
    assert (caught.value.kind, caught.value.code) == ("auth", "403")
    assert len(cluster.deleted) == 1


def test_cluster_of_a_credential(cluster: FakeCluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST")
    k8s = {"url": cluster.server.url(""), "token": "other-token", "ca_file": str(PEM)}
    result = script(tmp_path, {"auth": "k8s"}, credentials={"k8s": k8s})
    assert result.status is ToolStatus.SUCCESS
    assert cluster.server.requests[0].headers["authorization"] == "Bearer other-token"


def test_unknown_field_of_the_job_is_told(cluster: FakeCluster, tmp_path: Path) -> None:
    logger = RecordedLogger()
    script(tmp_path, {"job": {"imagee": "x"}}, logger=logger)
    problem = "script: job: unknown field 'imagee' is ignored; did you mean 'image'?"
    assert logger.records[0][2]["problem"] == problem


def test_script_from_a_file_and_from_an_address(cluster: FakeCluster, tmp_path: Path) -> None:
    (tmp_path / "job.py").write_text("print('from file')")
    script(tmp_path, {"script": {"type": "local", "uri": str(tmp_path / "job.py")}})
    assert cluster.objects["ConfigMap"]["data"] == {"script.py": "print('from file')"}
    cluster.objects.clear()
    with ToolServer() as files:
        files.routes["/job.py"] = lambda seen: Answer(200, b"print('from http')")
        script(tmp_path, {"script": {"type": "http", "uri": files.url("/job.py")}})
    assert cluster.objects["ConfigMap"]["data"] == {"script.py": "print('from http')"}


def test_script_that_no_config_map_can_hold_is_refused(cluster: FakeCluster, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match="the script is over 1000000 bytes, which a ConfigMap cannot hold: let the script"
    ):
        script(tmp_path, {"script": {"content": "#" * 1_000_001}})
    assert cluster.objects == {}


def test_worker_outside_a_cluster_refuses_the_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ConfigurationError, match="script: the worker runs in no Kubernetes cluster"):
        run_tool("script", CONFIG)


def test_worker_without_a_service_account_refuses_the_kind(cluster: FakeCluster, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="without a service account"):
        script(tmp_path / "nowhere")
