"""Chooses the outputs that a radius measures; LossMismatchError where the loss does not fit it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal

from safestep.errors import LossMismatchError, OneLogitError
from safestep.heads.head import Evidence, Head, Kind
from safestep.heads.output import Output
from safestep.heads.places import Path, named

Wanted = Literal["softmax", "cross_entropy", "sigmoid", "any"]
"""What a radius can measure: heads of a softmax, or of sigmoids where the gradient shows them; of a softmax alone; of
independent sigmoids; or outputs of another loss."""

_TRIES = 3
"""Steps in a row that look hard at an output whose gradient tells too little; later on it is looked at now and then."""

_SQUARES = "squared errors: safestep.attach(model, optimizer, radius=safestep.CurvatureRadius('mse')) or ('half_mse')"
_ELSE = (
    "any other loss: HessianRadius(closure); logits that are not the model's output: attach(..., logits=function); a "
    "fused loss that makes none: attach(..., forward=function); just to look on: policy=Watch()"
)
_OTHER = {
    "softmax": (
        "the loss is no softmax cross-entropy: the gradient at {seen} does not sum to zero over a dimension that could "
        "hold classes, and is not that of sigmoids with labels 0 and 1\n"
        "expected: one of these two, as r = 1 is no boundary of another loss\n"
        f"to do: {_SQUARES}; sigmoids with soft labels or weights: SoftmaxRadius(head='sigmoid'); {_ELSE}"
    ),
    "cross_entropy": (
        "the loss is no softmax cross-entropy: the gradient at {seen} does not sum to zero over a dimension that could "
        "hold classes\n"
        "expected: the loss that the radius is of\n"
        f"to do: {_SQUARES}; independent logits: CurvatureRadius('bce'); {_ELSE}"
    ),
}
_ONE = (
    "one output ({seen}), whose gradient is not that of a sigmoid with labels 0 and 1, or too few or too equal values "
    "show it\n"
    "expected: a binary cross-entropy, or several classes: a softmax over one is 1 whatever the step does\n"
    f"to do: {_SQUARES}; a binary cross-entropy: CurvatureRadius('bce') or SoftmaxRadius(head='sigmoid') there; "
    f"{_ELSE}"
)
_PROBABILITIES = (
    "\nno sample has a largest value beyond 0 to 1: if these are probabilities (the model ends in a Sigmoid or a "
    "Softmax), let it return the logits before that, and train with binary_cross_entropy_with_logits or cross_entropy"
)
_SOFTMAX = (
    "the gradient at {seen} is that of a softmax cross-entropy, and the radius was given another loss: use "
    "CurvatureRadius('cross_entropy'), or the loss that is meant"
)
_LEFT_OUT = (
    "the loss also goes through {name}, a softmax over {classes} classes that logits= leaves out, so that its part of "
    "the step would not be limited: let logits= return all heads, as a tuple or dict"
)
_BESIDE = (
    "a part of the loss goes through {name} of shape {shape}, and is no softmax cross-entropy: r does not see it, only "
    "what goes through the other outputs. For all of the loss: HessianRadius(closure)"
)
_FACTOR = (
    "whether the loss multiplies {name} by a factor (a temperature, the scale of a cosine classifier) cannot be seen "
    "from its gradient (soft labels, or several losses): 1 is assumed. Say it with attach(..., logits=lambda out: "
    "factor * out...), or, if there is none, name the logits themselves: attach(..., logits=lambda out: out...)"
)


class Heads:
    """What the gradients have shown of the outputs of one model.

    Attributes:
        known: how the loss reads each output, as far as its gradient showed.
        upstream: outputs that others are computed from.
        chosen: whether the user has said which outputs count, by ``attach(..., logits=...)``.
        steps: how many steps were resolved.
    """

    def __init__(self, *, chosen: bool = False) -> None:
        self.known: dict[Path, Head] = {}
        self.upstream: set[Path] = set()
        self.chosen, self.steps = chosen, 0
        self._tries: dict[Path, int] = {}
        self._doubts: dict[Path, str] = {}
        self._said: set[Path] = set()

    @property
    def due(self) -> bool:
        """Whether all outputs are to be looked at: at the first step, and at every power of two."""
        return self.steps & (self.steps - 1) == 0

    def looks(self, path: Path) -> bool:
        """Return whether a gradient at an output is evidence that is wanted."""
        head = self.known.get(path)
        if head is None or not head.settled:
            return self.due or self._tries.get(path, 0) < _TRIES
        return self.due or head.factor != 1.0  # a learned temperature moves

    def passed_over(self, path: Path) -> bool:
        """Return whether an output need not be looked at: others are computed from it, and it is no head itself."""
        known = self.known.get(path)
        return path in self.upstream and (known is None or known.kind == "other")

    def axes(self, path: Path, all_axes: tuple[int, ...]) -> tuple[int, ...]:
        """Return the dimensions of an output that may hold the classes."""
        head = self.known.get(path)
        return all_axes if head is None or self.looks(path) else (head.axis,)

    def learn(self, output: Output, loss_scale: float) -> None:
        """Take in what the gradient at an output showed."""
        gathered, output.evidence = output.evidence, []
        for evidence in gathered:
            if (evidence.rows or output.path not in self.known) and self._learnt(output.path, evidence, loss_scale):
                break  # of several backwards through one output the first that tells something
        output.head = self.known.get(output.path)

    def _learnt(self, path: Path, evidence: Evidence, loss_scale: float) -> bool:
        """Take in one piece of evidence; return whether it showed anything."""
        found, known = evidence.head(path, loss_scale), self.known.get(path)
        if found is None or not found.settled:
            self._tries[path] = self._tries.get(path, 0) + 1
        if found is None or (known is not None and known.settled and not found.settled):
            return False
        if known is not None and known.plain and known.factor != 1.0 and not found.plain:
            return False  # a penalty hides the factor now and then: it does not take it back
        if path in self.upstream and not (found.kind == "softmax" and evidence.one_label):
            found = replace(found, kind="other")  # a feature: what reaches it comes from the heads behind it
        self.known[path] = found
        return True

    def measured(self, outputs: Iterable[Output], wanted: Wanted) -> list[Output]:
        """Return the outputs of one forward that a radius measures, each with its head.

        Raises:
            LossMismatchError: if the loss goes through none that it can measure, or through a softmax that is not among
                those that the user has named.
        """
        outputs = list(outputs)
        own = [output for output in outputs if not output.apart]
        reached = [output for output in own if output.reached]
        if not reached:  # a loss within the forward whose gradient cannot be seen, or logits= that makes new tensors
            return self._assumed(own, wanted)
        terminal = [output for output in reached if output.path not in self.upstream] or reached
        if wanted == "sigmoid":
            sure = [output for output in terminal if output.head is not None and output.head.kind == "sigmoid"]
            return [self._as_sigmoids(output) for output in sure or terminal]
        if wanted == "any":
            return self._any(terminal)
        kinds = ("softmax",) if wanted == "cross_entropy" else ("softmax", "sigmoid")
        heads = [output for output in reached if output.head is not None and output.head.kind in kinds]
        heads = heads or self._assumed([output for output in reached if output.head is None], wanted)
        if not heads:
            single = all(output.shape[-1:] == (1,) for output in terminal)
            if single:
                raise OneLogitError(_ONE.format(seen=_listed(terminal)) + _hint(terminal))
            raise LossMismatchError(_OTHER[wanted].format(seen=_listed(terminal)) + _hint(terminal))
        self._check_apart(output for output in outputs if output.apart)
        for output in terminal:
            if output.head is not None and output.head.kind not in kinds:
                self._doubts.setdefault(output.path, _BESIDE.format(name=named(output.path), shape=tuple(output.shape)))
        for output in heads:
            if output.head is not None and not (output.head.plain or self.chosen):
                self._doubts.setdefault(output.path, _FACTOR.format(name=named(output.path)))
        return heads

    def _assumed(self, outputs: list[Output], wanted: Wanted) -> list[Output]:
        """Return the likeliest output while no gradient has shown anything."""
        likely = outputs if self.chosen else likeliest(outputs)
        for output in likely:
            kind: Kind = "other" if wanted == "any" else "sigmoid" if wanted == "sigmoid" else "softmax"
            output.head = self.known.get(output.path) or Head(output.path, kind)
        return likely

    @staticmethod
    def _as_sigmoids(output: Output) -> Output:
        known = output.head
        factor = known.factor if known is not None and known.kind == "sigmoid" else 1.0
        output.head = Head(output.path, "sigmoid", factor=factor, balanced=False)
        return output

    @staticmethod
    def _any(outputs: list[Output]) -> list[Output]:
        known = [output.head for output in outputs if output.head is not None]
        if any(head.kind == "softmax" and head.settled and head.plain and head.balanced for head in known):
            raise LossMismatchError(_SOFTMAX.format(seen=_listed(outputs)))
        for output in outputs:
            output.head = Head(output.path, "other", balanced=False)
        return outputs

    @staticmethod
    def _check_apart(outputs: Iterable[Output]) -> None:
        for output in outputs:
            head = output.head
            if output.reached and head is not None and head.kind == "softmax" and head.settled and head.balanced:
                raise LossMismatchError(_LEFT_OUT.format(name=named(output.path), classes=output.shape[head.axis]))

    def doubts(self) -> list[str]:
        """Return what a user should know of the heads, each thing once."""
        new = [text for path, text in self._doubts.items() if path not in self._said]
        self._said.update(self._doubts)
        return new

    def as_state(self) -> dict[str, Any]:
        """Return plain data, for a checkpoint."""
        return {
            "known": [head.as_state() for head in self.known.values()],
            "upstream": [list(path) for path in sorted(self.upstream, key=str)],
            "steps": self.steps,
            "tries": [[list(path), count] for path, count in self._tries.items()],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from `as_state`; from an empty one as if nothing had been learnt."""
        self.known = {head.path: head for head in map(Head.from_state, state.get("known", ()))}
        self.upstream = {tuple(path) for path in state.get("upstream", ())}
        self.steps = state.get("steps", 0)
        self._tries = {tuple(path): count for path, count in state.get("tries", ())}


def likeliest(outputs: list[Output]) -> list[Output]:
    """Return the output that is called logits, or else the first."""
    called = [output for output in outputs if output.path and str(output.path[-1]).endswith("logits")]
    return (called or outputs)[:1]


def _hint(outputs: list[Output]) -> str:
    """Return what to do where the outputs may be probabilities, as far as the largest value of each row tells."""
    largest = [output.max_logits for output in outputs if output.max_logits.numel()]
    return _PROBABILITIES if largest and all(bool(((one > 0) & (one <= 1)).all()) for one in largest) else ""


def _listed(outputs: list[Output]) -> str:
    return ", ".join(f"{named(output.path)} of shape {tuple(output.shape)}" for output in outputs)
