"""Packing: compressed where that is faster, and what comes out is what went in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from jobs.checkpoints.packing import Sample, packed, pays, sample, unpacked

MB = 1e6


@pytest.mark.parametrize(
    "pieces", [[], [b""], [b"tide"], [b"\0" * 100_000] * 30, [os.urandom(70_000) for _ in range(9)]]
)
def test_what_is_unpacked_is_what_was_packed(pieces: list[bytes]) -> None:
    assert b"".join(unpacked(packed(pieces))) == b"".join(pieces)


@pytest.mark.parametrize("damage", [lambda c: c[:-3], lambda c: c[:9] + b"\xff\xff" + c[11:], lambda c: b"no" + c])
def test_a_torn_or_changed_stream_is_told(damage) -> None:
    content = b"".join(packed([os.urandom(5_000) + b"\0" * 5_000]))
    with pytest.raises(ValueError, match="Zstandard stream"):
        list(unpacked([damage(content)]))


def test_a_sample_tells_noise_from_zeros_and_spares_small_files(tmp_path: Path) -> None:
    for name, content in {"noise": os.urandom(3 << 20), "zeros": bytes(3 << 20), "small": bytes(1000)}.items():
        (tmp_path / name).write_bytes(content)
    noise, zeros = sample(tmp_path / "noise"), sample(tmp_path / "zeros")
    assert noise is not None and noise.ratio > 0.99
    assert zeros is not None and zeros.ratio < 0.01 and zeros.bytes_per_s > 0
    assert sample(tmp_path / "small") is None


@pytest.mark.parametrize(
    ("found", "bandwidth", "cores", "expected"),
    [
        (Sample(0.5, 400 * MB), 100 * MB, 4, True),  # a slow network: half the bytes, half the time
        (Sample(0.5, 400 * MB), 5000 * MB, 4, False),  # a fast one: the cores cannot keep up
        (Sample(0.5, 400 * MB), 700 * MB, 1, False),  # likewise where there is one core
        (Sample(0.97, 400 * MB), 100 * MB, 4, False),  # weights that are nearly noise: not worth it
        (Sample(0.93, 400 * MB), 100 * MB, 4, True),
        (None, 100 * MB, 4, False),
        (Sample(0.1, 400 * MB), None, 4, False),
    ],
)
def test_it_pays_where_compressing_while_sending_is_faster(
    found: Sample | None, bandwidth: float | None, cores: int, expected: bool
) -> None:
    assert pays(found, bandwidth, cores) is expected
