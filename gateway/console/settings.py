"""What the web process is told when it is started."""

from __future__ import annotations

from dataclasses import dataclass

LANGUAGES = ("zh_CN", "en")


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """Defaults serve one box to itself.

    allowed_hosts: names a browser may call this server by, besides `localhost` and addresses. An
    address cannot be rebound to by a hostile name server; a name can, so names are listed.
    """

    language: str = "zh_CN"
    time_zone: str = "Asia/Shanghai"  # until the core's status says another
    allowed_hosts: tuple[str, ...] = ()
    deflate: bool = False  # for a wide-area link; on the box it only costs time
