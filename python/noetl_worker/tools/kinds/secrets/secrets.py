"""Kind `secrets` (and `secret_manager`): reads a secret for later tasks of the same sequence."""

from __future__ import annotations

import asyncio
import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

import httpx

from noetl_worker.errors import ConfigurationError, CredentialError, ToolError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.models.wire import JsonValue, fields_of
from noetl_worker.tools.contract import ToolContext, ToolSettings
from noetl_worker.tools.credential import credential_data
from noetl_worker.tools.deadline import in_time
from noetl_worker.tools.error_kinds import http_error_kind
from noetl_worker.tools.fields import ignored_field
from noetl_worker.tools.file_roots import open_regular
from noetl_worker.tools.http.answer import object_in, read
from noetl_worker.tools.http.auth import OverHttp, check_auth
from noetl_worker.tools.http.secret_hosts import HOSTS_SUFFIX, SECRET_VARIABLE, Destination, named_hosts
from noetl_worker.tools.http.tokens import SECRET_MANAGER, secret_address
from noetl_worker.tools.process.shortage import before_any_effect

DIRECTORY_VARIABLE: Final = "NOETL_SECRETS_DIR"
ALLOWED_VARIABLE: Final = "NOETL_KEYCHAIN_ENV_VARS"
_MAX_BYTES: Final = 1 << 20
_SAME: Final = {
    "environment": "env",
    "files": "file",
    "gcp": "google",
    "google_secret_manager": "google",
    "gcp_secret_manager": "google",
    "secret_manager": "google",
}
_PROVIDERS: Final = ("env", "file", "google")


@dataclass(frozen=True, slots=True)
class SecretsConfig:
    """Reads one secret.

    Later tasks of the same task sequence can use the secret's value. The worker redacts this value from everything that
    leaves the worker, so a secrets step outside of a sequence is of no use. Without a sequence, write
    {{ keychain.<name>.<field> }} or `auth` in the step that needs the secret.
    """

    name: str | None = None
    """Name of the secret. Use `secret_name` on a plane that puts the task's label into `name`."""
    secret_name: str | None = None
    """Name of the secret; wins over `name`. For google the full name works too: projects/<project>/secrets/<name>, with
    or without /versions/<version>."""
    provider: str | None = None
    """env: the worker's variable NOETL_SECRET_<NAME>, or a variable listed in the worker's NOETL_KEYCHAIN_ENV_VARS.
    file: the file with the secret's name in the worker's NOETL_SECRETS_DIR. google: Secret Manager. Absent: google for
    kind secret_manager and for names that begin with projects/, else env."""
    project: str | None = None
    """Google project of a secret without projects/ in its name. Absent: the credential's project_id, or
    GOOGLE_CLOUD_PROJECT."""
    version: str = "latest"
    """Version of a Google secret; absent: the latest."""
    auth: str | dict[str, Any] | None = None
    """google: alias of a service account's credential; the worker's own identity when absent."""
    timeout: float | None = None
    """Maximum time of the call in seconds; absent: the command's remaining time."""

    def __post_init__(self) -> None:
        if not self.secret:
            raise ConfigurationError("field 'name' (or secret_name) is missing", field="name", reason="missing")
        provider = _SAME.get(str(self.provider).lower(), str(self.provider).lower())
        if self.provider is not None and provider not in _PROVIDERS:
            raise ConfigurationError(
                f"Secrets provider {self.provider!r} is not implemented; use {', '.join(_PROVIDERS)}, or "
                "{{ keychain.<name>.<field> }} in a template",
                field="provider",
            )
        object.__setattr__(self, "provider", None if self.provider is None else provider)
        check_auth(self.auth)

    @property
    def secret(self) -> str:
        return self.secret_name or self.name or ""


class SecretsTool(OverHttp):
    """Tool of kind `secrets`. Data: {status: success, name, provider, value, secret_value, version}: `value` and
    `secret_value` are the same text (base64 if the secret is not UTF-8), `version` is Google's.

    Errors: not_found, auth (the worker may not read the secret), connection, server_error, resource (the secret is too
    long, or too short to be redacted).

    differs-from-upstream: the provider `env` reads only variables that the operator offers to playbooks, because the
    worker's own passwords are in the environment too. A secret's value never reaches an event.
    """

    kind: ClassVar[str] = "secrets"
    aliases: ClassVar[tuple[str, ...]] = ("secret_manager",)
    config_model: ClassVar[type] = SecretsConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"project_id": "project", "oauth_credential": "auth"}

    def ignored(self, config: SecretsConfig) -> list[ConfigurationError]:
        """Return warnings about fields that only the provider google reads."""
        if config.provider not in ("env", "file"):
            return []
        given = {"project": config.project, "auth": config.auth}
        return [ignored_field(self.kind, name, "it is for google") for name, value in given.items() if value]

    async def run(self, config: SecretsConfig, context: ToolContext) -> ToolResult:
        return await in_time(self._read(config, context), context.timeout_s)

    async def _read(self, config: SecretsConfig, context: ToolContext) -> dict[str, JsonValue]:
        is_google = context.kind == "secret_manager" or config.secret.startswith("projects/")
        provider = config.provider or ("google" if is_google else "env")
        version: str | None = None
        with before_any_effect("to read the secret"):
            if provider == "env":
                content = _from_environment(config.secret, context.settings).encode()
            elif provider == "file":
                content = await asyncio.to_thread(_from_file, config.secret, context.settings.secrets_dir)
            else:
                content, version = await self._from_google(config, context)
        value = _register_for_redaction(config.secret, content, context)
        data = {"status": "success", "name": config.secret, "provider": provider, "value": value, "secret_value": value}
        return {**data, "version": version} if version else data

    async def _from_google(self, config: SecretsConfig, context: ToolContext) -> tuple[bytes, str]:
        """Return the content and the version of a secret in Google's Secret Manager."""
        auth: str | Mapping[str, Any] = {"type": "gcp_adc"} if config.auth is None else config.auth
        permit = await self._authorizer.authorize(auth, context, Destination(SECRET_MANAGER))
        path = await _google_path(config, context)
        request = httpx.Request("GET", secret_address(path), headers=dict(permit.headers))
        try:
            async with self._clients.lease(to=SECRET_MANAGER, settings=context.settings) as client:
                response = await client.send(request, stream=True)
                answer = await read(response, 2 * _MAX_BYTES)
        except httpx.HTTPError as error:
            text = f"Google's Secret Manager cannot be reached: {type(error).__name__}: {error}"
            raise ToolError(text, kind="connection", retryable=True, code=type(error).__name__) from error
        return _google_answer(path, response.status_code, answer.take())


