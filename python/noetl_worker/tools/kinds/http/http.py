"""Tool kind `http`: sends an HTTP request. The result has the fields that NoETL's published worker for the control
plane (Rust or Python) returns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Final

from noetl_worker.errors import ConfigurationError
from noetl_worker.models.tool_result import ToolResult
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.fields import check_numbers
from noetl_worker.tools.http.answer import in_plane_form
from noetl_worker.tools.http.auth import OverHttp, check_auth
from noetl_worker.tools.http.client import ClientOptions, check_options, http_address
from noetl_worker.tools.kinds.http import retry as http_retry
from noetl_worker.tools.kinds.http.call import HttpCall
from noetl_worker.tools.kinds.http.http_fields import HttpFields
from noetl_worker.tools.kinds.http.request import check_request

_LARGEST_LIMIT: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HttpConfig(HttpFields):
    """Sends one request. With `retry` the worker repeats a failed request, or reads a list page by page.

    The body is the first given field of `json`, `files` (with `form`), `form`, `body_b64`, `body`, `payload` and
    `data`.

    Result: the fields that NoETL's published worker for the control plane returns. On the Rust plane:
    `{status_code, headers, body, data}`, where `body` and `data` are the same payload. On the Python plane:
    `{status_code, headers, data, url, elapsed}`. Header names are in lower case. Further fields: `truncated` (true when
    the answer was cut) and `notes` (changes made to the answer). With `retry` also `attempts` (number of exchanges, if
    more than one) and `pages`.

    A status other than 2xx is an error; the result keeps its data. The kinds of error are auth (401, 403), not_found
    (404), timeout (408), rate_limit (429), server_error (5xx) and client_error. 408, 429 and 5xx may be retried.
    Without an answer (refused, unknown host, dropped) the error has the kind connection and no data.
    """

    def __post_init__(self) -> None:
        check_numbers(1, _LARGEST_LIMIT, max_response_bytes=self.max_response_bytes)
        for name in ("attempt_timeout", "connect_timeout", "read_timeout"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigurationError(f"{name!r} must be above 0 seconds, not {value:g}", field=name)
        object.__setattr__(self, "address", http_address(self.url, "url", "http"))
        check_request(self)
        options = ClientOptions(self.verify, self.ca_file, self.client_cert, self.client_key, self.proxy)
        object.__setattr__(self, "options", options)
        check_options(options)
        check_auth(self.auth)
        http_retry.parse(self.retry)


class HttpTool(OverHttp):
    """Tool of kind `http`. A worker's commands share connections, but not cookies: no execution sees another
    execution's cookies.

    differs-from-upstream: the method may be in lower case; `timeout` limits the call; redirects are followed unless
    switched off.
    """

    kind: ClassVar[str] = "http"
    config_model: ClassVar[type] = HttpConfig
    field_aliases: ClassVar[Mapping[str, str]] = {"verify_ssl": "verify"}
    raw_fields: ClassVar[frozenset[str]] = frozenset({"headers", "retry"})
    requires: ClassVar[Mapping[str, str]] = {"google.auth": "noetl-worker[gcp] for service accounts of Google"}

    async def run(self, config: HttpConfig, context: ToolContext) -> ToolResult:
        result = await HttpCall(config, context, self._clients, self._authorizer).run()
        return in_plane_form(result, context.command.form)
