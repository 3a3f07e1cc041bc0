"""A checkpoint in universal form: whole tensors by parameter name, which any number of workers can take up.
In: a published checkpoint. Out: DeepSpeed's universal checkpoint of it, in a folder of its own beside it.
`resume` asks for it where the worker count has changed; next, jobs.engine loads it.

    <checkpoints>/step-00000120.universal/           zero/<parameter>/{fp32,exp_avg,exp_avg_sq,step}.pt, manifest.json
    <checkpoints>/step-00000120.universal.partial/   being written, or left by a crash: never read

Each rank writes some of the parameters, straight from the memory-mapped shards of all ranks: every byte is read once
and written once, where DeepSpeed's converter, in one process, goes by way of a file for each fragment. The tensors are
the same (tests/integration/test_resize.py). Format: Lian et al. 2024, Universal Checkpointing (arXiv:2406.18820).
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jobs.checkpoints import checkpoint
from jobs.checkpoints.checkpoint import Published, Sealed
from jobs.checkpoints.saving import serialise
from jobs.checkpoints.stream import Stream
from jobs.patience import Beat, Pulse, bounded, together, told_as
from jobs.spec import InputError, JobFault

ADAM = {"fp32", "exp_avg", "exp_avg_sq"}
"""What DeepSpeed takes up at stage 3; at stages 1 and 2 any state will do that is sharded as the weights are."""
_COMMON = "zero/optimizer_state.pt"


def is_sharded(found: Published) -> bool:
    """Whether the optimizer lies in a shard for each worker; what stage 0 writes any number of workers can load.

    It, and all below, raise Unavailable where the disk is full, gone or silent.
    """
    where = str(found.folder)
    with told_as(where):
        return bounded(where, lambda _pulse: bool(_shard_files(found.folder)))


def folder_of(found: Published) -> Path:
    """Where the universal form of a checkpoint lies."""
    return found.folder.with_name(found.folder.name + ".universal")


def prepare(found: Published) -> bool:
    """True where a sound universal form lies there already; else an empty partial does. Call it on one rank."""
    if checkpoint.sound(folder_of(found)) is not None:
        return True
    partial = _partial_of(found)

    def act(pulse: Pulse) -> bool:
        for stale in (folder_of(found), partial):
            pulse.beat()
            shutil.rmtree(stale, ignore_errors=True)
        pulse.beat()
        (partial / "zero").mkdir(parents=True)
        checkpoint.write_atomically(partial / checkpoint.META, {**found.meta, "universal": True})
        return False

    with told_as(str(partial)):
        return bounded(str(partial), act)


def convert(found: Published, rank: int = 0, world_size: int = 1) -> dict[str, Sealed]:
    """Write this rank's share of the parameters; rank 0 writes what they have in common, too. Returns what it wrote.

    Talks to no other rank. InputError where the optimizer keeps what has no universal form, JobFault where shards of
    the checkpoint do not make whole parameters.
    """
    where, partial = str(found.folder), _partial_of(found)
    with told_as(where):
        shards = bounded(where, lambda pulse: _Shards(found, pulse.beat))
    acts = [shards.writing(name, partial / "zero") for name in shares(shards.sizes, world_size)[rank]]
    if rank == 0:
        acts.append(lambda pulse: {_COMMON: _write(shards.common(), partial / _COMMON, pulse)})
        model = shards.model_file.name
        acts.append(lambda pulse: {model: _write(shards.model_state(), partial / model, pulse)})
    with told_as(str(partial)):
        sealed = {name: file for each in together(str(partial), acts) for name, file in each.items()}
    return sealed | checkpoint.seal_files(partial, [checkpoint.META] if rank == 0 else [])


def publish(found: Published, sealed: Mapping[str, Sealed]) -> int:
    """Give the sealed partial its name, so that it counts; its size in bytes. Call it on one rank."""
    partial, target = _partial_of(found), folder_of(found)

    def act(pulse: Pulse) -> int:
        checkpoint.write_manifest(partial, found.step, sealed)
        pulse.beat()
        partial.rename(target)
        checkpoint.sync_folder(target.parent)
        return sum(file.size_bytes for file in sealed.values())

    with told_as(str(partial)):
        return bounded(str(partial), act)


def shares(sizes: Mapping[str, int], world_size: int) -> list[list[str]]:
    """Names dealt to the ranks, the largest first, each to the rank that has least; the same on every rank."""
    dealt: list[list[str]] = [[] for _ in range(world_size)]
    loads = [0] * world_size
    for name in sorted(sizes, key=lambda name: (-sizes[name], name)):
        rank = loads.index(min(loads))
        dealt[rank].append(name)
        loads[rank] += sizes[name]
    return dealt


def _partial_of(found: Published) -> Path:
    return found.folder.with_name(found.folder.name + ".universal.partial")


@dataclass(frozen=True)
class _Group:
    """One flat group of parameters in one shard: its states by name, and where a parameter's piece begins in them."""

    states: Mapping[str, torch.Tensor]
    step: Any
    pieces: Mapping[str, tuple[int, int]]
    """(start, count) of elements, by parameter."""


