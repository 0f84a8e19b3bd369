"""Quality of a sample: good, uncertain or bad, and why, in one byte.

    | class: 2 bits | reason: 6 bits |
       00 good, 01 uncertain, 10 bad (11 is never written)

A whole column is judged by comparing with two constants: `quality < UNCERTAIN` is good,
`quality >= BAD` is bad. Rules hold (neither raise nor clear) on bad values: no data is not normal.
"""

from __future__ import annotations

from enum import IntEnum

UNCERTAIN = 0x40
BAD = 0x80
_CLASS_MASK = 0xC0
EARLIEST_BELIEVED_NS = 946_684_800 * 1_000_000_000
"""2000-01-01T00:00:00Z. A device that reports an earlier time has lost its clock battery: every
protocol spoken here is younger than that."""


class Quality(IntEnum):
    """Every value that may stand in a batch's quality column."""

    GOOD = 0
    GOOD_LOCAL_OVERRIDE = 1  # set by hand at the device

    UNCERTAIN = UNCERTAIN
    UNCERTAIN_CLOCK = UNCERTAIN + 1  # the device's time is absurd; judged at the time of receipt
    UNCERTAIN_CALIBRATING = UNCERTAIN + 2  # under calibration: recorded, not pushed to people
    UNCERTAIN_STATE = UNCERTAIN + 3  # the device sent state bits we do not know
    UNCERTAIN_POSITION = UNCERTAIN + 4  # no satellite fix: the last known place
    UNCERTAIN_DERIVED = UNCERTAIN + 5  # computed from inputs of which one is uncertain

    BAD = BAD
    BAD_NO_VALUE = BAD + 1  # empty or a "no value" mark such as -9999
    BAD_NOT_A_NUMBER = BAD + 2  # text where a number belongs
    BAD_OVER_RANGE = BAD + 3  # outside what the sensor can measure
    BAD_SENSOR_FAULT = BAD + 4
    BAD_COMMUNICATION = BAD + 5  # the substation or the line behind it is down
    BAD_NOT_POLLED = BAD + 6  # paused or taken out of the polling cycle at the source
    BAD_STALE = BAD + 7  # older than its source allows
    BAD_DERIVED = BAD + 8  # computed from inputs of which one is bad or missing

    @property
    def is_good(self) -> bool:
        return self < UNCERTAIN

    @property
    def is_bad(self) -> bool:
        return self >= BAD

    @property
    def grade(self) -> str:
        """`good`, `uncertain` or `bad`."""
        return ("good", "uncertain", "bad")[(self & _CLASS_MASK) >> 6]

    @property
    def reason(self) -> str:
        """Why, as a short stable word: `sensor_fault`, `clock`; empty when nothing is wrong."""
        name = self.name.lower()
        for prefix in ("good", "uncertain", "bad"):
            if name == prefix:
                return ""
            if name.startswith(prefix + "_"):
                return name[len(prefix) + 1 :]
        raise AssertionError(name)
