"""Directories in memory where the machine has them: these tests sync thousands of times, and what
they ask is order and recovery, not how fast a disk is."""

import shutil
import tempfile
from pathlib import Path

import pytest

MEMORY = Path("/dev/shm")


@pytest.fixture(scope="session")
def fast_root():
    root = Path(tempfile.mkdtemp(prefix="spool-tests-", dir=MEMORY if MEMORY.is_dir() else None))
    yield root
    shutil.rmtree(root)


@pytest.fixture
def tmp_path(fast_root):
    path = Path(tempfile.mkdtemp(dir=fast_root))
    yield path
    shutil.rmtree(path)
