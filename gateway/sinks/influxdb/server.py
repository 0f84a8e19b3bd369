"""Talking to the server: one request, and what its answer means. Blocks.

    answer                                  means
    204 (200 with an empty body)            stored
    400 "partial write", "unable to parse"  RowsRefused: some of these lines; the others are stored
    422, 201                                RowsRefused: some or all of these lines
    413                                     RowsRefused: too many bytes at once
    400 for another reason, 401, 403, 404   Unavailable: the target or the credentials, not the rows
    429, 5xx, no or half an answer          Unavailable, with Retry-After if it came

Wrong credentials are Unavailable on purpose: a person will mend them, and until then no row may be
set aside as if it were at fault. After a cut connection it is not known whether the lines were
stored; sending them again is harmless. Of a 2xx with a body the v2 client tells nothing: a cloud
service that stores part of a request and answers 201 is read through `api = "v1"` only.

v2 goes through influxdb-client, handed finished lines as bytes; v1 and all reading go through
urllib3, which comes with it. Retrying is the runtime's. No error text holds a header, so no
credential can leave with it.

Not here: which lines (lines.py), cutting and bisecting (sink.py).
"""

from __future__ import annotations

import base64
import contextlib
import gzip
from collections.abc import Callable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlencode

import orjson
import urllib3
from influxdb_client.client.influxdb_client import InfluxDBClient
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.domain.write_precision import WritePrecision
from influxdb_client.rest import ApiException

from gateway.model.errors import Unavailable
from gateway.sinks.influxdb.config import InfluxdbConfig

_NANOSECONDS: Any = WritePrecision.NS  # a str, where the signature wants the class
_MESSAGE_CHARACTERS_MAX = 300  # servers quote the whole request in some errors
# What 400 says when the rows are innocent. 1.x answers a missing database with 404, but a missing
# parameter or an unknown policy with 400 or 500.
_TARGET_AT_FAULT = ("database", "retention policy", "bucket", "org", "precision", "consistency")
_ROWS_AT_FAULT = ("partial write", "unable to parse", "field type conflict", "retention policy dro")


class RowsRefused(Exception):
    """The server refused some or all lines of a request. Never leaves the sink."""

    def __init__(self, status: int, message: str, body: bytes = b"") -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.body = body  # the answer, for the lines it names


