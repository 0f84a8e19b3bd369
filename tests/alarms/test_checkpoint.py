"""The rules' state on disk: whole, or the one before it."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gateway.alarms import checkpoint, files
from gateway.alarms.checkpoint import NAMES, Checkpoint, CheckpointFiles, _arrays, _pack, _verify
from gateway.model.errors import StorageFault

ARRAYS = st.dictionaries(
    st.text(max_size=5),
    hnp.arrays(
        st.sampled_from([np.float64, np.int64, np.uint8, np.bool_, np.int32, "U4"]),
        hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=4),
    ),
    max_size=4,
)


def newest(directory: Path) -> Checkpoint:
    return CheckpointFiles(directory).load_all()[0][1]


@pytest.mark.slow
@given(offset=st.integers(-(2**63), 2**63 - 1), gseq=st.integers(0, 2**62), arrays=ARRAYS)
def test_what_is_read_back_is_bit_for_bit_what_was_saved(offset, gseq, arrays) -> None:
    found = _verify(_pack(Checkpoint(3, offset, gseq, arrays)))
    assert found[:3] == (3, offset, gseq)
    again = _arrays(found.payload)
    assert list(again) == list(arrays)
    for name, array in arrays.items():
        assert again[name].dtype == array.dtype
        assert again[name].shape == array.shape
        assert again[name].tobytes() == array.tobytes()


def test_the_newest_of_many_is_found_and_only_two_are_kept(tmp_path: Path) -> None:
    for offset in range(1, 8):
        CheckpointFiles(tmp_path).save(offset, {"a": np.zeros(offset)}, gseq=offset)
        assert newest(tmp_path).offset == offset
    assert [c.offset for _, c in CheckpointFiles(tmp_path).load_all()] == [7, 6]
    assert {path.name for path in tmp_path.iterdir()} == set(NAMES)


@pytest.mark.slow
def test_every_byte_of_a_checkpoint_is_covered_and_a_damaged_one_gives_way(tmp_path: Path) -> None:
    held = CheckpointFiles(tmp_path)
    held.save(1, {"a": np.arange(3)}, gseq=1)
    held.save(2, {"a": np.arange(3)}, gseq=2)
    path = held.load_all()[0][0]
    whole = path.read_bytes()
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        assert newest(tmp_path).offset == 1
    for size in range(0, len(whole), 7):
        path.write_bytes(whole[:size])
        assert newest(tmp_path).offset == 1
    held.load_all()
    assert held.damaged == [path]
    held.save(3, {}, gseq=3)
    assert [c.offset for _, c in held.load_all()] == [3, 1]


def test_none_is_found_when_there_is_none_or_both_are_damaged(tmp_path: Path) -> None:
    assert CheckpointFiles(tmp_path).load_all() == []
    for name in NAMES:
        (tmp_path / name).write_bytes(b"HGCP0001 nonsense")
    held = CheckpointFiles(tmp_path)
    assert held.load_all() == []
    assert len(held.damaged) == 2
    held.save(1, {}, gseq=0)
    assert newest(tmp_path).offset == 1


@pytest.mark.parametrize("call", ["fsync", "write", "open"])
def test_a_checkpoint_that_cannot_be_written_leaves_the_earlier_ones(
    tmp_path: Path, monkeypatch, call
) -> None:
    held = CheckpointFiles(tmp_path)
    held.save(1, {}, gseq=0)
    held.save(2, {}, gseq=0)

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(files.os, call, fail)
    with pytest.raises(StorageFault, match="Input/output"):
        held.save(3, {}, gseq=0)
    monkeypatch.undo()
    assert [c.offset for _, c in held.load_all()] == [2, 1]
    assert {path.name for path in tmp_path.iterdir()} == set(NAMES)


def test_the_file_is_synced_before_it_is_renamed_and_the_directory_after(
    tmp_path: Path, monkeypatch
) -> None:
    done: list[str] = []
    fsync, replace = files.os.fsync, Path.replace

    def note_sync(descriptor: int) -> None:
        done.append("directory" if files.os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def note_replace(self: Path, target: Path) -> Path:
        done.append("rename")
        return replace(self, target)

    monkeypatch.setattr(files.os, "fsync", note_sync)
    monkeypatch.setattr(Path, "replace", note_replace)
    files.write_whole(tmp_path / "x", b"1")
    assert done == ["file", "rename", "directory"]


def test_arrays_of_python_objects_are_our_own_fault() -> None:
    with pytest.raises(AssertionError, match="a holds Python objects"):
        checkpoint._pack(Checkpoint(1, 1, 1, {"a": np.array([None])}))
