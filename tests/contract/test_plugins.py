"""Every installed plugin against the contract of its group: registering one is enough to be checked."""

from __future__ import annotations

from importlib.metadata import entry_points

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.contract.rule_kind import RuleKind
from gateway.contract.sink import SinkKind
from gateway.runtime.plugins import GROUPS, load_plugins
from gateway.testing.adapters import (
    check_adapter_runs,
    check_config,
    check_decoder,
    check_listing_is_light,
    folder_of,
    sample_settings,
)
from gateway.testing.servers import free_port
from gateway.testing.simulators import check_simulator_config, check_simulator_waits

PLUGINS = load_plugins()
ENTRIES = [
    (group, entry.name, entry.value)
    for group in GROUPS
    for entry in entry_points(group=f"hazard_gateway.{group}")
]


@pytest.mark.parametrize(("group", "name", "value"), ENTRIES)
def test_a_plugin_bears_its_registered_name_and_one_line_about_itself(group, name, value) -> None:
    kind = getattr(PLUGINS, group)[name]
    assert kind.name == name
    assert kind.summary
    assert "\n" not in kind.summary


@pytest.mark.parametrize("module", sorted({value.partition(":")[0] for _, _, value in ENTRIES}))
def test_listing_a_plugin_loads_no_protocol_library(module) -> None:
    check_listing_is_light(module)


def unreachable(settings: dict) -> dict:
    """The same settings, with nobody at the other end and a port of our own."""
    changed = {"host": "127.0.0.1", "port": free_port()}
    return {**settings, **{key: value for key, value in changed.items() if key in settings}}


@pytest.mark.parametrize("name", sorted(PLUGINS.adapters))
def test_an_adapters_sample_file_is_a_valid_configuration(name) -> None:
    kind = PLUGINS.adapters[name]
    check_config(kind.config, sample_settings(folder_of(f"adapters.{name}")))


@pytest.mark.parametrize("name", sorted(PLUGINS.adapters))
async def test_an_adapter_without_a_field_system_waits_and_ends_when_told(name, tmp_path) -> None:
    kind = PLUGINS.adapters[name]
    settings = unreachable(sample_settings(folder_of(f"adapters.{name}")))
    if "folder" in settings:
        settings = {"folder": str(tmp_path / "inbox")}
        (tmp_path / "inbox").mkdir()
    await check_adapter_runs(kind, settings, tmp_path)


@pytest.mark.parametrize("name", sorted(PLUGINS.adapters))
@given(texts=st.lists(st.text(max_size=80) | st.binary(max_size=80).map(bytes.hex), max_size=4))
def test_a_decoder_answers_anything(name, texts) -> None:
    check_decoder(PLUGINS.adapters[name], texts)


@pytest.mark.parametrize("name", sorted(PLUGINS.adapters))
def test_a_decoder_reads_its_own_examples(name) -> None:
    kind = PLUGINS.adapters[name]
    assert kind.examples
    decoder = kind.decoder()
    decoded = [message for text in kind.examples for message in decoder.feed(text)]
    assert len(decoded) >= len(kind.examples)
    assert any(message.samples for message in decoded)


@pytest.mark.parametrize("name", sorted(PLUGINS.simulators))
async def test_a_simulator_without_a_gateway_keeps_trying_and_believes_nothing(
    name, tmp_path
) -> None:
    kind = PLUGINS.simulators[name]
    check_simulator_config(kind)
    target = {"host": "127.0.0.1", "port": free_port()}
    if "folder" in kind.config.model_fields:
        target = {"folder": str(tmp_path)}
    await check_simulator_waits(kind, target)


@pytest.mark.parametrize("name", sorted(PLUGINS.sinks))
def test_a_sink_offers_a_way_out_and_refuses_unknown_keys(name) -> None:
    kind = PLUGINS.sinks[name]
    assert isinstance(kind, SinkKind)
    assert kind.build_samples or kind.build_alarms
    assert kind.config.model_config.get("extra") == "forbid"


@pytest.mark.parametrize("name", sorted(PLUGINS.rule_kinds))
def test_a_rule_kind_refuses_unknown_parameters(name) -> None:
    kind = PLUGINS.rule_kinds[name]
    assert isinstance(kind, RuleKind)
    assert kind.parameters.model_config.get("extra") == "forbid"
