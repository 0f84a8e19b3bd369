"""The JSON API under /api: what the core last pushed, and questions passed on to it.

Answers are the core's own bytes wherever possible; `response_model` describes them for OpenAPI and
is not run. Live topics (status, values) answer from the last push, with its own time inside; the
rest is asked. No link is 503, never an old answer to a new question.

Not here: origin and host checks (console/guard.py), the live stream (console/live.py).
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, HTTPException, Path, Query, Request, Response
from pydantic import Field

from gateway.api import completeness as account
from gateway.api import wire
from gateway.api.client import LinkClient
from gateway.model.errors import Refused, Unavailable
from gateway.model.quality import Quality


def link_of(request: Request) -> LinkClient:
    """The application's link to the core."""
    link = request.app.state.link
    assert isinstance(link, LinkClient)
    return link


Link = Annotated[LinkClient, Depends(link_of)]
PointId = Annotated[str, Path(min_length=1, max_length=128)]
AlarmKey = Annotated[str, Path(min_length=1, max_length=400)]


class Problem(wire.Wire):
    """Every error's body."""

    detail: str


class Acknowledgement(wire.Wire):
    """Who has seen it, and what they saw."""

    operator: str = Field(min_length=1, max_length=64, pattern=r"\S")
    token: str = Field(min_length=1, max_length=64, description="AlarmRow.token as shown")
    comment: str = Field(default="", max_length=500)


Answers = dict[int | str, dict[str, Any]]
UNAVAILABLE: Answers = {
    503: {"model": Problem, "description": "no link to the core, or it is too busy"}
}
NOT_FOUND: Answers = {404: {"model": Problem, "description": "no such point or alarm"}}
CONFLICT: Answers = {
    409: {"model": wire.CommandResult, "description": "nothing changed: stale or refused"}
}

router = APIRouter(prefix="/api", responses=UNAVAILABLE)


def _json(body: bytes, *, status_code: int = 200, etag: str = "") -> Response:
    headers = {"etag": etag, "cache-control": "no-cache"} if etag else {}
    return Response(body, status_code, headers, media_type="application/json")


async def ask(link: LinkClient, method: str, body: bytes = b"{}") -> bytes:
    """Ask the core; its no becomes the right HTTP status."""
    try:
        return await link.request(method, body)
    except Unavailable as fault:
        raise HTTPException(503, str(fault)) from None
    except KeyError as fault:
        raise HTTPException(404, str(fault.args[0])) from None
    except Refused as fault:
        raise HTTPException(422, str(fault)) from None


def _pushed(link: LinkClient, topic: str) -> bytes:
    if topic not in link.newest:
        raise HTTPException(503, "nothing heard from the core yet")
    return link.newest[topic]


@router.get("/link", tags=["state"])
async def read_link(link: Link) -> wire.LinkState:
    """How this web process stands to the core, and how old its data is."""
    return link.state


@router.get("/status", response_model=wire.Status, tags=["state"])
async def read_status(link: Link) -> Response:
    """State of the core, every adapter, the spool, every sink and the rule set."""
    return _json(_pushed(link, "status"))


@router.get("/points", response_model=wire.PointsFrame, tags=["points"])
async def read_points(link: Link, request: Request) -> Response:
    """Every point and device. Changes only with `version`; honours If-None-Match."""
    body = await ask(link, "points")
    etag = f'"{hash_of(body)}"'
    if request.headers.get("if-none-match") == etag:
        return Response(status_code=304, headers={"etag": etag})
    return _json(body, etag=etag)


@router.get("/values", response_model=wire.ValuesFrame, tags=["points"])
async def read_values(link: Link) -> Response:
    """The newest sample of every point, as columns in the order of /api/points."""
    return _json(_pushed(link, "values"))


@router.get("/values/{point_id}", tags=["points"], responses=NOT_FOUND)
async def read_value(link: Link, point_id: PointId) -> wire.ValueRow:
    """The newest sample of one point."""
    frame = wire.ValuesFrame.model_validate_json(_pushed(link, "values"))
    points = wire.PointsFrame.model_validate_json(await ask(link, "points")).points
    point = next((row for row in points if row.id == point_id), None)
    if point is None or point.index >= len(frame.value):
        raise HTTPException(404, f"no sample of a point {point_id!r}")
    quality, age_ms = frame.quality[point.index], frame.age_ms[point.index]
    known = Quality(quality) if quality in set(Quality) else Quality.BAD
    return wire.ValueRow(
        point=point,
        value=frame.value[point.index],
        quality=quality,
        grade=known.grade,
        reason=known.reason,
        source_time_ms=None if age_ms == wire.NEVER_MS else frame.time_ms - age_ms,
        time_ms=frame.time_ms,
    )


@router.get("/history", response_model=wire.HistoryBuckets, tags=["points"], responses=NOT_FOUND)
async def read_history(link: Link, query: Annotated[wire.HistoryQuery, Query()]) -> Response:
    """One point's past in at most `count` equal buckets."""
    if query.from_ms >= query.to_ms:
        raise HTTPException(422, "from_ms must be before to_ms")
    return _json(await ask(link, "history", query.encoded()))


@router.get("/completeness", response_model=account.Completeness, tags=["completeness"])
async def read_completeness(
    link: Link, query: Annotated[account.CompletenessQuery, Query()]
) -> Response:
    """What was expected, received, judged, stored and forwarded, and why the rest was not."""
    if query.from_ms >= query.to_ms:
        raise HTTPException(422, "from_ms must be before to_ms")
    if query.to_ms - query.from_ms > account.SPAN_MS_MAX:
        raise HTTPException(422, f"at most {account.DAYS_MAX} days")
    if query.limit * query.bins > account.CELLS_MAX:
        raise HTTPException(422, f"limit x bins at most {account.CELLS_MAX}")
    return _json(await ask(link, "completeness", query.encoded()))


@router.get("/alarms", response_model=wire.AlarmsFrame, tags=["alarms"])
async def read_alarms(link: Link, query: Annotated[wire.AlarmsQuery, Query()]) -> Response:
    """The standing list, most urgent first, with the newest events."""
    return _json(await ask(link, "alarms", query.encoded()))


@router.get("/events", response_model=wire.EventsPage, tags=["alarms"])
async def read_events(link: Link, query: Annotated[wire.EventsQuery, Query()]) -> Response:
    """Journalled alarm events, oldest first: the newest ones, or those after a `gseq`."""
    return _json(await ask(link, "events", query.encoded()))


@router.post(
    "/alarms/{alarm_key}/acknowledge",
    response_model=wire.CommandResult,
    tags=["alarms"],
    responses={**CONFLICT, **NOT_FOUND},
)
async def acknowledge(link: Link, alarm_key: AlarmKey, body: Acknowledgement) -> Response:
    """A person has seen the alarm, as it stood when `token` was shown. Repeating it is harmless."""
    command = wire.Command(
        name="acknowledge",
        alarm_key=alarm_key,
        operator=body.operator.strip(),
        token=body.token,
        comment=body.comment,
    )
    answer = await ask(link, "command", command.encoded())
    code = wire.CommandResult.model_validate_json(answer).code
    return _json(answer, status_code=HTTP_OF[code])


HTTP_OF: dict[Literal["done", "stale", "unknown", "refused"], int] = {
    "done": 200,
    "stale": 409,
    "refused": 409,
    "unknown": 404,
}


def hash_of(body: bytes) -> str:
    """A short name for these bytes."""
    return hashlib.blake2b(body, digest_size=12).hexdigest()
