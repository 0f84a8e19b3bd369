"""What a verification finds, collected: kinds, gseq ranges, words. See verify.py for the kinds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

FINDINGS_KEPT = 1000
"""Findings named in a report; more are only counted."""


class Finding(NamedTuple):
    """One thing that is not as it was written, and the events it concerns."""

    kind: str
    first_gseq: int
    last_gseq: int
    detail: str

    def __str__(self) -> str:
        return f"{self.kind} {self.first_gseq}..{self.last_gseq}: {self.detail}"


@dataclass
class Findings:
    """Collects; the same thing about neighbouring events is one finding."""

    total: int = 0
    kept: list[Finding] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, kind: str, first_gseq: int, last_gseq: int, detail: str) -> None:
        last = self.kept[-1] if self.kept else None
        if last and (last.kind, last.detail, last.last_gseq + 1) == (kind, detail, first_gseq):
            self.kept[-1] = last._replace(last_gseq=last_gseq)
            return
        self.total += 1
        if len(self.kept) < FINDINGS_KEPT:
            self.kept.append(Finding(kind, first_gseq, last_gseq, detail))

    def has(self, kind: str) -> bool:
        return any(finding.kind == kind for finding in self.kept)
