"""What can go wrong, sorted by who must act.

    GatewayError
    ├── ConfigError            the operator's configuration; before start; never retried
    ├── ProtocolError          (never raised itself)
    │   ├── LocalProtocolError   we misused the protocol: our bug
    │   └── RemoteProtocolError  the peer did: counted, and the data kept as bad quality
    ├── Unavailable            not now; a retry is worth it (the supervisor decides when)
    ├── Refused                not ever, as it stands; a retry is not worth it
    ├── SpoolFull              the byte budget is spent
    └── StorageFault           the disk failed a write or a sync: nothing since is durable

A device's nonsense is not in this tree: it is a sample of bad quality and a count. A broken
invariant of ours is an assertion.
"""

from __future__ import annotations

from dataclasses import dataclass


class GatewayError(Exception):
    """The root, for a caller that must not die of anything of ours."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of one configuration file: `file:line: key: what was expected`."""

    file: str
    line: int  # 1-based; 0 when the file as a whole is at fault
    key: str  # dotted path, "" when there is none
    expected: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.key}: {self.expected}" if self.key else f"{where}: {self.expected}"


class ConfigError(GatewayError):
    """The configuration cannot be used; carries every fault found, not just the first."""

    def __init__(self, faults: list[Fault]) -> None:
        assert faults, "a ConfigError without a fault says nothing"
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


class ProtocolError(GatewayError):
    """Base of the two protocol errors.

    `code` is a short stable word ("checksum", "length", "escape", …) used as counter reason and in
    `decode` output; `detail` says what was seen.
    """

    def __init__(self, code: str, detail: str = "") -> None:
        assert type(self) is not ProtocolError, "raise LocalProtocolError or RemoteProtocolError"
        super().__init__(f"{code}: {detail}" if detail else code)
        self.code = code
        self.detail = detail


class LocalProtocolError(ProtocolError):
    """We asked the protocol for something it cannot do."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something the protocol does not allow."""


class Unavailable(GatewayError):
    """The other side is not there, or is too busy. `retry_after_s` when it said for how long."""

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Refused(GatewayError):
    """The other side answered no, and would again."""


class SpoolFull(GatewayError):
    """The spool's byte budget is spent and its policy refuses the batch."""


class StorageFault(GatewayError):
    """A write or a sync failed: what was not acknowledged before must not be acknowledged now."""
