"""Rule packs (规则包): statutory rules as cited data. Text in, rules out; no file is opened here.

    pack.toml ─parse_pack─▶ RulePack ─apply_overrides─▶ rules of the site + faults
                               └─▶ duties: what the law asks of people, not of samples

A pack says what law it speaks for, how much of it (`complete`, `partial`, `empty`, with the reason)
and, for each rule and duty, where it stands and how sure we are of it.

Owns: the names. The file is schema.py's, what a site changes overrides.py's, the numbers *.toml's.
Not here: reading files (the runtime's), what a rule kind makes of its parameters (kinds/).
"""

from alarm_rules.packs.overrides import Override, apply_overrides
from alarm_rules.packs.schema import Duty, DutyKind, RulePack, check_pack, parse_pack

__all__ = [
    "Duty",
    "DutyKind",
    "Override",
    "RulePack",
    "apply_overrides",
    "check_pack",
    "parse_pack",
]
