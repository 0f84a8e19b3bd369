"""Options of the InfluxDB sink. Secrets are never printed: masked here, left out of errors."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator


class InfluxdbConfig(BaseModel):
    """`api = "v2"` for servers with /api/v2/write (1.8, 2.x, 3.x, VictoriaMetrics): needs `bucket`;
    `api = "v1"` for older 1.x with /write: needs `database`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: str = Field(description="http(s)://host:port, without a user or a password")
    api: Literal["v2", "v1"] = "v2"
    # --- v2
    bucket: str = Field(default="", description='"database/retention-policy" on 1.8')
    org: str = ""
    token: SecretStr = SecretStr("")
    # --- v1; also reading back from v2, where `database` defaults to the bucket
    database: str = ""
    retention_policy: str = ""
    username: str = ""
    password: SecretStr = SecretStr("")
    # --- both
    measurement: str = Field(default="sample", min_length=1, pattern=r"^[^\x00-\x1f\\]+$")
    received_time: Literal["field", "omitted"] = "field"
    read_back: Literal["influxql", "none"] = Field(
        default="influxql",
        description='"none" for stores without /query: repeats and ties are then only found '
        "inside one batch, and there is no history",
    )
    lines_per_request: int = Field(default=5_000, ge=1, le=100_000)
    compression: Literal["gzip", "none"] = "gzip"
    request_timeout_s: float = Field(default=10.0, gt=0)
    ca_file: Path | None = Field(default=None, description="for a certificate of your own")

    @field_validator("url")
    @classmethod
    def _plain_url(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.hostname:
            raise ValueError("expected http://host:port or https://host:port")
        if parts.username or parts.password or parts.query or parts.fragment:
            raise ValueError("credentials belong in token or username and password, not in the URL")
        return url.rstrip("/")

    @model_validator(mode="after")
    def _named_target(self) -> Self:
        if self.api == "v2" and not self.bucket:
            raise ValueError('api = "v2" needs bucket')
        if self.api == "v1" and not self.database:
            raise ValueError('api = "v1" needs database')
        return self

    @property
    def query_database(self) -> str:
        """What /query is asked about."""
        return self.database or self.bucket.partition("/")[0]
