"""How far the small model's next-token distributions are from the large one's, as a loss that fits into memory.

Knows logits; knows nothing about models, text or training. p is the large model (teacher), q the small one (student).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pipelines.cli import UserError

BUDGET = 2**23  # probabilities of one kind held at once (32 MB in float32); a divergence needs a dozen kinds
HALF = (torch.float16, torch.bfloat16)
NAMES = ("forward_kl", "reverse_kl", "jsd", "total_variation")


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """One of ``NAMES`` between softmax(logits / temperature) of both models.

    forward_kl: KL(p || q). reverse_kl: KL(q || p). jsd: beta KL(p || m) + (1 - beta) KL(q || m) with
    m = beta p + (1 - beta) q; divided by beta it tends to KL(p || q) for beta to 0, divided by 1 - beta to KL(q || p)
    for beta to 1 (Agarwal et al., On-Policy Distillation, ICLR 2024, eq. 1). total_variation: sum |p - q| / 2, which
    is 1 - alpha, Leviathan's acceptance.

    Raises:
        UserError: a value out of range.
    """

    name: str
    beta: float
    """of jsd alone; above 0 and below 1"""
    temperature: float
    """above 0"""
    top_k: int | None
    """compare the teacher's so many likeliest tokens, all others together as one; None = every token by itself"""

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            raise UserError(f"align.divergence={self.name}: choose one of {', '.join(NAMES)}")
        if not 0 < self.beta < 1:
            raise UserError(f"align.beta={self.beta}: give a number above 0 and below 1")
        if not 0 < self.temperature < math.inf:
            raise UserError(f"align.distill_temperature={self.temperature}: give a number above 0")

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """The divergence at each of N positions, (N,), in nats; total variation is in [0, 1].

        Args:
            student_logits: (N, V), float32 or float64.
            teacher_logits: (N, W). Where heads differ in width, what only one of them has is left out: T5 pads its
                head beyond the vocabulary, and no text uses those tokens. Of what only the student has, decoding leaves
                out the same (``bild.tensors.fit_vocabulary``); there the teacher keeps what only it has, of which a
                divergence would be infinite.
        """
        width = min(student_logits.shape[-1], teacher_logits.shape[-1])
        student = student_logits[:, :width] / self.temperature
        teacher = teacher_logits[:, :width].to(student.dtype) / self.temperature
        if self.top_k is None or self.top_k >= width:
            return self._between(student.log_softmax(-1), teacher.log_softmax(-1))
        kept = teacher.topk(self.top_k, dim=-1).indices
        return self._between(_with_tail(student, kept), _with_tail(teacher, kept))

    def _between(self, log_q: Tensor, log_p: Tensor) -> Tensor:
        if self.name == "forward_kl":
            return _kl(log_p, log_q)
        if self.name == "reverse_kl":
            return _kl(log_q, log_p)
        if self.name == "jsd":
            log_m = torch.logaddexp(log_p + math.log(self.beta), log_q + math.log1p(-self.beta))
            return self.beta * _kl(log_p, log_m) + (1 - self.beta) * _kl(log_q, log_m)
        return (log_p.exp() - log_q.exp()).abs().sum(-1) / 2


def _kl(log_a: Tensor, log_b: Tensor) -> Tensor:
    return (log_a.exp() * (log_a - log_b)).sum(-1)


def _with_tail(logits: Tensor, kept: Tensor) -> Tensor:
    """Log-probabilities of the ``kept`` (N, k) tokens and, last, of all others together: (N, k + 1).

    The tail is summed up itself: as 1 minus the rest it would drown in rounding where the teacher is sure.
    """
    tail = logits.scatter(-1, kept, -math.inf).logsumexp(-1, keepdim=True)
    return torch.cat([logits.gather(-1, kept), tail], dim=-1) - logits.logsumexp(-1, keepdim=True)


def total(divergence: Divergence, student_logits: Tensor, teacher_logits: Tensor, counted: Tensor) -> Tensor:
    """Sum of the divergence over the positions where ``counted`` (B, T) is true; gradients reach the student alone.

    Computed for some positions at a time, ``BUDGET`` probabilities of them. Their gradient is computed along with
    them, into one tensor like the student's logits, so that no chunk's intermediate values wait for the backward pass.

    Args:
        student_logits: (B, T, V).
        teacher_logits: (B, T, W).
    """
    return _ChunkedSum.apply(student_logits, teacher_logits, counted, divergence)


class _ChunkedSum(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, student_logits: Tensor, teacher_logits: Tensor, counted: Tensor, divergence: Divergence
    ) -> Tensor:
        gradient = torch.zeros_like(student_logits)
        student, teacher, flat = (tensor.flatten(0, 1) for tensor in (student_logits, teacher_logits, gradient))
        sums = []
        for rows in counted.flatten().nonzero().squeeze(1).split(max(1, BUDGET // student.shape[1])):
            with torch.enable_grad():
                chunk = student[rows].detach()
                wide = (chunk.float() if chunk.dtype in HALF else chunk).requires_grad_()
                value = divergence(wide, teacher[rows]).sum()
            flat[rows] = torch.autograd.grad(value, wide)[0].to(flat.dtype)
            sums.append(value.detach())
        ctx.save_for_backward(gradient)
        return torch.stack(sums).sum()

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor, None, None, None]:
        (gradient,) = ctx.saved_tensors
        return gradient * grad_output.to(gradient.dtype), None, None, None