def _register_for_redaction(name: str, content: bytes, context: ToolContext) -> str:
    """Return the secret as text, and register the text with the worker for redaction."""
    try:
        value = content.decode()
    except UnicodeDecodeError:
        value = base64.b64encode(content).decode()
    if context.secrets.keep(value) is False:
        raise ToolError(
            f"Secret {name!r} is too short or too common to be redacted in results: give it a random text of at least "
            "12 characters",
            kind="resource",
        )
    if value != value.strip():
        context.secrets.keep(value.strip())
    return value


# ── env, file ───────────────────────────────────────────────────────────────────────────────────


def _from_environment(name: str, settings: ToolSettings) -> str:
    offered = name if name.startswith(SECRET_VARIABLE) else SECRET_VARIABLE + re.sub(r"[^A-Z0-9]", "_", name.upper())
    is_listed = name in settings.keychain_env_vars
    value = settings.named.get(offered) or (settings.named.get(name) if is_listed else None)
    if not value:
        raise ToolError(
            f"Secret {name!r} not found in environment: set {offered} for the worker, "
            f"or list {name} in {ALLOWED_VARIABLE}",
            kind="not_found",
        )
    hosts = named_hosts(offered, settings)
    if hosts and "*" not in hosts:
        raise ToolError(
            f"Secret {name!r} may be sent only to the hosts in the worker's {offered}{HOSTS_SUFFIX}: give it to http, "
            f"mcp or artifact as auth: {{type: bearer, source: secret, key: {offered.removeprefix(SECRET_VARIABLE)}}}",
            kind="auth",
        )
    return value


def _from_file(name: str, directory: str) -> bytes:
    """Return the secret in the file `name` of `directory`, without the line break that editors put at the end."""
    if not directory:
        raise ConfigurationError(f"secrets: provider file needs {DIRECTORY_VARIABLE} to be set for the worker")
    root = Path(directory).resolve()
    path = (root / name).resolve()  # mounted secrets are links into a sibling directory below the root
    if not path.is_relative_to(root):
        raise ConfigurationError(f"secrets: {name!r} is outside {DIRECTORY_VARIABLE}: name a file in it")
    try:
        with open_regular(path) as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        kind = "auth" if isinstance(error, PermissionError) else "not_found"
        raise ToolError(f"Secret {name!r} cannot be read from {directory}: {error.strerror}", kind=kind) from error
    if len(content) > _MAX_BYTES:
        raise ToolError(f"Secret {name!r} has more than {_MAX_BYTES} bytes: store a shorter one", kind="resource")
    return content.removesuffix(b"\n").removesuffix(b"\r")


# ── Google ──────────────────────────────────────────────────────────────────────────────────────


async def _google_path(config: SecretsConfig, context: ToolContext) -> str:
    """Return the full name of a Google secret: projects/<project>/secrets/<name>/versions/<version>."""
    name = config.secret
    if not name.startswith("projects/"):
        found = {} if config.project else await credential_data("secrets", config.auth, context)
        project = config.project or found.get("project_id") or os.environ.get("GOOGLE_CLOUD_PROJECT")
        if not project:
            raise ConfigurationError(
                "secrets: a Google secret needs 'project', or its whole name projects/<project>/secrets/<name>"
            )
        name = f"projects/{project}/secrets/{name}"
    return name if "/versions/" in name else f"{name}/versions/{config.version}"


def _google_answer(path: str, status: int, body: bytes) -> tuple[bytes, str]:
    fields = object_in(body) or {}
    if not 200 <= status < 300:
        message = fields_of(fields.get("error")).get("message")
        kind, retryable = http_error_kind(status)
        text = f"Google's Secret Manager does not give {path}: HTTP {status}{f' ({message})' if message else ''}"
        of_kind = CredentialError if kind == "auth" else ToolError
        raise of_kind(text, kind=kind, retryable=retryable, code=str(status))
    try:
        content = base64.b64decode(fields_of(fields.get("payload"))["data"], validate=True)
    except (KeyError, TypeError, ValueError) as error:
        raise ToolError(f"Google's Secret Manager gives no data for {path}: add a version", kind="parse") from error
    return content, str(fields.get("name") or path).rpartition("/")[2]
