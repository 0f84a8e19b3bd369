"""Completeness over the wire: the ledger's account as JSON.

Every row balances: `due = got + sum(gaps)`, `minutes_due = minutes_online + sum(dark)`, and for
each consumer the rows received are `has + sum(missing)`. Reasons are the words of
`gateway.ledger.settle.Reason`; the console knows what to call them.

Not here: how an account is made (gateway.ledger), its route (routes.py).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from gateway.api.wire import Wire
from gateway.ledger.account import Account, Request, Row

MINUTE_MS = 60_000
DAYS_MAX = 400
SPAN_MS_MAX = DAYS_MAX * 86_400_000
BINS_MAX = 400
CELLS_MAX = 40_000  # rows x bins of one answer: the core makes it, and has better things to do


class CompletenessQuery(Wire):
    """Which account: half-open, whole minutes; `points` is a glob over point ids."""

    from_ms: int = Field(ge=0, lt=2**53)
    to_ms: int = Field(ge=0, lt=2**53)
    by: Literal["point", "device", "area", "adapter", "site"] = "point"
    points: str = Field(default="*", min_length=1, max_length=128)
    bins: int = Field(default=1, ge=1, le=BINS_MAX, description="stretches of time in each strip")
    limit: int = Field(default=100, ge=1, le=1000, description="rows, the worst first")

    def request(self) -> Request:
        """Begun minutes count as whole ones."""
        return Request(
            self.from_ms // MINUTE_MS,
            -(-self.to_ms // MINUTE_MS),
            self.by,
            self.points,
            self.bins,
            self.limit,
        )


class CompletenessConsumer(Wire):
    """rows received = has + what is missing, by reason."""

    name: str
    role: Literal["judge", "store", "forward"]
    has: int
    missing: dict[str, int]


class CompletenessRow(Wire):
    """One point, device, area, adapter or the site."""

    key: str
    name: str
    point_count: int
    due: int = Field(description="samples expected")
    got: int = Field(description="of them, in time and not bad")
    completeness: float | None = Field(description="got / (due less pending)")
    minutes_due: int
    minutes_online: int
    online_rate: float | None = Field(description="minutes_online / (minutes_due less pending)")
    counted: dict[str, int] = Field(description="rows received: good, bad, repeat, delayed, …")
    gaps: dict[str, int] = Field(description="samples missing, by reason")
    dark: dict[str, int] = Field(description="minutes without any, by reason")
    main_reason: str
    last_online_ms: int | None = Field(description="null: not in this span")
    consumers: list[CompletenessConsumer]
    strip: list[tuple[int, int, str]] = Field(description="due, got and main reason of each bin")


class Completeness(Wire):
    """The answer; rows are the worst first."""

    from_ms: int
    to_ms: int
    known_ms: int = Field(description="minutes before it are counted")
    edges_ms: list[int] = Field(description="of the bins; one more than there are bins")
    total: CompletenessRow
    rows: list[CompletenessRow]
    row_count: int = Field(description="before `limit`")


def completeness(account: Account) -> Completeness:
    """The model's words in the wire's."""
    return Completeness(
        from_ms=account.from_minute * MINUTE_MS,
        to_ms=account.to_minute * MINUTE_MS,
        known_ms=account.known_minute * MINUTE_MS,
        edges_ms=[edge * MINUTE_MS for edge in account.edges],
        total=_row(account.total),
        rows=[_row(row) for row in account.rows],
        row_count=account.row_count,
    )


def _row(row: Row) -> CompletenessRow:
    return CompletenessRow(
        key=row.key,
        name=row.name,
        point_count=row.point_count,
        due=row.due,
        got=row.got,
        completeness=row.completeness,
        minutes_due=row.minutes_due,
        minutes_online=row.minutes_online,
        online_rate=row.online_rate,
        counted=row.counted,
        gaps=row.gaps,
        dark=row.dark,
        main_reason=row.main_reason,
        last_online_ms=row.last_online_minute * MINUTE_MS or None,
        consumers=[
            CompletenessConsumer.model_validate(
                {"name": c.name, "role": c.role, "has": c.has, "missing": c.missing}
            )
            for c in row.consumers
        ],
        strip=row.strip,
    )
