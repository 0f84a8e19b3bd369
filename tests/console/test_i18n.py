"""Both languages are whole, and the catalogue is the code's."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from gateway.console import i18n
from gateway.console.settings import LANGUAGES

ROOT = Path(__file__).resolve().parents[2]
CONSOLE = ROOT / "gateway" / "console"


def load(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "deploy" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


translations = load("translations")


def test_every_message_has_a_chinese_text_and_the_compiled_catalogue_is_new():
    assert translations.faults() == []


def test_the_check_finds_a_message_without_a_translation(monkeypatch):
    whole = translations.stored()
    message = whole.get("Acknowledge")
    message.string = ""
    monkeypatch.setattr(translations, "stored", lambda: whole)
    assert "not translated: 'Acknowledge'" in translations.faults()


def test_placeholders_are_the_same_in_both_languages():
    for english, chinese in i18n.messages("zh_CN").items():
        assert set(re.findall(r"\{(\w+)\}", english)) == set(re.findall(r"\{(\w+)\}", chinese)), (
            english
        )


def test_no_message_is_hidden_from_the_collector():
    # The collector does not look into template literals: a message there would stay English.
    for file in (CONSOLE / "static" / "js").glob("*.js"):
        assert not re.search(r"\$\{[^}]*\b_\(", file.read_text()), file.name


def test_templates_contain_no_text_outside_messages():
    for file in (CONSOLE / "templates").glob("*.html"):
        text = re.sub(
            r"\{%.*?%\}|\{\{.*?\}\}|\{#.*?#\}|<[^>]*>|/api/openapi.json",
            " ",
            file.read_text(),
            flags=re.DOTALL,
        )
        words = set(re.findall(r"[A-Za-z]{3,}", text)) - {
            "hazard",
            "gateway",
            "nbsp",
            "API",
            "DOCTYPE",
        }
        assert not words, (file.name, words)


CHOICES = [
    (None, "", "zh_CN"),
    (None, "en-US,en;q=0.9", "en"),
    (None, "zh-TW,en;q=0.9", "zh_CN"),
    (None, "fr,en;q=0.5", "en"),
    (None, "fr", "zh_CN"),
    ("en", "zh-CN", "en"),
    ("zh_CN", "en", "zh_CN"),
    ("../../etc", "en", "en"),
]


@pytest.mark.parametrize(("cookie", "accept", "language"), CHOICES)
def test_the_operator_s_choice_wins_over_the_browser_s(cookie, accept, language):
    assert i18n.choose(cookie, accept, "zh_CN") == language


def test_every_language_has_a_name_and_an_html_code():
    assert set(LANGUAGES) == set(i18n.OWN_NAME) == set(i18n.HTML_LANGUAGE)
