"""`decode` answers every line with JSON: a message, or a named error; never a traceback."""

from __future__ import annotations

import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.cli import EXIT_OK, EXIT_USAGE, main
from gateway.contract.adapter import Decoded
from gateway.model.errors import RemoteProtocolError
from gateway.runtime.decoding import answer
from gateway.runtime.plugins import load_plugins

KINDS = load_plugins().adapters
FRAME_KINDS = sorted(name for name, kind in KINDS.items() if kind.decoder is not None)


@pytest.mark.parametrize("protocol", FRAME_KINDS)
@given(text=st.text(max_size=200))
def test_any_text_is_answered_with_json(protocol: str, text: str) -> None:
    kind = KINDS[protocol]
    for line in answer(kind.decoder(), text):
        row = json.loads(line)
        assert row["ok"] is True or (row["error"] and isinstance(row["detail"], str))


@pytest.mark.parametrize("protocol", FRAME_KINDS)
@given(data=st.binary(max_size=200))
def test_any_bytes_in_hex_are_answered_with_json(protocol: str, data: bytes) -> None:
    kind = KINDS[protocol]
    for line in answer(kind.decoder(), data.hex()):
        assert "ok" in json.loads(line)


class Echo:
    def __init__(self, value) -> None:
        self.value = value

    def feed(self, data: str) -> list[Decoded]:
        if isinstance(self.value, Exception):
            raise self.value
        return [Decoded({"field": self.value})]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1.5, 1.5),
        (float("nan"), None),
        (2**70, str(2**70)),
        ("\udc80", "\\udc80"),
        ({1: [float("inf"), "\udcff"]}, {"1": [None, "\\udcff"]}),
    ],
)
def test_what_json_cannot_say_is_said_another_way(value, expected) -> None:
    (line,) = answer(Echo(value), "")
    assert json.loads(line)["message"]["field"] == expected


def test_damage_is_named_and_detailed() -> None:
    (line,) = answer(Echo(RemoteProtocolError("checksum", "1A, not 1B")), "")
    assert json.loads(line) == {"ok": False, "error": "checksum", "detail": "1A, not 1B"}


def test_the_command_reads_stdin_and_exits_with_success_on_damage(monkeypatch, capsys) -> None:
    golden = "7E0002000001380000123400071A7E\n\nnot hex\n"
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(golden.encode())))
    assert main(["decode", "jt808"]) == EXIT_OK
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["ok"] for row in rows] == [True, False]
    assert rows[0]["message"]["serial"] == 7


def test_an_unknown_protocol_or_file_is_a_usage_error(capsys, tmp_path) -> None:
    assert main(["decode", "smoke-signals"]) == EXIT_USAGE
    assert main(["decode", "jt808", str(tmp_path / "missing")]) == EXIT_USAGE
    errors = capsys.readouterr().err
    assert "one of jt808" in errors
    assert "missing" in errors
