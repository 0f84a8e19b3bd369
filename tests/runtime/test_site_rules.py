"""A site's rules: packs by name from the installed package, overrides, and the site's own."""

from __future__ import annotations

from datetime import date
from types import SimpleNamespace

import pytest

from alarm_rules.kinds import calculation, count, limit, offline
from gateway.config import PackOverride
from gateway.model.errors import ConfigError
from gateway.model.rule import Rule, Selector
from gateway.runtime.packs import pack_names, read_pack
from gateway.runtime.siterules import site_rules

KINDS = {k.KIND.name: k.KIND for k in (calculation, count, limit, offline)}
OWN = Rule("own", "limit", {"value": Selector(quantity="rain")}, {"levels": {"H": 50.0}})


def site(packs=(), overrides=(), rules=()):
    """What `site_rules` reads of a site's configuration."""
    return SimpleNamespace(path="site.toml", packs=packs, pack_overrides=overrides, rules=rules)


def test_every_shipped_pack_can_be_read_by_its_name() -> None:
    assert {
        "coal-gas-2016",
        "coal-personnel",
        "tailings",
        "road-transport",
        "system-health",
    } <= set(pack_names())
    for name in pack_names():
        assert read_pack(name).name == name


def test_a_sites_own_rules_stand_behind_those_of_its_packs() -> None:
    found = site_rules(site(packs=["road-transport"], rules=[OWN]), KINDS)
    assert [pack.name for pack in found.packs] == ["road-transport"]
    (pack,) = found.packs
    assert [rule.id for rule in found.rules] == [*(rule.id for rule in pack.rules), "own"]


def test_a_signed_override_reaches_the_rule_with_its_date() -> None:
    override = PackOverride(
        rule="road-transport.terminal-offline",
        parameters={"max_age_s": 600.0},
        reason="long tunnel",
        signed_by="Fleet manager",
        signed_on=date(2026, 1, 15),
    )
    found = site_rules(site(packs=["road-transport"], overrides=[override]), KINDS)
    (rule,) = [rule for rule in found.rules if rule.id == override.rule]
    assert rule.parameters["max_age_s"] == 600.0
    assert "by Fleet manager on 2026-01-15: long tunnel" in rule.citation.note


def test_a_refused_override_is_named_and_the_rule_stays_as_the_law_has_it() -> None:
    loose = PackOverride(rule="road-transport.terminal-offline", parameters={"max_age_s": 600.0})
    found = site_rules(site(packs=["road-transport"], overrides=[loose]), KINDS)
    (fault,) = found.faults
    assert str(fault).startswith("site.toml: pack_override: ")
    assert "max_age_s is less strict" in str(fault)
    (rule,) = [rule for rule in found.rules if rule.id == loose.rule]
    assert rule.parameters["max_age_s"] == 300.0


def test_an_unknown_pack_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(ConfigError, match=r"no-such: one of .*coal-gas-2016"):
        site_rules(site(packs=["no-such"]), KINDS)
