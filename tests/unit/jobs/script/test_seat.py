"""What a script's process is given: torchrun's variables, the GPUs of its host in the order of local ranks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobs.place import Place
from jobs.script.seat import HOOK, Seat, environment


class Others:
    """The group as one rank sees it: what the other ranks say is given."""

    def __init__(self, place: Place, everyone: list[Any]) -> None:
        self.place, self.everyone = place, everyone

    def each(self, act: Callable[[], Any]) -> list[Any]:
        assert act() == self.everyone[self.place.rank]
        return self.everyone

    def first(self, act: Callable[[], Any]) -> Any:
        return act()


def given(rank: int, seats: list[tuple[str, int, tuple[str, ...]]], **env: str) -> dict[str, str]:
    node, local_rank, gpus = seats[rank]
    place = Place(rank, len(seats), local_rank, "cpu", Path("/checkpoints"), None, "a-1")
    seat = Seat(node, Path("/work"), gpus, env)
    return environment(place, seat, Others(place, seats))  # type: ignore[arg-type]


def test_ranks_of_two_hosts_get_what_torchrun_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "10.0.0.1")
    monkeypatch.setenv("LOWTIDE_ORDER", "ours alone")
    monkeypatch.setenv("PYTHONSAFEPATH", "1")
    seats = [("b", 0, ("3",)), ("a", 1, ("0",)), ("a", 0, ("2",)), ("b", 1, ("1",))]
    env = given(1, seats)
    expected = {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "WORLD_SIZE": "4",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_RANK": "1",
        "MASTER_ADDR": "10.0.0.1",
        "CUDA_VISIBLE_DEVICES": "2,0",  # of host a, so that cuda:1 is GPU 0, which is this rank's
        "LOWTIDE_OUTPUT": "/checkpoints/final",
        "PYTHONPATH": str(HOOK),
    }
    assert expected.items() <= env.items()
    assert int(env["MASTER_PORT"]) > 0 and not {"LOWTIDE_ORDER", "PYTHONSAFEPATH"} & env.keys()


def test_a_rank_with_several_gpus_sees_its_own_and_one_without_is_told_nothing() -> None:
    assert given(1, [("a", 0, ("0", "1")), ("a", 1, ("2", "3"))])["CUDA_VISIBLE_DEVICES"] == "2,3"
    assert given(0, [("a", 0, ())]).get("CUDA_VISIBLE_DEVICES") == given(0, [("b", 0, ())]).get("CUDA_VISIBLE_DEVICES")


def test_the_users_own_path_comes_after_the_hook() -> None:
    assert given(0, [("a", 0, ())], PYTHONPATH="/mine", TOKEN="x")["PYTHONPATH"] == f"{HOOK}:/mine"
    assert given(0, [("a", 0, ())], TOKEN="x")["TOKEN"] == "x"
    assert [path.name for path in HOOK.glob("*.py")] == ["lowtide.py"]
