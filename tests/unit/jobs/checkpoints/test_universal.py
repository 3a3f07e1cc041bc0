"""Who converts which parameter: every rank finds the same answer, none is left out, no rank has much more.

And what a disk does to a conversion; that its tensors are right is shown by tests/integration/test_resize.py.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from jobs.checkpoints import checkpoint, universal
from jobs.checkpoints.checkpoint import Published
from jobs.checkpoints.universal import shares
from jobs.spec import Unavailable

SHARD = "zero_pp_rank_0_mp_rank_00_optim_states.pt"
SIZES = st.dictionaries(st.text(min_size=1, max_size=5), st.integers(1, 10**9), min_size=1, max_size=40)


@given(sizes=SIZES, workers=st.integers(1, 8))
def test_every_parameter_is_one_ranks(sizes: dict[str, int], workers: int) -> None:
    dealt = shares(sizes, workers)
    assert len(dealt) == workers
    assert sorted(name for names in dealt for name in names) == sorted(sizes)
    assert dealt == shares(dict(reversed(sizes.items())), workers)


@given(sizes=SIZES, workers=st.integers(1, 8))
def test_no_rank_has_more_than_an_equal_part_and_one_parameter(sizes: dict[str, int], workers: int) -> None:
    loads = [sum(sizes[name] for name in names) for names in shares(sizes, workers)]
    assert max(loads) <= sum(sizes.values()) / workers + max(sizes.values())


@pytest.fixture
def found(tmp_path: Path) -> Published:
    """A checkpoint of ZeRO 1 by one worker, as small as can be."""
    folder, flat = tmp_path / "step-00000001", torch.arange(6.0)
    folder.mkdir()
    model = {"param_shapes": [{"w": torch.Size([2, 3])}], "module": {}, "buffer_names": []}
    torch.save(model, folder / "mp_rank_00_model_states.pt")
    shard = {
        "zero_stage": 1,
        "base_optimizer_state": {"state": {0: {"step": 1, "exp_avg": flat.clone()}}, "param_groups": []},
        "single_partition_of_fp32_groups": [flat],
        "param_slice_mappings": [{"w": SimpleNamespace(start=0, numel=6)}],
    }
    torch.save({"optimizer_state_dict": shard}, folder / SHARD)
    return Published(folder, 1, {"essentials": {"workers.count": 1}}, 1)


def test_what_was_written_is_what_was_sealed(found: Published) -> None:
    assert not universal.prepare(found)
    sealed = universal.convert(found)
    assert universal.publish(found, sealed) == sum(file.size_bytes for file in sealed.values())
    made = universal.folder_of(found)
    assert checkpoint.sound(made) is not None
    assert universal.prepare(found), "it is there already"
    assert torch.load(made / "zero" / "w" / "fp32.pt", weights_only=False)["param"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_full_disk_is_not_the_jobs_fault(found: Published) -> None:
    universal.prepare(found)
    zero = found.folder.with_name(f"{found.folder.name}.universal.partial") / "zero"
    (zero / "optimizer_state.pt").symlink_to("/dev/full")
    with pytest.raises(Unavailable, match=r"universal.partial: No space left on device"):
        universal.convert(found)


@pytest.mark.parametrize("name", ["mp_rank_00_model_states.pt", SHARD])
def test_a_disk_that_hangs_is_given_up(found: Published, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever opens a pipe that has no other end waits for ever, as on a file server that is gone."""
    universal.prepare(found)
    (found.folder / name).unlink()
    os.mkfifo(found.folder / name)
    monkeypatch.setattr("jobs.patience.SILENCE_S", 0.2)
    with pytest.raises(Unavailable, match=r"step-00000001 has not answered for 0.2 s"):
        universal.convert(found)
