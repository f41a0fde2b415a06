"""Who takes part: the plain step, what people use already, and a guard by every method, each with its own model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from safestep.bench.cases import RATES, TARGETS, Batch, Case, Situation
from safestep.guard.attach import attach
from safestep.guard.guard import Guard
from safestep.policy import Cap, Policy, Watch
from safestep.radius import CurvatureRadius, Radius, default_limit
from safestep.radius.softmax import Method, SoftmaxRadius
from safestep.records.reading import Status

PLAIN, AGAIN, CLIP, JVP = "plain step", "plain step again", "clip_grad_norm_", "torch.func.jvp"
METHODS: tuple[str, ...] = get_args(Method)
CURVATURE = "curvature radius"
"""Watched, as its steps may go uphill on random labels and would be held: what measuring it costs, beside ``exact``."""
DEFAULT = "default limit"
"""Of `attach`: "inside" most steps are predicted and not measured, "capped" each is measured, and some are held."""

IN_BOTH = (*METHODS, DEFAULT)
"""Those that are compared in both situations, which their names then tell."""

_LARGEST_NORM = 1.0
"""Of the gradient, for ``clip_grad_norm_``."""
_MOST_RECORDS = 1_000_000
"""More than any benchmark has steps."""


@dataclass(frozen=True, slots=True)
class Entrant:
    """What a contestant does.

    Attributes:
        method: one of the softmax radius's, ``CURVATURE``, ``DEFAULT``, or ``PLAIN``, ``AGAIN`` (whose distance from
            the plain step is the error of the benchmark itself), ``CLIP``, ``JVP``.
        situation: whether its steps are far inside the target or beyond it.
    """

    method: str
    situation: Situation

    @property
    def guarded(self) -> tuple[Radius, Policy] | None:
        """What its steps are guarded by; None if they are not."""
        if self.method == CURVATURE:
            return CurvatureRadius(), Watch()
        if self.method == DEFAULT:
            return default_limit(), Cap(TARGETS[self.situation])
        if self.method in METHODS:
            return SoftmaxRadius(method=self.method), Cap(TARGETS[self.situation])  # type: ignore[arg-type]
        return None

    @property
    def wanted(self) -> Status | None:
        """What the records of its steps have to say; None for whatever comes."""
        if self.method == CURVATURE:
            return Status.WATCHED
        if self.method == DEFAULT:
            return None
        return Status.INSIDE if self.situation == "inside" else Status.CAPPED

    def __str__(self) -> str:
        return f"{self.method}, {self.situation}" if self.method in IN_BOTH else self.method


def entries() -> list[Entrant]:
    """Return every contestant, the plain step first.

    Example:
        >>> [str(entry) for entry in entries()][:3]
        ['plain step', 'plain step again', 'clip_grad_norm_']
    """
    situations: tuple[Situation, ...] = get_args(Situation)
    return [
        *(Entrant(method, "inside") for method in (PLAIN, AGAIN, CLIP, JVP, CURVATURE)),
        *(Entrant(method, situation) for method in METHODS for situation in situations),
    ]


class Contestant:
    """Trains a model of its own with AdamW, in one of the ways compared.

    Args:
        entry: in which.
        case: the model; the same initial weights for every contestant.
        device: where.
        rate: AdamW's learning rate; that of the situation by default.

    Attributes:
        entry: as given.
        model: what is trained.
        optimizer: of it.
        guard: of a method that measures, with the records of all its steps.
    """

    def __init__(self, entry: Entrant, case: Case, device: torch.device, rate: float | None = None) -> None:
        self.entry, self._autocast, self._device = entry, case.autocast, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = case.build().to(device)
        rate = RATES[entry.situation] if rate is None else rate
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=rate)
        self.guard: Guard | None = None
        if entry.guarded:
            radius, policy = entry.guarded
            self.guard = attach(self.model, self.optimizer, radius=radius, policy=policy, history=_MOST_RECORDS)

    def train(self, batches: Sequence[Batch]) -> None:
        """Take a step on each batch."""
        for inputs, labels in batches:
            self.optimizer.zero_grad()
            logits = self.forward(inputs)
            nn.functional.cross_entropy(logits.flatten(0, -2), labels.flatten()).backward()
            del logits
            if self.entry.method == CLIP:
                nn.utils.clip_grad_norm_(self.model.parameters(), _LARGEST_NORM)
            if self.entry.method == JVP:
                self._step_by_hand(inputs)
            else:
                self.optimizer.step()

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the model's logits, in the case's precision."""
        with torch.autocast(self._device.type, dtype=self._autocast, enabled=self._autocast is not None):
            logits: Tensor = self.model(inputs)
        return logits

    def _step_by_hand(self, inputs: Tensor) -> None:
        """Cap the step as one would without safestep: differentiate the model along it, from the start."""
        model, parameters = self.model, dict(self.model.named_parameters())
        start = {name: parameter.detach().clone() for name, parameter in parameters.items()}
        self.optimizer.step()

        def logits(tensors: dict[str, Tensor]) -> Tensor:
            buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}  # statistics stay untouched
            with torch.autocast(
                self._device.type, dtype=self._autocast, enabled=self._autocast is not None, cache_enabled=False
            ):
                result: Tensor = functional_call(model, {**tensors, **buffers}, (inputs,))
            return result

        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):  # the fused kernels have no forward derivative
            moves = {name: parameter.detach() - start[name] for name, parameter in parameters.items()}
            change: Tensor = jvp(logits, (start,), (moves,))[1]
            ratio = float((change.amax(-1) - change.amin(-1)).max()) / math.pi
            target = TARGETS[self.entry.situation]
            if ratio > target:
                for name, parameter in parameters.items():
                    parameter.copy_(start[name].lerp(parameter, target / ratio))
