"""The author of one playbook takes credentials, Secrets and service accounts of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from noetl_worker.errors import ConfigurationError, CredentialError, ToolError
from noetl_worker.models import Command, Dialect
from noetl_worker.pipeline.command.command import hydrate
from noetl_worker.pipeline.command.credentials import CommandCredentials
from noetl_worker.remote.plane.client import ControlPlaneClient, Plane
from noetl_worker.settings.settings import load_settings
from noetl_worker.testing import run_tool
from noetl_worker.tools.contract import ToolSettings
from noetl_worker.tools.kinds.script.script import ScriptTool
from tool_settings import tool_settings
from tools.cluster import FakeCluster, completing
from tools.containers import CREDENTIALS, call
from unit.planes import ENVELOPE, URL, ScriptedTransport, answer, command, plane

PATHS = {"1": "etl/daily", "2": "billing/invoices"}
RECORD = {"name": "pg", "type": "postgres", "data": {"db_password": "s3cr3t-value"}}
ALIASES = "etl/*=pg-etl-*,s3;billing/invoices=pg-billing;*=shared"
NAMES = "namespaces=noetl,etl-*;service-accounts=runner;secrets=app-*"


async def asked(alias: str, allow: str = ALIASES, **of_command: Any) -> ScriptedTransport:
    """The plane's transport after a command has asked for this credential."""

    def script(method: str, path: str, body: Any) -> Any:
        if path == "/api/catalog/resource":
            found = PATHS.get(body["catalog_id"])
            return answer(200, {"catalog_id": body["catalog_id"], "path": found}) if found else answer(404, {})
        return answer(200, RECORD)

    transport = ScriptedTransport(script)
    client = ControlPlaneClient(transport, load_settings({"NOETL_WORKER_CREDENTIALS_ALLOW": allow}))
    at = Plane(client, URL, of_command.pop("dialect", Dialect.PYTHON))
    made: Command = of_command.pop("made", None) or command(**of_command)
    for _ in range(2):
        await CommandCredentials(made, at).credential(alias)
    return transport


async def refused(alias: str, **of_command: Any) -> str:
    with pytest.raises(CredentialError) as caught:
        await asked(alias, **of_command)
    assert (caught.value.code, caught.value.retryable) == ("credential_not_allowed", False)
    return str(caught.value)


async def test_playbook_has_no_credential_of_another_path() -> None:
    """A playbook names an alias that its path is not allowed to have."""
    for alias, catalog_id in (("pg-billing", "1"), ("pg-etl-x", "2"), ("other", "1"), ("PG-ETL-X", "1"), ("s3x", "1")):
        text = await refused(alias, catalog_id=catalog_id)
        for told in (
            repr(alias),
            PATHS[catalog_id],
            "NOETL_WORKER_CREDENTIALS_ALLOW",
            f"add {PATHS[catalog_id]}={alias}",
        ):
            assert told in text


@pytest.mark.parametrize("catalog_id", [None, "3"], ids=["none", "not in the catalog"])
async def test_playbook_whose_path_is_unknown_has_no_credential(catalog_id: str | None) -> None:
    """A command names no entry of the catalog, or one that is not there."""
    assert "a playbook whose path the control plane does not say" in await refused("shared", catalog_id=catalog_id)


async def test_playbook_has_the_credentials_of_its_path_and_the_catalog_is_asked_once() -> None:
    """(no attack)"""
    for alias, catalog_id in (("pg-etl-x", "1"), ("s3", "1"), ("shared", "1"), ("pg-billing", "2"), ("shared", "2")):
        sent = (await asked(alias, catalog_id=catalog_id)).sent
        assert [path.partition("?")[0] for _, path, *_ in sent] == [
            "/api/catalog/resource",
            f"/api/credentials/{alias}",
        ]


async def test_any_playbook_has_any_credential_where_nothing_is_set() -> None:
    """(no attack)"""
    assert len((await asked("anything", "", catalog_id=None)).sent) == 1


