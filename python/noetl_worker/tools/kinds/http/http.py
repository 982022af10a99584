"""Kind `http`: a request and its answer (both workers' fields)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Literal

import httpx

from noetl_worker.models.tool_result import ToolResult
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.http.answer import in_plane_form
from noetl_worker.tools.http.auth import OverHttp, check_auth
from noetl_worker.tools.http.client import ClientOptions, check_options
from noetl_worker.tools.kinds.http import retry as http_retry
from noetl_worker.tools.kinds.http.call import HttpCall
from noetl_worker.tools.kinds.http.request import check_address, check_request

MAX_RESPONSE_BYTES: Final = 8 * 1024 * 1024
_LARGEST_LIMIT: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HttpConfig:
    """Sends one request, again after failures or page by page when `retry` says so.

    The body is the first of `json`, `files` (with `form`), `form`, `body_b64`, `body`, `payload` and `data` that is
    given.

    Result: what the plane's own worker gives, `{status_code, headers, body, data}` on the Rust plane, `body` and `data`
    being the same payload; `{status_code, headers, data, url, elapsed}` on the Python plane. Header names are in
    lower case. Also `truncated` (true when the answer was cut), `notes` (what was done to it), `attempts` (when
    there was more than one exchange) and `pages`. Another status than 2xx is an error with the data kept: kind auth
    (401, 403), not_found (404), timeout (408), rate_limit (429), server_error (5xx), client_error; 408, 429 and 5xx
    may be retried. No answer at all (refused, unknown host, dropped) is an error of kind connection without data.
    """

    url: str
    """The address, with http:// or https://; a query in it is kept."""
    method: str = "GET"
    """GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS, in any spelling."""
    headers: dict[str, Any] = field(default_factory=dict)
    """Header -> value; numbers and booleans become text, nulls are left out. `{{ token(alias) }}` in a value is the
    bearer token of that credential; on the Rust plane in a list of tasks alone."""
    params: dict[str, Any] = field(default_factory=dict)
    """Query parameters; an object is JSON text, nulls are left out. A list is JSON text on the Rust plane, and repeats
    its parameter on the Python plane; so it is in `form`."""
    json: Any = None
    """Body: any value, as JSON."""
    form: dict[str, Any] | None = None
    """Body: fields, URL-encoded; with `files`, or a Content-Type of multipart/form-data, the fields of a multipart."""
    files: dict[str, Any] | None = None
    """Body: multipart. Field -> path on the worker, or {path | content | content_b64, filename, content_type}, or a
    list of these; files are sent from disk."""
    body_b64: str | None = None
    """Body: bytes, in base64."""
    body: Any = None
    """Body: a text as it is, anything else as JSON (as a form when Content-Type says so)."""
    payload: Any = None
    """Body: another name of `body`."""
    data: Any = None
    """{"query": ..., "body": ...} goes where the names say; else the query of a GET, the body of others."""
    auth: str | dict[str, Any] | None = None
    """A credential's alias, or an object with `type` bearer, basic, api_key, header, headers,
    oauth2_client_credentials, gcp_adc or service_account and its values (or `credential`: alias, or `source: secret`
    and the `key` of one of the worker's own)."""
    timeout: float | None = None
    """Seconds for the call, its retries and pages included; absent: what the command has left."""
    attempt_timeout: float | None = None
    """Seconds for one exchange, its body included; absent: the `timeout`, or 60 without one."""
    connect_timeout: float | None = None
    """Seconds until the connection stands; absent: part of the exchange's time."""
    read_timeout: float | None = None
    """Seconds without a byte while the answer is read; absent: part of the exchange's time."""
    follow_redirects: bool = True
    """Follow up to 10 redirects; credentials are not sent on to another host."""
    verify: bool = True
    """False: accept any TLS certificate."""
    ca_file: str | None = None
    """Path of the certificate authorities to trust (PEM); absent: the public ones."""
    client_cert: str | None = None
    """Path of a client certificate (PEM), with its key unless `client_key` has it."""
    client_key: str | None = None
    """Path of the client certificate's key (PEM)."""
    proxy: str | None = None
    """Address of an HTTP proxy; absent: HTTP_PROXY, HTTPS_PROXY and NO_PROXY of the worker."""
    response_type: Literal["json", "text", "binary"] = "json"
    """json: parsed, and text when it is none; text: by the declared charset, and UTF-8 (with a note) when that is none
    of the Encoding Standard's; binary: {"base64", "size"}."""
    max_response_bytes: int = MAX_RESPONSE_BYTES
    """The answer is cut after so many bytes (8 MiB; all pages together) and marked; at most 256 MiB."""
    retry: Any = None
    """Tries and pages: true, a number of exchanges, or an object or list (see the guide); absent: one exchange."""
    address: httpx.URL = field(init=False, repr=False, compare=False)
    """The `url` as it was parsed; to parse it costs a tenth of a request."""
    options: ClientOptions = field(init=False, repr=False, compare=False)
    """What the connection is made with."""

    def __post_init__(self) -> None:
        if not 0 < self.max_response_bytes <= _LARGEST_LIMIT:
            raise ValueError(f"'max_response_bytes' must be from 1 to {_LARGEST_LIMIT}, not {self.max_response_bytes}")
        for name in ("attempt_timeout", "connect_timeout", "read_timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name!r} must be above 0 seconds, not {value:g}")
        object.__setattr__(self, "address", check_address(self.url))
        check_request(self)
        options = ClientOptions(self.verify, self.ca_file, self.client_cert, self.client_key, self.proxy)
        object.__setattr__(self, "options", options)
        check_options(options)
        check_auth(self.auth)
        http_retry.parse(self.retry)


class HttpTool(OverHttp):
    """Connections are shared by a worker's commands; cookies are not, executions share nothing.

    differs-from-upstream: any spelling of the method; `timeout` counts; redirects are followed unless switched off.
    """

    kind: ClassVar[str] = "http"
    config_model: ClassVar[type] = HttpConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"verify_ssl": "verify"}
    raw_fields: ClassVar[frozenset[str]] = frozenset({"headers", "retry"})
    requires: ClassVar[Mapping[str, str]] = {"google.auth": "noetl-worker[gcp] for service accounts of Google"}

    async def run(self, config: HttpConfig, context: ToolContext) -> ToolResult:
        result = await HttpCall(config, context, self._clients, self._authorizer).run()
        return in_plane_form(result, context.command.form)
