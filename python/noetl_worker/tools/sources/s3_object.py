"""A signed GET of one object in S3, or in a store with the same protocol."""

from __future__ import annotations

import asyncio
import importlib
import os
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlsplit

from noetl_worker.errors import ConfigurationError
from noetl_worker.remote.transport.url_path import url_path
from noetl_worker.tools.contract import ToolContext
from noetl_worker.tools.credential import credential_data
from noetl_worker.tools.credential_variables import aws_variables

_NEEDED: Final = "an s3:// address needs botocore: pip install 'noetl-worker[aws]'"
_PROGRAM: Final = (
    "an AWS profile names a program that gives its keys (credential_process): it would run with the worker's own "
    "environment, and commands can write into the worker's home. Give the keys in the credential or in AWS_* "
    "variables, or name files that commands cannot write in AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE"
)
_FILES: Final = ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE")
_DEFAULT_REGION: Final = "us-east-1"


async def signed(uri: str, details: Mapping[str, Any], context: ToolContext) -> tuple[str, dict[str, str]]:
    """Return the https address of `s3://<bucket>/<key>`, and the headers with the signature of a GET request. Without
    an access key there are no headers, since the object may be public.

    If the credential has no access key, botocore searches for a key as every AWS client does. It looks in the
    environment, in files, and in the role of the machine.

    Args:
        details: `region`, `endpoint` (of a store that is not Amazon's) and `auth`: an alias, or an object with the
            values. Missing values are taken from the credential, then from the AWS_* variables.

    Raises:
        ConfigurationError: botocore is not installed, or would run a program that a command may have placed.
    """
    known = {name: os.environ[name] for name in ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL") if os.environ.get(name)}
    if os.environ.get("AWS_REGION"):
        known["AWS_DEFAULT_REGION"] = os.environ["AWS_REGION"]
    known |= aws_variables(await credential_data("s3", details.get("auth"), context))
    region = str(details.get("region") or known.get("AWS_DEFAULT_REGION") or _DEFAULT_REGION)
    parts = urlsplit(uri)
    endpoint = details.get("endpoint") or known.get("AWS_ENDPOINT_URL") or f"https://s3.{region}.amazonaws.com"
    # The bucket is in the path, not in the host: no certificate covers a name with a dot.
    key = parts.path.lstrip("/").split("/")  # a key may have empty parts
    path = url_path(parts.netloc) + "".join(url_path(part) if part else "/" for part in key)
    url = str(endpoint).rstrip("/") + path
    keys = [known.get(name) for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")]
    return url, await asyncio.to_thread(_signature, url, region, *keys)


def _signature(
    url: str, region: str, access_key: str | None, secret_key: str | None, session_token: str | None
) -> dict[str, str]:
    try:
        auth: Any = importlib.import_module("botocore.auth")
        request: Any = importlib.import_module("botocore.awsrequest")
        credentials: Any = importlib.import_module("botocore.credentials")
        session: Any = importlib.import_module("botocore.session")
    except ImportError as error:
        raise ConfigurationError(_NEEDED) from error
    if access_key and secret_key:
        keys = credentials.Credentials(access_key, secret_key, session_token)
    else:
        own = session.Session()
        is_named = all(os.environ.get(name) for name in _FILES)
        if not is_named and any("credential_process" in profile for profile in own.full_config["profiles"].values()):
            raise ConfigurationError(_PROGRAM)
        keys = own.get_credentials()
        if keys is None:
            return {}
    get = request.AWSRequest("GET", url)
    auth.S3SigV4Auth(keys, "s3", region).add_auth(get)
    return dict(get.headers.items())
