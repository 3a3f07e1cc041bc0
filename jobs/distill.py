"""Distillation: the student learns the teacher's whole next-token distribution.
In: a frozen teacher and the spec's distill section. Out: an objective for the loop in jobs.train.
jobs.engine divides it by the valid tokens of the global batch, so that no worker count changes it.

    loss = alpha * T^2 * KL(teacher_T || student_T) + (1 - alpha) * cross-entropy

with both distributions softened by the temperature T. The factor T^2 keeps the size of the soft gradients, which
shrink as 1/T^2, so that alpha means the same at every T (Hinton, Vinyals and Dean 2015, arXiv:1503.02531, section 2).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from jobs.objective import IGNORED, Objective, cross_entropy, over_chunks
from jobs.spec.job import Distill


def objective(teacher: Any, distill: Distill) -> Objective:
    """The mixed loss summed over valid tokens; `teacher` is a module on the student's device."""
    teacher.requires_grad_(False).eval()

    def mixed(student: Any, inputs: Tensor, labels: Tensor) -> Tensor:
        logits = student(input_ids=inputs, use_cache=False).logits
        with torch.no_grad():
            target = teacher(input_ids=inputs, use_cache=False).logits
        soft = forward_kl(logits, target, labels, distill.temperature)
        if distill.alpha == 1:
            return soft
        return distill.alpha * soft + (1 - distill.alpha) * cross_entropy(logits, labels)

    return mixed


def forward_kl(
    student: Tensor, teacher: Tensor, labels: Tensor, temperature: float, chunk: int | None = None
) -> Tensor:
    """T^2 * KL(teacher || student) in nats, summed over the labels that are not IGNORED, computed in float32.

    Where the vocabularies differ in padding, both are cut to the common part: padding with zero logits would give the
    padding probability. `chunk` is the number of tokens at once; None chooses by memory.
    """
    common = min(student.shape[-1], teacher.shape[-1])

    def part(mine: Tensor, theirs: Tensor, valid: Tensor) -> Tensor:
        log_student = F.log_softmax(mine.float() / temperature, dim=-1)
        log_teacher = F.log_softmax(theirs.float() / temperature, dim=-1)
        divergence = F.kl_div(log_student, log_teacher, reduction="none", log_target=True).sum(dim=-1)
        return divergence.masked_fill(~valid, 0.0).sum()

    rows = student[..., :common].flatten(0, -2), teacher[..., :common].flatten(0, -2)
    return temperature**2 * over_chunks(part, chunk, *rows, (labels != IGNORED).flatten())
