"""Languages: gettext catalogues for the templates, the same catalogue for the modules.

Messages are written in English in the code; `locale/zh_CN` translates every one of them (a test
fails otherwise). Names and texts of the site (points, rules, areas) are data and stay as they are.
"""

from __future__ import annotations

import gettext
from functools import cache
from pathlib import Path

from gateway.console.settings import LANGUAGES

LOCALE = Path(__file__).parent / "locale"
COOKIE = "language"
HTML_LANGUAGE = {"zh_CN": "zh-CN", "en": "en"}
OWN_NAME = {"zh_CN": "中文", "en": "English"}


class Catalogue(gettext.GNUTranslations):
    """One language's messages."""

    _catalog: dict[object, str]

    def messages(self) -> dict[str, str]:
        return {key: text for key, text in self._catalog.items() if isinstance(key, str) and key}


@cache
def catalogue(language: str) -> gettext.NullTranslations:
    """The language's catalogue. English is the language of the messages themselves."""
    if language == "en":
        return gettext.NullTranslations()
    with (LOCALE / language / "LC_MESSAGES" / "console.mo").open("rb") as file:
        return Catalogue(file)


def messages(language: str) -> dict[str, str]:
    """Message to translation, for the modules; empty for English."""
    found = catalogue(language)
    return found.messages() if isinstance(found, Catalogue) else {}


def choose(cookie: str | None, accept_language: str, default: str) -> str:
    """The language of a page: what the operator chose, else what the browser asks for first."""
    if cookie in LANGUAGES:
        return cookie
    for entry in accept_language.split(","):
        wanted = entry.split(";")[0].strip().lower()
        if wanted.startswith("zh"):
            return "zh_CN"
        if wanted.startswith("en"):
            return "en"
    return default