class Server:
    """One InfluxDB, for one thread at a time for writing and one for reading."""

    def __init__(self, config: InfluxdbConfig, now_ns: Callable[[], int]) -> None:
        self._config = config
        self._now_ns = now_ns
        secure = {"ca_certs": str(config.ca_file)} if config.ca_file else {}
        self._pool = urllib3.PoolManager(
            maxsize=2,
            retries=False,
            timeout=urllib3.Timeout(total=config.request_timeout_s),
            **secure,  # type: ignore[arg-type]
        )
        self._client: InfluxDBClient | None = None
        if config.api == "v2":
            self._client = InfluxDBClient(
                url=config.url,
                token=config.token.get_secret_value(),
                org=config.org or "-",  # the client insists; 1.8 and VictoriaMetrics ignore it
                timeout=round(config.request_timeout_s * 1000),
                enable_gzip=config.compression == "gzip",
                ssl_ca_cert=str(config.ca_file) if config.ca_file else None,
            )
            self._write_api = self._client.write_api(write_options=SYNCHRONOUS)

    def write(self, body: bytes) -> None:
        """Store all lines of `body`. Raises RowsRefused or Unavailable."""
        if self._client is None:
            self._write_v1(body)
            return
        try:
            self._write_api.write(
                bucket=self._config.bucket,
                record=body,
                write_precision=_NANOSECONDS,
            )
        except ApiException as error:
            if error.status is None or error.headers is None:
                raise Unavailable(f"no answer: {error.reason}") from None
            body_of = error.body.encode() if isinstance(error.body, str) else error.body
            raise self._fault(int(error.status), error.headers, body_of or b"") from None
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(_transport(error)) from None

    def _write_v1(self, body: bytes) -> None:
        config = self._config
        where = {"db": config.database, "precision": "ns"}
        if config.retention_policy:
            where["rp"] = config.retention_policy
        headers = {**self._headers(), "Content-Type": "text/plain; charset=utf-8"}
        if config.compression == "gzip":
            body = gzip.compress(body, compresslevel=1)
            headers["Content-Encoding"] = "gzip"
        answer = self._request("/write?" + urlencode(where), headers, body)
        if answer.status == 204 or (answer.status == 200 and not answer.data):
            return
        raise self._fault(answer.status, answer.headers, answer.data)

    def query(self, influxql: str) -> list[dict[str, Any]]:
        """The series of every statement, in order. Raises Unavailable."""
        config = self._config
        form = {"db": config.query_database, "q": influxql, "epoch": "ns"}
        if config.retention_policy:
            form["rp"] = config.retention_policy
        headers = {
            **self._headers(),
            "Content-Type": "application/x-www-form-urlencoded",
            "Accept": "application/json",
            "Accept-Encoding": "gzip",
        }
        answer = self._request("/query", headers, urlencode(form).encode())
        if answer.status != 200:
            fault = self._fault(answer.status, answer.headers, answer.data)
            raise fault if isinstance(fault, Unavailable) else Unavailable(str(fault))
        try:
            results = orjson.loads(answer.data)["results"]
            faults = [result["error"] for result in results if "error" in result]
            if faults:
                raise Unavailable(f"query: {_short(faults[0])}")
            return [series for result in results for series in result.get("series", ())]
        except (ValueError, LookupError, TypeError) as error:
            raise Unavailable(f"query: not an InfluxQL answer: {error!r}") from None

    def close(self) -> None:
        if self._client is not None:
            self._client.close()  # type: ignore[no-untyped-call]
        self._pool.clear()

    def _headers(self) -> dict[str, str]:
        config = self._config
        if config.username:
            pair = f"{config.username}:{config.password.get_secret_value()}"
            return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}
        token = config.token.get_secret_value()
        return {"Authorization": f"Token {token}"} if token else {}

    def _request(
        self, path: str, headers: Mapping[str, str], body: bytes
    ) -> urllib3.BaseHTTPResponse:
        try:
            return self._pool.request("POST", self._config.url + path, headers=headers, body=body)
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unavailable(_transport(error)) from None

    def _fault(
        self, status: int, headers: Mapping[str, str], body: bytes
    ) -> RowsRefused | Unavailable:
        message = _message(body)
        if status in {201, 413, 422} or (status == 400 and _blames_rows(message)):
            return RowsRefused(status, message, body)
        retry_after_s = self._retry_after_s(headers.get("Retry-After"))
        return Unavailable(f"answered {status}: {message}", retry_after_s)

    def _retry_after_s(self, text: str | None) -> float | None:
        """Seconds from either form HTTP allows (RFC 9110 10.2.3); None for nonsense."""
        if text is None:
            return None
        with contextlib.suppress(ValueError):
            return max(0.0, float(text))
        with contextlib.suppress(ValueError, TypeError):
            when = parsedate_to_datetime(text)
            when = when if when.tzinfo else when.replace(tzinfo=UTC)
            return max(0.0, when.timestamp() - self._now_ns() / 1e9)
        return None


def _blames_rows(message: str) -> bool:
    lowered = message.lower()
    if any(sign in lowered for sign in _ROWS_AT_FAULT):
        return True
    return not any(sign in lowered for sign in _TARGET_AT_FAULT)


def _message(body: bytes) -> str:
    """The server's own words: {"error": …} in 1.x and 3.x, {"message": …} in 2.x, or text."""
    try:
        found = orjson.loads(body)
        text = found.get("error") or found.get("message") or ""
    except (ValueError, AttributeError):
        text = body.decode(errors="replace")
    return _short(str(text))


def _short(text: str) -> str:
    text = " ".join(text.split())
    if len(text) <= _MESSAGE_CHARACTERS_MAX:
        return text
    # the count of dropped lines stands at the very end
    return f"{text[: _MESSAGE_CHARACTERS_MAX - 40]} … {text[-38:]}"


def _transport(error: Exception) -> str:
    """What went wrong below HTTP; urllib3's texts hold the address and no header."""
    return f"no answer: {type(error).__name__}: {_short(str(error))}"
