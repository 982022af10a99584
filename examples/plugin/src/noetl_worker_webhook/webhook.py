"""Kind `webhook`: tell another system that something has happened, so that it can trust and deduplicate the message.

Two things a plain `http` step cannot do: the body is signed with a shared secret, and every try of the same command,
also one on another worker after a crash, carries the same `webhook-id`, by which the receiver knows what it has seen.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final

import httpx

from noetl_worker.errors import ConfigurationError, ToolError
from noetl_worker.models import ToolResult
from noetl_worker.tools.contract import ToolContext
from noetl_worker_webhook.signature import key_of, sign

__all__ = ["WebhookConfig", "WebhookTool"]

_LONGEST_ANSWER: Final = 4_096
"""Characters of the receiver's answer that are kept: it is an acknowledgement, not data."""


@dataclass(frozen=True, slots=True)
class WebhookConfig:
    """Sends an event to a URL, signed by the Standard Webhooks specification, with an id that stays in retries."""

    url: str
    """Where to: http:// or https://."""
    event: str
    """What has happened, as the receiver knows it: `order.created`."""
    data: Any = None
    """What the receiver needs to know of it; any JSON."""
    auth: str | dict[str, Any] | None = None
    """Alias of a credential with a `secret`, or an object with it; absent: no signature."""
    headers: dict[str, str] = field(default_factory=dict)
    """More headers."""
    timeout: float = 10.0
    """Seconds for the whole exchange."""

    def __post_init__(self) -> None:
        if not self.url.startswith(("http://", "https://")):
            raise ValueError(f"field 'url' must start with http:// or https://, not {self.url[:80]!r}")


class WebhookTool:
    """One client for all calls of a worker; it keeps connections, and no cookies."""

    kind: ClassVar[str] = "webhook"
    config_model: ClassVar[type] = WebhookConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"type": "event", "payload": "data"}

    def __init__(self) -> None:
        self._client: httpx.AsyncClient | None = None

    async def run(self, config: WebhookConfig, context: ToolContext) -> ToolResult:
        """Send it once. A playbook retries by the policy rules of a task: `output.error.retryable` tells when to."""
        key = await _key(config, context)
        message_id = _message_id(config, context)
        body = json.dumps({"type": config.event, "timestamp": _now(), "data": config.data}).encode()
        headers = {"content-type": "application/json", **config.headers, **_headers(key, message_id, body)}
        timeout_s = min(config.timeout, context.timeout_s or config.timeout)
        try:
            sending = self._open().post(config.url, content=body, headers=headers, timeout=timeout_s)
            response = await asyncio.wait_for(sending, timeout_s)  # httpx's own timeout is for each part of it
        except (httpx.TimeoutException, asyncio.TimeoutError):
            return ToolResult.timed_out(timeout_s, data={"id": message_id})
        except httpx.HTTPError as error:  # a second try is safe: the receiver knows the id
            raise ToolError(
                f"webhook to {_host(config)}: {str(error) or type(error).__name__}", kind="connection", retryable=True
            ) from error
        context.logger.info("webhook", id=message_id, status=response.status_code)
        data = {
            "id": message_id,
            "status_code": response.status_code,
            "signed": key is not None,
            "answer": response.text[:_LONGEST_ANSWER],
        }
        if response.is_success:
            return ToolResult.success(data)
        kind, retryable = _failure(response.status_code)
        text = f"webhook to {_host(config)}: HTTP {response.status_code}"
        return ToolResult.failure(text, kind=kind, retryable=retryable, code=str(response.status_code), data=data)

    async def aclose(self) -> None:
        """Called when the worker stops."""
        if self._client is not None:
            await self._client.aclose()
            self._client = None

    def _open(self) -> httpx.AsyncClient:
        if self._client is None:  # not in __init__: there is no event loop when the registry makes the tool
            self._client = httpx.AsyncClient(follow_redirects=False)
        return self._client


async def _key(config: WebhookConfig, context: ToolContext) -> bytes | None:
    if config.auth is None:
        return None
    data = await context.secrets.credential(config.auth) if isinstance(config.auth, str) else config.auth
    secret = data.get("secret")
    if not isinstance(secret, str) or not secret:
        raise ConfigurationError('webhook: the credential has no \'secret\'; register it as {"secret": "whsec_..."}')
    context.secrets.keep(secret)  # one that stands in the config itself, too
    try:
        return key_of(secret)
    except ValueError as error:
        raise ConfigurationError(f"webhook: {error}") from error


def _message_id(config: WebhookConfig, context: ToolContext) -> str:
    """The same in every try of a command; different for two events that one command sends."""
    told = json.dumps([str(context.command.command_id), config.url, config.event, config.data], sort_keys=True)
    return "msg_" + hashlib.sha256(told.encode()).hexdigest()[:24]


def _headers(key: bytes | None, message_id: str, body: bytes) -> dict[str, str]:
    timestamp = int(time.time())
    headers = {"webhook-id": message_id, "webhook-timestamp": str(timestamp)}
    if key is not None:
        headers["webhook-signature"] = sign(key, message_id, timestamp, body)
    return headers


def _failure(status: int) -> tuple[str, bool]:
    """(error kind, whether it may succeed later)."""
    if status in (401, 403):
        return "auth", False
    if status in (404, 410):
        return "not_found", False
    if status == 429:
        return "rate_limit", True
    return ("server_error", True) if status >= 500 else ("client_error", False)


def _host(config: WebhookConfig) -> str:
    """The receiver in messages: never the path, which is often a secret itself."""
    return httpx.URL(config.url).host


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