class _Shards:
    """The optimizer's shards of a checkpoint of ZeRO 1, 2 or 3, memory-mapped: what is read is what is asked for."""

    def __init__(self, found: Published, beat: Beat) -> None:
        folder = found.folder
        files, before = _shard_files(folder), found.meta["essentials"]["workers.count"]
        if before != len(files):
            there = f"{len(files)} shards lie there of {before} workers"
            raise JobFault(f"{folder}: {there}; restore the folder or remove it")
        self.folder, self.model_file = folder, _model_file(folder)
        self.model = _open(self.model_file, beat)
        self._optimizers = [_open(path, beat)["optimizer_state_dict"] for path in files]
        self._weights_too = int(self._optimizers[0]["zero_stage"]) == 3
        shapes: Iterable[Mapping[str, Any]] = self.model["param_shapes"]
        self._shapes = {
            name: (group, tuple(shape)) for group, named in enumerate(shapes) for name, shape in named.items()
        }
        self.sizes = {name: math.prod(shape) for name, (_, shape) in self._shapes.items()}
        self._groups = [self._read(rank) for rank in range(len(self._optimizers))]
        self._check_states()

    def common(self) -> dict[str, Any]:
        """What the shards agree on: loss scale, clipping, hyperparameters, and at stage 3 the optimizer's step."""
        first = self._optimizers[0]
        if self._weights_too:
            base = first["optimizer_state_dict"]
            steps = {group: {"step": state.get("step")} for group, state in base["state"].items()}
            rest = {
                key: value for key, value in first.items() if key not in ("fp32_flat_groups", "optimizer_state_dict")
            }
            groups = base["param_groups"]
            return {**rest, "optimizer_state_dict": {"state": steps, "param_groups": groups}, "param_groups": groups}
        sharded = {"base_optimizer_state", "param_slice_mappings", "single_partition_of_fp32_groups"}
        rest = {key: value for key, value in first.items() if key not in sharded}
        return {**rest, "param_groups": first["base_optimizer_state"]["param_groups"]}

    def model_state(self) -> dict[str, Any]:
        """Rank 0's model state without the weights, which lie in the parameters' files or are frozen; buffers stay."""
        buffers = {name: self.model["module"][name].clone() for name in self.model["buffer_names"] or ()}
        return {**self.model, "module": buffers, "frozen_param_fragments": None}

    def writing(self, name: str, zero: Path) -> Callable[[Pulse], dict[str, Sealed]]:
        """The act that writes one parameter's weights and optimizer states as whole tensors, in `zero/name/`."""
        return lambda pulse: self._write(name, zero, pulse)

    def _write(self, name: str, zero: Path, pulse: Pulse) -> dict[str, Sealed]:
        group, shape = self._shapes[name]
        holders = [groups[group] for groups in self._groups if name in groups[group].pieces]
        if sum(holder.pieces[name][1] for holder in holders) != self.sizes[name]:
            raise JobFault(f"{self.folder}: the shards hold only parts of {name}; restore the folder or remove it")
        folder, sealed = zero / name, dict[str, Sealed]()
        folder.mkdir()
        for key in holders[0].states:
            pieces = [holder.states[key].narrow(0, *holder.pieces[name]) for holder in holders]
            pulse.beat(checkpoint.flush_s(sum(piece.nbytes for piece in pieces)))  # it is read as it is touched
            whole = torch.cat(pieces)
            # Stage 3 takes flat tensors up; stages 1 and 2 want to know along which dimension tensors were cut.
            content = whole if self._weights_too else {"cat_dim": 0, "param": whole.view(shape)}
            sealed[f"zero/{name}/{key}.pt"] = _write(content, folder / f"{key}.pt", pulse)
        if not self._weights_too and holders[0].step is not None:
            sealed[f"zero/{name}/step.pt"] = _write(holders[0].step, folder / "step.pt", pulse)
        return sealed

    def _read(self, rank: int) -> list[_Group]:
        optimizer = self._optimizers[rank]
        base = optimizer["optimizer_state_dict" if self._weights_too else "base_optimizer_state"]["state"]
        flats = optimizer["fp32_flat_groups" if self._weights_too else "single_partition_of_fp32_groups"]
        return [
            _Group(
                states={"fp32": flat, **{key: value for key, value in base.get(group, {}).items() if key != "step"}},
                step=base.get(group, {}).get("step"),
                pieces=self._cut(rank, group) if self._weights_too else _mapped(optimizer, group),
            )
            for group, flat in enumerate(flats)
        ]

    def _cut(self, rank: int, group: int) -> dict[str, tuple[int, int]]:
        """Where stage 3 keeps this rank's part of every parameter: an equal part each, the last ones padded."""
        pieces, start, ranks = {}, 0, len(self._optimizers)
        for name, (own, _) in self._shapes.items():
            if own == group:
                size = self.sizes[name]
                part = math.ceil(size / ranks)
                pieces[name] = (start, max(0, min(part, size - rank * part)))
                start += part
        return pieces

    def _check_states(self) -> None:
        """InputError where the optimizer keeps a state that is not cut as the weights are."""
        for group in (group for groups in self._groups for group in groups):
            end = max((start + count for start, count in group.pieces.values()), default=0)
            odd = [key for key, value in group.states.items() if not torch.is_tensor(value) or value.numel() < end]
            odd += sorted(group.states.keys() ^ ADAM) if self._weights_too else []
            if odd:
                raise InputError(
                    f"workers.count: the optimizer's {odd[0]!r} fits no other count of workers at ZeRO stage "
                    f"{int(self._optimizers[0]['zero_stage'])}; take AdamW, or run with {len(self._optimizers)}"
                )


def _mapped(optimizer: Mapping[str, Any], group: int) -> dict[str, tuple[int, int]]:
    addresses = optimizer["param_slice_mappings"][group]
    return {name: (address.start, address.numel) for name, address in addresses.items()}


def _write(content: Any, path: Path, pulse: Pulse) -> Sealed:
    with Stream(path, pulse.beat, pulse.beat) as stream:
        serialise(content, stream)
        return stream.seal()


def _open(path: Path, beat: Beat) -> dict[str, Any]:
    beat()
    content: dict[str, Any] = torch.load(str(path), map_location="cpu", mmap=True, weights_only=False)
    return content


def _shard_files(folder: Path) -> list[Path]:
    """The optimizer's shards in the order of the ranks that wrote them."""
    ranks = {
        int(found[1]): path
        for path in folder.glob("*_optim_states.pt")
        if (found := re.match(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_00_", path.name))
    }
    return [ranks[rank] for rank in sorted(ranks)]


def _model_file(folder: Path) -> Path:
    """What every rank reads first: the model's state of rank 0."""
    names = ("mp_rank_00_model_states.pt", "zero_pp_rank_0_mp_rank_00_model_states.pt")
    return next(folder / name for name in names if (folder / name).exists())
