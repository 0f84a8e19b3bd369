"""Reading back (历史): the words of `gateway.contract.history`, under the name readers look for.

A store that can be read offers its `History` as the `history` attribute of its sample sink; the
runtime takes the first configured sink that has one. Nothing here knows which store that is.
"""

from __future__ import annotations

from gateway.contract.history import BUCKETS_MAX, Buckets, History, HistorySlice, PointName

__all__ = ["BUCKETS_MAX", "Buckets", "History", "HistorySlice", "PointName"]
