"""Other rules, asked for while judging goes on, and answered at a moment between two steps.

    reload ──ask──▶ one request waits ──answer──▶ the judge takes the rules, or says why not
                        └─ no moment within TAKE_RULES_S: given up, nothing was changed

One at a time: a second one is refused while the first waits. Who asked always hears: that it was
done, what was wrong with the rules, that the judge failed or was stopped.

Not here: what taking them means (judge.py, alarm_rules/ruleset.py), who asks (reloading.py).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from alarm_rules.ruleset import RuleSet
from gateway.model.errors import ConfigError, Unavailable
from gateway.model.rule import Rule

TAKE_RULES_S = 60.0  # engineering: a chunk is judged in seconds, a flood in pieces


@dataclass
class WantedRules:
    """Rules to be taken instead of those in force; `done` says whether in place."""

    rules: Sequence[Rule]
    make_rules: Callable[[], RuleSet]
    done: asyncio.Future[bool]


class Exchanging:
    """At most one request for other rules."""

    def __init__(self) -> None:
        self._wanted: WantedRules | None = None

    @property
    def is_wanted(self) -> bool:
        return self._wanted is not None

    async def ask(self, rules: Sequence[Rule], make_rules: Callable[[], RuleSet]) -> bool:
        """Returns whether the rules were taken in place. Raises ConfigError for every fault of
        theirs, Unavailable where they cannot be taken now."""
        if self._wanted is not None:
            raise Unavailable("other rules are being taken already")
        done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        wanted = self._wanted = WantedRules(rules, make_rules, done)
        try:
            await asyncio.wait({done}, timeout=TAKE_RULES_S)
        finally:
            is_waiting = self._wanted is wanted
            if is_waiting:
                self._wanted = None
        if is_waiting:
            raise Unavailable(f"no moment for other rules within {TAKE_RULES_S:g} s")
        return await done

    async def answer(self, judge_by: Callable[[WantedRules], Awaitable[bool]]) -> None:
        """Have what is wanted done. A failure on the way that is not the rules' fault is told to
        who asked, and raised."""
        wanted, self._wanted = self._wanted, None
        assert wanted is not None, "nobody asked"
        done = wanted.done
        try:
            in_place = await judge_by(wanted)
        except Exception as error:
            if not done.done():
                done.set_exception(error)
            if not isinstance(error, ConfigError):
                raise
        else:
            if not done.done():
                done.set_result(in_place)
        finally:
            if not done.done():  # cancelled on the way
                done.set_exception(Unavailable("the judge was stopped"))
