"""Losses over tokens: against plain references, in chunks, by valid tokens, at every temperature."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from jobs import distill
from jobs.distill import forward_kl
from jobs.objective import IGNORED, cross_entropy, next_token
from jobs.spec.job import Distill, Model


def logits_of(
    seed: int, vocabulary: int = 11, batch: int = 3, length: int = 5, dtype: torch.dtype = torch.float32
) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, length, vocabulary, generator=generator).to(dtype) * 3


def labels_of(ignored: int = 4, vocabulary: int = 11) -> Tensor:
    generator = torch.Generator().manual_seed(9)
    labels = torch.randint(0, vocabulary, (3, 5), generator=generator)
    labels.view(-1)[:ignored] = IGNORED
    return labels


def plain_kl(student: Tensor, teacher: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """The definition, token by token, in float64."""
    total = torch.zeros((), dtype=torch.float64)
    for mine, theirs, label in zip(student.flatten(0, 1), teacher.flatten(0, 1), labels.flatten(), strict=True):
        if label != IGNORED:
            p = torch.softmax(theirs.double() / temperature, dim=0)
            q = torch.softmax(mine.double() / temperature, dim=0)
            total = total + (p * (p.log() - q.log())).sum()
    return total


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_forward_kl_is_its_definition_times_the_temperature_squared(temperature: float) -> None:
    student, teacher, labels = logits_of(1), logits_of(2), labels_of()
    expected = temperature**2 * plain_kl(student, teacher, labels, temperature)
    torch.testing.assert_close(
        forward_kl(student, teacher, labels, temperature).double(), expected, rtol=1e-5, atol=1e-6
    )


def test_forward_kl_is_zero_where_the_student_is_the_teacher_and_not_symmetric() -> None:
    student, teacher, labels = logits_of(1), logits_of(2), labels_of()
    assert float(forward_kl(teacher, teacher, labels, 2.0)) == pytest.approx(0, abs=1e-5)
    assert float(forward_kl(student, teacher, labels, 1.0)) != pytest.approx(
        float(forward_kl(teacher, student, labels, 1.0))
    )


def test_the_temperature_squared_keeps_the_size_of_the_gradient() -> None:
    labels = labels_of(ignored=0)
    sizes = []
    for temperature in (20.0, 80.0):
        student = logits_of(1).requires_grad_()
        forward_kl(student, logits_of(2), labels, temperature).backward()
        assert student.grad is not None
        sizes.append(float(student.grad.norm()))
    assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


@pytest.mark.parametrize("chunk", [1, 4, 15, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_chunks_change_neither_loss_nor_gradient(chunk: int, dtype: torch.dtype) -> None:
    teacher, labels = logits_of(2, dtype=dtype), labels_of()
    found = []
    for size in (None, chunk):
        student = logits_of(1, dtype=dtype).requires_grad_()
        loss = forward_kl(student, teacher, labels, 2.0, size) + cross_entropy(student, labels, size)
        loss.backward()
        found.append((loss.detach(), student.grad))
    torch.testing.assert_close(found[0], found[1])


def test_the_mean_over_valid_tokens_does_not_depend_on_how_ranks_share_them() -> None:
    student, teacher, labels = logits_of(1), logits_of(2), labels_of()
    whole = forward_kl(student, teacher, labels, 2.0) / (labels != IGNORED).sum()
    parts = sum(forward_kl(student[i : i + 1], teacher[i : i + 1], labels[i : i + 1], 2.0) for i in range(3))
    torch.testing.assert_close(parts / (labels != IGNORED).sum(), whole)


def test_vocabularies_padded_differently_are_cut_to_the_common_part() -> None:
    student, teacher, labels = logits_of(1, 11), logits_of(2, 16), labels_of()
    expected = plain_kl(student, teacher[..., :11], labels, 1.0)
    torch.testing.assert_close(forward_kl(student, teacher, labels, 1.0).double(), expected, rtol=1e-5, atol=1e-6)
    swapped = forward_kl(teacher, student, labels, 1.0).double()
    torch.testing.assert_close(swapped, plain_kl(teacher[..., :11], student, labels, 1.0), rtol=1e-5, atol=1e-6)


def test_cross_entropy_is_torchs_sum_over_valid_labels() -> None:
    student, labels = logits_of(1), labels_of()
    expected = F.cross_entropy(student.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")
    torch.testing.assert_close(cross_entropy(student, labels, chunk=2), expected)


class Fixed(torch.nn.Module):
    """A model whose logits are its parameter, with transformers' calling convention."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = torch.nn.Parameter(logits)

    def forward(self, input_ids: Tensor, use_cache: bool) -> Fixed:
        assert input_ids.shape == self.logits.shape[:2] and not use_cache
        return self


@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
def test_alpha_weighs_the_teacher_against_the_labels(alpha: float) -> None:
    student, teacher, labels = Fixed(logits_of(1)), Fixed(logits_of(2)), labels_of()
    settings = Distill(teacher=Model(path="teacher"), temperature=2.0, alpha=alpha)
    mixed = distill.objective(teacher, settings)(student, torch.zeros(3, 5), labels)
    soft, hard = forward_kl(student.logits, teacher.logits, labels, 2.0), cross_entropy(student.logits, labels)
    torch.testing.assert_close(mixed, alpha * soft + (1 - alpha) * hard)


def test_the_teacher_is_frozen_and_learns_nothing() -> None:
    student, teacher = Fixed(logits_of(1)), Fixed(logits_of(2))
    settings = Distill(teacher=Model(path="teacher"), alpha=0.5)
    distill.objective(teacher, settings)(student, torch.zeros(3, 5), labels_of()).backward()
    assert student.logits.grad is not None
    assert teacher.logits.grad is None and not teacher.logits.requires_grad and not teacher.training


def test_next_token_is_the_cross_entropy_of_the_models_logits() -> None:
    student, labels = Fixed(logits_of(1)), labels_of()
    torch.testing.assert_close(next_token(student, torch.zeros(3, 5), labels), cross_entropy(student.logits, labels))
