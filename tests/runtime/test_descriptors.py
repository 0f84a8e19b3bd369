"""The limit of open files is lifted as far as the system allows, and no further."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

CODE = """
import json, resource
from gateway.runtime.descriptors import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))
print(json.dumps([raise_descriptor_limit(), *resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("soft", "hard"), [(64, 200), (200, 200)])
def test_the_soft_limit_becomes_the_hard_one(soft: int, hard: int) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(soft=soft, hard=hard)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == [hard, hard, hard]


def test_a_system_that_forbids_it_leaves_the_old_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    from gateway.runtime.descriptors import raise_descriptor_limit

    def forbidden(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (64, 200))
    monkeypatch.setattr(resource, "setrlimit", forbidden)
    assert raise_descriptor_limit() == 64
