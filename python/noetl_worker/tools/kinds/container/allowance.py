"""Check of the namespaces, service accounts and Secrets that a step's Job uses.

The worker's operator lists the allowed names. The worker's own Secrets are never allowed. The check reads the finished
manifest of the Job, so that no spelling of a config can bypass the check.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.wire import JsonValue
from noetl_worker.settings.patterns import matches
from noetl_worker.tools.contract import ToolSettings

_SETTING = "NOETL_WORKER_KUBERNETES_ALLOW"
_OWN = "NOETL_WORKER_KUBERNETES_OWN_SECRETS"
_DEFAULT_ACCOUNT = "default"
"""Service account of a pod whose manifest names no account."""
_REFERENCES = frozenset({"secretKeyRef", "secretRef"})


def check(
    kind: str, job: Mapping[str, JsonValue], beside: Mapping[str, Mapping[str, JsonValue]], settings: ToolSettings
) -> None:
    """Raise ConfigurationError if the Job uses a namespace, service account or Secret that is not allowed.

    Args:
        beside: manifests of the objects created with the Job, by resource (`configmaps`, `secrets`). The Job may use
            Secrets that are created with the Job.
    """
    pod = job["spec"]["template"]["spec"]
    made = {manifest["metadata"]["name"] for manifest in beside.values()}
    secrets = sorted(set(_secrets_in(pod)) - made)
    for name in set(settings.kubernetes_own_secrets).intersection(secrets):
        raise ConfigurationError(
            f"{kind}: the Secret {name!r} is the worker's own ({_OWN}), and no step gets it: make another Secret with "
            "what the step needs",
            code="kubernetes_not_allowed",
        )
    if settings.kubernetes_allow is None:
        return
    account = pod.get("serviceAccountName", _DEFAULT_ACCOUNT)
    for part, word, names in (
        ("namespaces", "namespace", [job["metadata"]["namespace"]]),
        ("service-accounts", "service account", [] if account == _DEFAULT_ACCOUNT else [account]),
        ("secrets", "Secret", secrets),
    ):
        patterns = settings.kubernetes_allow.get(part, ())
        for name in names:
            if not matches(name, patterns):
                raise ConfigurationError(
                    f"{kind}: the {word} {name!r} is not allowed by {_SETTING}, whose {part} are "
                    f"{', '.join(patterns) or 'none'}: name one of these, or have the operator add it",
                    code="kubernetes_not_allowed",
                )


def _secrets_in(value: JsonValue) -> Iterator[str]:
    """Yield the names of all Secrets that a pod refers to."""
    if isinstance(value, list):
        for item in value:
            yield from _secrets_in(item)
    if isinstance(value, Mapping):
        for key, item in value.items():
            if key == "secretName":
                yield str(item)
            elif key in _REFERENCES and isinstance(item, Mapping):
                yield str(item.get("name"))
            else:
                yield from _secrets_in(item)
