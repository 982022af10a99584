"""Kind `container` against a fake of the Kubernetes API: the end of a Job, its stops, its clean-up."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from noetl_worker.errors import ConfigurationError, CredentialError, ToolError
from noetl_worker.models import ToolStatus
from noetl_worker.testing import RecordedLogger, run_tool
from noetl_worker.tools.kinds.container.container import ContainerTool

from .cluster import JOBS, FakeCluster, completing, condition, refusal, terminated
from .containers import LABELS, call, refusing

NAME = "noetl-container-step-42-"


def refused(cluster: FakeCluster, config: dict[str, Any] | None = None) -> ToolError:
    with pytest.raises(ToolError) as caught:
        call(cluster, config)
    return caught.value


# ── the end ─────────────────────────────────────────────────────────────────────────────────────


def test_a_container_that_succeeds() -> None:
    cluster = FakeCluster({}, {"active": 1}, condition("Complete"), container=terminated(0, "Completed"), log="hi\n")
    result = call(cluster)
    assert result.status is ToolStatus.SUCCESS
    assert (result.stdout, result.exit_code) == ("hi\n", 0)
    name = result.data["job_name"]
    assert name.startswith(NAME)
    assert result.data == {
        "job_name": name, "job_uid": "uid-0", "namespace": "noetl",
        "labels": LABELS,
        "state": "succeeded", "reason": None, "message": None, "pod_name": "new-pod", "exit_code": 0, "logs": "hi\n",
        "started_at": "2026-01-01T00:00:00Z", "completed_at": "2026-01-01T00:00:09Z",
    }  # fmt: skip
    assert cluster.deleted == []
    assert {request.headers["authorization"] for request in cluster.requests} == {"Bearer t0ken"}
    asked = [
        request.url.params.get("labelSelector") for request in cluster.requests if request.url.path.endswith("/pods")
    ]
    assert set(asked) == {f"job-name={name}"}
    (log,) = [request for request in cluster.requests if request.url.path.endswith("/log")]
    assert dict(log.url.params) == {"container": "main", "limitBytes": "262144"}


def test_a_container_that_fails() -> None:
    failed = condition("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    result = call(FakeCluster(failed, container=terminated(137, "OOMKilled"), log="last words"))
    assert result.status is ToolStatus.ERROR
    assert result.error.message == (
        f"container Job {result.data['job_name']} failed: exit code 137 "
        "(OOMKilled; BackoffLimitExceeded; Job has reached the specified backoff limit)"
    )
    assert (result.error.kind, result.error.retryable, result.exit_code) == ("process", False, 137)
    assert (result.data["state"], result.data["logs"]) == ("failed", "last words")


def test_an_image_that_cannot_be_pulled_does_not_wait_for_the_timeout() -> None:
    waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}
    cluster = FakeCluster({"active": 1}, container=waiting)
    result = call(cluster)
    assert "ImagePullBackOff" in result.error.message
    assert cluster.deleted == [result.data["job_name"]]


def test_an_evicted_pod_may_be_tried_again() -> None:
    result = call(FakeCluster(condition("Failed", "BackoffLimitExceeded"), container=terminated(1, "Evicted")))
    assert result.error.retryable


def test_without_wait_the_job_is_only_created() -> None:
    cluster = FakeCluster({})
    result = call(cluster, {"wait": False})
    assert result.data["state"] == "created"
    assert [request.method for request in cluster.requests] == ["POST"]


def test_the_slot_is_free_while_the_container_runs() -> None:
    seen: list[str] = []

    @contextmanager
    def waiting() -> Iterator[None]:
        seen.append("free")
        yield
        seen.append("taken")

    cluster = FakeCluster({}, condition("Complete"), container=terminated(0, "Completed"))
    call(cluster, waiting=waiting)
    assert seen == ["free", "taken"]


# ── again ───────────────────────────────────────────────────────────────────────────────────────


def test_a_command_run_again_waits_for_the_job_it_made() -> None:
    cluster = completing(log="once")
    first, second = call(cluster), call(cluster)
    assert len(cluster.jobs) == 1
    assert (first.data["job_name"], second.stdout) == (second.data["job_name"], "once")


def test_another_attempt_and_each_task_of_a_sequence_has_a_job_of_its_own() -> None:
    cluster = completing()
    names = {call(cluster, attempt=attempt).data["job_name"] for attempt in (1, 2)}
    names |= {call(cluster, variables={"_task": "run"}).data["job_name"] for _ in range(2)}
    assert len(names) == 4


# ── stops ───────────────────────────────────────────────────────────────────────────────────────


def test_a_timeout_deletes_the_job_and_keeps_the_output() -> None:
    running = {"state": {"running": {}}}
    cluster = FakeCluster({"active": 1}, container=running, log="so far")
    result = call(cluster, {"timeout": 0.5})
    assert result.status is ToolStatus.TIMEOUT
    assert (result.data["state"], result.stdout) == ("timeout", "so far")
    assert cluster.deleted == [result.data["job_name"]]


def test_a_job_that_cannot_be_deleted_is_a_warning() -> None:
    logger = RecordedLogger()
    cluster = FakeCluster({"active": 1}, before=refusing(403, "jobs.batch is forbidden", method="DELETE"))
    result = call(cluster, {"timeout": 0.5}, logger=logger)
    assert result.status is ToolStatus.TIMEOUT
    assert [event for level, event, _ in logger.records if level == "warning"] == ["container_not_deleted"]


# ── the API ─────────────────────────────────────────────────────────────────────────────────────


def test_what_the_api_cannot_answer_for_a_while_is_asked_again() -> None:
    answers = [refusal(503, "etcd"), None, refusal(429, "slow down"), None, None]

    def answer_first(request: httpx.Request) -> httpx.Response | None:
        return answers.pop(0) if answers and request.method == "GET" else None

    logger = RecordedLogger()
    cluster = FakeCluster({}, condition("Complete"), container=terminated(0, "Completed"), before=answer_first)
    assert call(cluster, logger=logger).status is ToolStatus.SUCCESS
    problems = [fields["problem"] for _, event, fields in logger.records if event == "container_status"]
    assert len(problems) == 2
    assert problems[0].endswith("HTTP 503 (etcd)")


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        (403, 'jobs.batch is forbidden: User "system:anonymous" cannot create', "auth"),
        (404, 'namespaces "noetl" not found', "not_found"),
        (422, 'Job.batch "x" is invalid: spec.template', "client_error"),
    ],
)
def test_a_job_that_kubernetes_refuses_is_told_in_its_words(status: int, message: str, kind: str) -> None:
    error = refused(FakeCluster({}, before=refusing(status, message)))
    assert str(error) == f"the Kubernetes API refuses POST {JOBS}: HTTP {status} ({message})"
    assert (error.kind, error.retryable, error.code) == (kind, False, str(status))


def test_an_answer_that_is_no_job_is_said_to_be_none() -> None:
    page = httpx.Response(200, json={"kind": "Status", "message": "welcome"})
    error = refused(FakeCluster({}, before=lambda request: page))
    text = "the Kubernetes API answers with an object that is no Job: check that no proxy answers at its address"
    assert str(error) == text
    assert error.kind == "parse"


def test_a_cluster_out_of_reach_is_a_connection_failure() -> None:
    def answer_first(request: httpx.Request) -> httpx.Response | None:
        raise httpx.ConnectError("refused")

    error = refused(FakeCluster({}, before=answer_first))
    assert str(error) == "the Kubernetes API at https://cluster.test does not answer: ConnectError: refused"
    assert (error.kind, error.retryable) == ("connection", True)


def test_a_job_deleted_from_outside_is_a_failure() -> None:
    error = refused(FakeCluster({}, before=refusing(404, "not found", method="GET")))
    assert str(error).endswith("was deleted from outside: run the step again")
    assert error.kind == "process"


def test_an_output_that_cannot_be_had_does_not_hide_the_outcome() -> None:
    logger = RecordedLogger()
    result = call(completing(before=refusing(500, "kubelet", path="/log")), logger=logger)
    assert (result.status, result.stdout) == (ToolStatus.SUCCESS, "")
    assert "container_log" in [event for _, event, _ in logger.records]


def test_the_workers_own_cluster_and_account_are_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("own-token\n")
    (tmp_path / "ca.crt").write_bytes((Path(__file__).parent / "loopback.pem").read_bytes())
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    cluster = FakeCluster({})
    secrets: set[str] = set()
    tool = ContainerTool(cluster, service_account=tmp_path)
    run_tool(tool, {"image": "busybox", "wait": False}, secrets=secrets)
    assert str(cluster.requests[0].url) == f"https://10.0.0.1:6443{JOBS}"
    assert cluster.requests[0].headers["authorization"] == "Bearer own-token"
    assert secrets == {"own-token"}


def test_outside_a_cluster_a_credential_is_asked_for(tmp_path: Path) -> None:
    tool = ContainerTool(FakeCluster({}), service_account=tmp_path)
    with pytest.raises(ConfigurationError) as caught:
        run_tool(tool, {"image": "busybox"})
    assert str(caught.value) == (
        "container: the worker runs in no Kubernetes cluster (or without a service account): give 'auth' with the "
        "alias of a credential with url and token, or run the program with the shell or python tool"
    )
    with pytest.raises(CredentialError) as incomplete:
        run_tool(tool, {"image": "busybox", "auth": "k8s"}, credentials={"k8s": {"token": "x"}})
    assert str(incomplete.value) == "container: the credential needs 'url', the address of the Kubernetes API"
