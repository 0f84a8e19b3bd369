"""One nursery for all: importing the gateway once is what makes these tests affordable."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gateway.testing.faults.process import Nursery


@pytest.fixture(scope="session")
def nursery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nursery]:
    nursery = Nursery(tmp_path_factory.mktemp("nursery"))
    nursery.open()
    yield nursery
    nursery.close()
