"""The pages themselves: a frame in the operator's language, filled by a module from the socket.

No page needs the core to be rendered: with the core away each still opens and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import orjson
from fastapi import APIRouter, Request, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from starlette.responses import HTMLResponse, RedirectResponse

from gateway.console import i18n
from gateway.console.settings import LANGUAGES, ConsoleSettings

YEAR_S = 365 * 24 * 3600
router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Operation:
    """One line of the API page."""

    method: str
    path: str
    summary: str
    tag: str
    parameters: list[tuple[str, str, str]]  # name, type, description
    body: str
    answers: list[tuple[str, str]]  # status, type or description


class Pages:
    """Renders templates in one of the languages."""

    def __init__(self, settings: ConsoleSettings) -> None:
        self.settings = settings
        self._environments = {language: _environment(language) for language in LANGUAGES}

    def render(
        self, request: Request, template: str, *, status: int = 200, **facts: Any
    ) -> Response:
        language = i18n.choose(
            request.cookies.get(i18n.COOKIE),
            request.headers.get("accept-language", ""),
            self.settings.language,
        )
        other = next(name for name in LANGUAGES if name != language)
        html = (
            self._environments[language]
            .get_template(template)
            .render(
                language=language,
                html_language=i18n.HTML_LANGUAGE[language],
                other_language=other,
                other_name=i18n.OWN_NAME[other],
                time_zone=self.settings.time_zone,
                path=request.url.path,
                **facts,
            )
        )
        return HTMLResponse(html, status, headers={"vary": "cookie, accept-language"})


def _environment(language: str) -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent.parent / "templates"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        extensions=["jinja2.ext.i18n"],
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.install_gettext_translations(i18n.catalogue(language), newstyle=True)  # type: ignore[attr-defined]
    return environment


def pages_of(request: Request) -> Pages:
    pages = request.app.state.pages
    assert isinstance(pages, Pages)
    return pages


@router.get("/")
async def alarms(request: Request) -> Response:
    return pages_of(request).render(request, "alarms.html", page="alarms")


@router.get("/values")
async def values(request: Request) -> Response:
    return pages_of(request).render(request, "values.html", page="values")


@router.get("/plan")
async def plan(request: Request) -> Response:
    return pages_of(request).render(request, "plan.html", page="plan")


@router.get("/completeness")
async def completeness(request: Request) -> Response:
    return pages_of(request).render(request, "completeness.html", page="completeness")


@router.get("/system")
async def system(request: Request) -> Response:
    return pages_of(request).render(request, "system.html", page="system")


@router.get("/api/docs")
async def docs(request: Request) -> Response:
    """The API at a glance, made from OpenAPI by ourselves: the usual page loads from elsewhere."""
    operations = list(_operations(request.app.openapi()))
    return pages_of(request).render(request, "docs.html", page="docs", operations=operations)


@router.get("/messages/{language}.js")
async def messages(language: str) -> Response:
    """The catalogue as a module."""
    if language not in LANGUAGES:
        return Response(status_code=404)
    body = b"export default " + orjson.dumps(i18n.messages(language)) + b";\n"
    return Response(body, media_type="text/javascript", headers={"cache-control": "no-cache"})


@router.get("/language/{language}")
async def choose_language(language: str, back: str = "/") -> Response:
    """Remember the language and go back to the page. Only a path of ours is gone back to."""
    if language not in LANGUAGES:
        return Response(status_code=404)
    parts = urlsplit(back)
    local = back.startswith("/") and not back.startswith(("//", "/\\")) and not parts.netloc
    response = RedirectResponse(back if local else "/", 303)
    response.set_cookie(
        i18n.COOKIE, language, max_age=YEAR_S, path="/", httponly=True, samesite="strict"
    )
    return response


def _operations(schema: dict[str, Any]) -> Iterator[Operation]:
    for path, methods in schema["paths"].items():
        for method, said in methods.items():
            body = said.get("requestBody", {}).get("content", {}).get("application/json", {})
            yield Operation(
                method=method.upper(),
                path=path,
                summary=said.get("description") or said.get("summary", ""),
                tag=(said.get("tags") or [""])[0],
                parameters=[
                    (p["name"], _type(p["schema"]), p.get("description", ""))
                    for p in said.get("parameters", [])
                ],
                body=_type(body.get("schema", {})),
                answers=[
                    (status, _type(_schema(answer)) or answer.get("description", ""))
                    for status, answer in said["responses"].items()
                ],
            )


def _schema(answer: dict[str, Any]) -> dict[str, Any]:
    found = answer.get("content", {}).get("application/json", {}).get("schema", {})
    assert isinstance(found, dict)
    return found


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " | ".join(_type(option) for option in schema["anyOf"])
    return str(schema.get("type", ""))