@pytest.mark.parametrize("dialect", list(Dialect))
async def test_workload_does_not_choose_the_playbook_that_a_command_is_of(dialect: Dialect) -> None:
    """A workload's `catalog_id` names the playbook of somebody else, to have its credentials and keychain."""
    forged = {"catalog_id": "2", "workload": {"catalog_id": "2"}}
    own = {} if dialect is Dialect.RUST else {"meta": {"catalog_id": "1"}}
    body = {"execution_id": 7, "node_name": "start", "action": "python", "context": {"render_context": forged}, **own}
    at, _ = plane(lambda *_: answer(404, {}), dialect)
    made = await hydrate(body, ENVELOPE, at)
    assert made.catalog_id == (None if dialect is Dialect.RUST else "1")
    await refused("pg-billing", made=made, dialect=dialect)


# ── Kubernetes ──────────────────────────────────────────────────────────────────────────────────


def allowed(names: str, own: str = "") -> ToolSettings:
    return tool_settings(NOETL_WORKER_KUBERNETES_ALLOW=names, NOETL_WORKER_KUBERNETES_OWN_SECRETS=own)


def run_script(cluster: FakeCluster, job: Mapping[str, Any], settings: ToolSettings) -> Any:
    config = {"script": "print(1)", "auth": "k8s", "job": dict(job)}
    return run_tool(ScriptTool(cluster, first_poll_s=0.001), config, credentials=CREDENTIALS, settings=settings)


def secret(name: str) -> list[dict[str, Any]]:
    """Configs that give a container this Secret, in each spelling."""
    volumes = [
        {"secret_name": name},
        {"secretName": name},
        {"name": name},
        {"secret_name": "app-1", "secretName": name},
    ]
    return [
        {"env": [{"name": "A", "value_from": {"secret_name": name, "secret_key": "k"}}]},
        {"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": name, "key": "k"}}}]},
        *({"volumes": [{"name": "v", "secret": volume}]} for volume in volumes),
    ]


@pytest.mark.parametrize("config", [*secret("noetl-worker-nats"), *secret("noetl-worker-tls")])
def test_step_never_gets_the_workers_own_secret(config: dict[str, Any]) -> None:
    """A `container` step names the Secret with the worker's own login, in each spelling; a list has it too."""
    for names in ("", f"{NAMES},noetl-*"):
        settings = allowed(names, "noetl-worker-nats,noetl-worker-tls")
        cluster = completing()
        with pytest.raises(ConfigurationError, match=r"is the worker's own .*make another Secret"):
            call(cluster, config, settings=settings)
        assert cluster.requests == []


@pytest.mark.parametrize(
    ("config", "told"),
    [
        ({"namespace": "kube-system"}, "the namespace 'kube-system' is not allowed"),
        ({"service_account": "admin"}, "the service account 'admin' is not allowed"),
        ({"runtime": {"serviceAccountName": "admin"}}, "the service account 'admin' is not allowed"),
        *((config, "the Secret 'other' is not allowed") for config in secret("other")),
    ],
)
def test_step_names_nothing_that_the_operator_does_not_allow(config: dict[str, Any], told: str) -> None:
    """A `container` or `script` step names a namespace, service account or Secret that no list has."""
    settings, cluster = allowed(NAMES), completing()
    with pytest.raises(ConfigurationError) as caught:
        call(cluster, config, settings=settings)
    assert told in str(caught.value)
    assert "NOETL_WORKER_KUBERNETES_ALLOW" in str(caught.value)
    assert caught.value.code == "kubernetes_not_allowed"
    if "namespace" in config or "service_account" in config:
        with pytest.raises(ConfigurationError, match=told):
            run_script(cluster, config, settings)
    assert cluster.requests == []


def test_part_that_is_not_named_allows_nothing() -> None:
    """A list of namespaces alone is taken for one that says nothing of Secrets and service accounts."""
    settings = allowed("namespaces=noetl")
    for config in (*secret("any"), {"service_account": "any"}):
        with pytest.raises(ToolError, match=r"NOETL_WORKER_KUBERNETES_ALLOW, whose .* are none"):
            call(completing(), config, settings=settings)


def test_step_has_what_is_allowed_and_the_namespaces_default_account() -> None:
    """(no attack)"""
    settings = allowed(NAMES, "noetl-worker-nats")
    for config in (*secret("app-1"), {"service_account": "runner"}, {"service_account": "default"}, {}):
        assert call(completing(), config, settings=settings).error is None, config
    assert run_script(completing(), {"env": {"A": "1"}}, settings).error is None  # its own Secret is made with it
