"""The Kubernetes objects of a `script` step: the Job, and the ConfigMap and Secret that belong to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.wire import JsonValue
from noetl_worker.text.json_text import dumps
from noetl_worker.tools import fields
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.kinds.container.container_job import (
    check_job,
    check_variable_name,
    job_manifest,
    object_metadata,
    snake_word,
    unique_hex_digits,
)
from noetl_worker.tools.kinds.container.job_fields import JobFields

MAX_SCRIPT_BYTES: Final = 1_000_000
"""Maximum bytes of a script. Kubernetes limits a ConfigMap to 1 MiB, and the script's ConfigMap has other fields
too."""


@dataclass(frozen=True, slots=True)
class JobConfig(JobFields):
    """Checked config of the Kubernetes Job of a `script` step: image, namespace, limits. A playbook may also use
    Kubernetes' own names (`backoffLimit`)."""

    def __post_init__(self) -> None:
        if not self.image.strip():
            raise ConfigurationError("'image' is empty; name one", field="image")
        if not self.timeout > 0:
            raise ConfigurationError(f"'timeout' must be above 0 seconds, not {self.timeout:g}", field="timeout")
        check_job(self)
        for name in self.env:
            check_variable_name(name)


def job_config(job: Mapping[str, Any]) -> tuple[JobConfig, list[str]]:
    """Decode the config object `job` of a `script` step. Return the Job's config, and the unknown field names in `job`.

    Raises:
        ConfigurationError: a field has the wrong type, or a value that no Job can have.
    """
    named = {snake_word(name): value for name, value in job.items()}
    given, unknown = fields.canonical("script: job", named, JobConfig, {"service_account_name": "service_account"})
    try:
        made: JobConfig = fields.decode("script: job", JobConfig, given, named)
    except ConfigurationError as error:
        raise error.in_tool("script: job", field="job") from error.__cause__
    return made, unknown


def job_name(context: ToolContext) -> str:
    """Return the Job's name. Each delivery of one attempt of a command gives the same name, so a redelivered command
    finds its Job.

    A task of a sequence may run several times within one command. Then each Job gets a new name.
    """
    return f"noetl-script-{context.command.execution_id}-{unique_hex_digits(context, 8)}"


def manifests(
    name: str, job: JobConfig, code: str, given: Mapping[str, JsonValue], context: ToolContext
) -> tuple[dict[str, JsonValue], dict[str, dict[str, JsonValue]]]:
    """Return the Job's manifest, and the manifests of its ConfigMap (the script) and Secret (the variables) under the
    keys `configmaps` and `secrets`. The caller adds the Job as their owner (`with_owner`) once the Job exists."""
    if len(code.encode()) > MAX_SCRIPT_BYTES:
        raise ConfigurationError(
            f"script: the script is over {MAX_SCRIPT_BYTES} bytes, which a ConfigMap cannot hold: "
            "let the script fetch parts of its code"
        )
    metadata = object_metadata("script", name, job.namespace, context)
    config_map: dict[str, JsonValue] = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {**metadata, "name": f"{name}-script"},
        "data": {"script.py": code},
    }
    secret: dict[str, JsonValue] = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {**metadata, "name": f"{name}-env"},
        "stringData": dict(job.env),
    }
    container: dict[str, JsonValue] = {
        "command": _command(job, dumps(dict(given)).decode()),
        "envFrom": [{"secretRef": {"name": f"{name}-env"}}],
        "volumeMounts": [{"name": "script", "mountPath": "/scripts", "readOnly": True}],
    }
    pod: dict[str, JsonValue] = {
        "restartPolicy": "Never",
        "volumes": [{"name": "script", "configMap": {"name": f"{name}-script"}}],
    }
    whole = job_manifest(job, metadata, container, pod, deadline_s=max(1, round(job.timeout)))
    return whole, {"configmaps": config_map, "secrets": secret}


def _command(job: JobConfig, arguments: str) -> list[JsonValue]:
    """Return the container's command: pip, if the script needs packages, then `python /scripts/script.py '<input as
    JSON>'`. The shell interprets no text of the playbook."""
    if not job.install_dependencies:
        return ["python", "/scripts/script.py", arguments]
    install = 'input="$1"; shift; pip install --quiet --no-cache-dir "$@" && exec python /scripts/script.py "$input"'
    return ["sh", "-c", install, "sh", arguments, *job.install_dependencies]
