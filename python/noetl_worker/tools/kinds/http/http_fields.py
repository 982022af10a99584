"""Fields of kind `http`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final, Literal

import httpx

from noetl_worker.tools.http.client import ClientOptions

MAX_RESPONSE_BYTES: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class HttpFields:
    """Fields of a request; `HttpConfig` checks them."""

    url: str
    """The address, with http:// or https://; a query in it is kept."""
    method: str = "GET"
    """GET, POST, PUT, PATCH, DELETE, HEAD or OPTIONS, in any spelling."""
    headers: dict[str, Any] = field(default_factory=dict)
    """Header -> value; numbers and booleans become text, nulls are left out. `{{ token(alias) }}` in a value is the
    bearer token of that credential; on the Rust plane only in a list of tasks."""
    params: dict[str, Any] = field(default_factory=dict)
    """Query parameters. An object is sent as JSON text, a null is left out. A list is sent as JSON text on the Rust
    plane, and as a repeated parameter on the Python plane. Lists in `form` are sent in the same way."""
    json: Any = None
    """Body: any value, as JSON."""
    form: dict[str, Any] | None = None
    """Body: a URL-encoded form; with `files` or a Content-Type of multipart/form-data, the fields of a multipart."""
    files: dict[str, Any] | None = None
    """Body: multipart. Field -> path on the worker, or {path | content | content_b64, filename, content_type}, or a
    list of these; files are sent from disk."""
    body_b64: str | None = None
    """Body: bytes, in base64."""
    body: Any = None
    """Body: text as it is, anything else as JSON (as a form when Content-Type says so)."""
    payload: Any = None
    """Body: another name of `body`."""
    data: Any = None
    """Query and body, as {"query": ..., "body": ...}; any other value is the query of a GET, or the body of another
    method."""
    auth: str | dict[str, Any] | None = None
    """A credential's alias, or an object with `type` bearer, basic, api_key, header, headers,
    oauth2_client_credentials, gcp_adc or service_account and its values (or `credential`: alias, or `source: secret`
    and the `key` of one of the worker's own secrets)."""
    timeout: float | None = None
    """Seconds for the call, its retries and pages included; absent: the command's remaining time."""
    attempt_timeout: float | None = None
    """Seconds for one exchange, its body included; absent: the `timeout`, or 60 without a `timeout`."""
    connect_timeout: float | None = None
    """Seconds until the connection is established; absent: part of the exchange's time."""
    read_timeout: float | None = None
    """Seconds without a byte while the answer is read; absent: part of the exchange's time."""
    follow_redirects: bool = True
    """Follow up to 10 redirects; credentials are not sent on to another host."""
    verify: bool = True
    """False: accept any TLS certificate."""
    ca_file: str | None = None
    """Path of the certificate authorities to trust (PEM); absent: the public authorities."""
    client_cert: str | None = None
    """Path of a client certificate (PEM), with its key unless `client_key` has it."""
    client_key: str | None = None
    """Path of the client certificate's key (PEM)."""
    proxy: str | None = None
    """Address of an HTTP proxy; absent: HTTP_PROXY, HTTPS_PROXY and NO_PROXY of the worker."""
    response_type: Literal["json", "text", "binary"] = "json"
    """json: the parsed answer, or its text if it is not JSON. text: the answer in its declared charset, or in UTF-8
    (with a note) if the Encoding Standard lacks this charset. binary: {"base64", "size"}."""
    max_response_bytes: int = MAX_RESPONSE_BYTES
    """Maximum bytes of the answer, or of all pages together (8 MiB, at most 256 MiB). A longer answer is cut, and
    `truncated` is true."""
    retry: Any = None
    """Retries and pages: true, a number of exchanges, or an object or list (see the guide); absent: one exchange."""
    address: httpx.URL = field(init=False, repr=False, compare=False)
    """The parsed `url`, kept because parsing costs a tenth of a request."""
    options: ClientOptions = field(init=False, repr=False, compare=False)
    """Options of the connection."""
