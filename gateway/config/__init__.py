"""The only reader of configuration files and of the environment.

    load(path, kinds) -> SiteConfig        raises ConfigError with every fault at once
    check(path, kinds) -> list[Fault]      the same faults, `file:line: key: what was expected`
    warnings(config) -> list[str]          allowed, and probably not meant

`docs/decisions/0003-configuration.md` shows the file. Not here: the contents of rule packs, finding
plugins, building anything.
"""

from gateway.config.load import Kinds, check, load, warnings
from gateway.config.schema import PackOverride, PluginConfig, SiteConfig

__all__ = ["Kinds", "PackOverride", "PluginConfig", "SiteConfig", "check", "load", "warnings"]
