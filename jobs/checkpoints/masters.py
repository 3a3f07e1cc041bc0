"""Weights saved once: ZeRO 1 and 2 keep them in the optimizer's shards, too, and more exactly (master weights).
In: a model's state as DeepSpeed would write it; a checkpoint without them. Out: the state without them; a whole model.
`snapshot` leaves them out, a quarter of a checkpoint in fp32 and a seventh in bf16; jobs.engine makes them again.

The end of every step makes the module's weights of the masters, so those made after a load are the same, bit for bit.
Checkpoints that hold both load as they are. DeepSpeed's zero_to_fp32 and the universal form read the masters alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from jobs.spec import JobFault


def are_whole(engine: Any) -> bool:
    """Whether all weights can be made of what the shards of this DeepSpeed engine's optimizer hold."""
    return engine.zero_optimization_stage() in (1, 2) and bool(engine.zero_load_from_fp32_weights())


def held_once(state: dict[str, Any]) -> dict[str, Any]:
    """A model's state without the weights whose shapes it lists, which are the optimizer's; all else stays."""
    module = state.get("module")
    if not module or not state.get("param_shapes"):
        return state
    theirs = _in_shards(state["param_shapes"], state.get("shared_params") or {})
    return {**state, "module": type(module)((name, value) for name, value in module.items() if name not in theirs)}


def take(lacking: list[str], src: Mapping[str, Any], dst: torch.nn.Module) -> None:
    """Load into the module what a checkpoint has, and add to `lacking` the names of what it has not."""
    found = dst.load_state_dict(src, strict=False)
    if found.unexpected_keys:
        raise JobFault(f"the checkpoint holds {found.unexpected_keys[0]}, which is no part of the model")
    lacking.extend(found.missing_keys)


def give(engine: Any, lacking: Iterable[str], folder: Path) -> None:
    """Make the weights that the checkpoint in `folder` lacks of the masters; all ranks call. JobFault for any other."""
    odd = sorted(set(lacking) - _in_shards(engine._get_zero_param_shapes(), _tied(engine.module)))
    if odd:
        raise JobFault(f"{folder}: {odd[0]} is not in it; restore the folder or remove it")
    engine.optimizer.update_lp_params()


def _in_shards(param_shapes: Iterable[Mapping[str, Any]], shared: Mapping[str, str]) -> set[str]:
    """The names of the weights that the optimizer holds, those that are tied to one of them included."""
    names = {name for group in param_shapes for name in group}
    return names | {name for name, source in shared.items() if source in names}


def _tied(module: torch.nn.Module) -> dict[str, str]:
    """Parameters that are others under a second name: the second name, and the first."""
    first: dict[int, str] = {}
    named = module.named_parameters(remove_duplicate=False)
    sources = {name: first.setdefault(id(parameter), name) for name, parameter in named}
    return {name: source for name, source in sources.items() if source != name}
