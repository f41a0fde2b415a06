"""The curvature radius: r = p.Gp / (-2 g.p), the quadratic model of the loss along the step on this batch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar, get_args

from torch import Tensor

from safestep._torch.warn_once import warn
from safestep.errors import UnseenGradientError
from safestep.formulas.quadratic_ratio import curvature_ratio
from safestep.heads.output import Output
from safestep.heads.places import Path, named
from safestep.jvp.selection import Route, as_state, from_state
from safestep.jvp.tangents import Tangents, check_forwards, say_doubts_of_heads, unit_of
from safestep.radius.across_ranks import mean
from safestep.radius.fresh_slope import Along, by_fresh_slope
from safestep.radius.loss_check import doubts
from safestep.radius.losses import LossName, Reduction
from safestep.radius.quadratic_model import QuadraticModel, QuadraticTerms
from safestep.radius.radius import Needs, Radius, State
from safestep.radius.row_sample import Sample, check_sample
from safestep.radius.sampled_curvature import SampleMemory, confirmed, estimate
from safestep.radius.told_loss import Named, ToldLoss, words
from safestep.recording.forward import Forward
from safestep.recording.forwards import Forwards
from safestep.recording.proposal import Proposal
from safestep.records.reading import Reading


@dataclass(frozen=True)
class CurvatureRadius(Radius):
    r"""Limits how far the quadratic model of the loss along the step climbs back.

    Equation:
        ``r = p.Gp / (-2 g.p)`` on the batch of this step, with the Gauss-Newton matrix ``G`` and the gradient ``g`` of
        the loss. ``r = 1/2`` is the length of an exact line search along ``p``; at ``r = 1`` the model has climbed
        back to where it started; plain SGD along an eigenvector of ``G`` has ``r = eta lambda / 2``. With ``a = J p``
        and the gradient ``dL/dz`` at the logits, ``g.p = sum (dL/dz) a``, and ``p.Gp`` is

        ==================  =====================================================
        cross_entropy       mean over samples of ``Var_P(a)``, ``P = softmax(z)``
        bce                 mean over entries of ``P (1 - P) a^2``, ``P = sigmoid(z)``
        half_mse            mean over samples of ``||a||^2``
        mse                 mean over entries of ``2 a^2``
        ==================  =====================================================

    Attributes:
        loss: which loss the loop minimises: ``"cross_entropy"`` of the logits in the last dimension (hard, soft or
            smoothed labels), ``"bce"`` of independent logits, ``"half_mse"`` for ``||z - y||^2 / (2 n)`` over n samples
            (all dimensions but the last), ``"mse"`` for the mean of ``(z - y)^2`` over all entries. None: it is found
            from its gradient at the logits, weights of classes or samples included, see `found_loss`; ``repr(guard)``
            says what was found.
        reduction: ``"mean"``, over all samples of the step, several micro-batches together; or ``"sum"``. Whether the
            loop weighs micro-batches of different sizes by their samples or alike cannot be seen: the weights that
            bend more are taken, and such an r is not called exact. None: a mean, or what is found with the loss.
        scale: the constant that the loop multiplies this loss by. For k micro-batches whose means are added and not
            divided by k it is k. A gradient scaler's factor does not count: it is found and taken out. None: 1, or
            what is found with the loss.
        sample: how much of the batch ``p.Gp`` is measured on: ``"all"``, exactly; or a number of entries (tokens, or
            samples), or a share of them, by one forward of that many without gradients; ``"some"`` is 256 of them, of
            fewer than 1024 a quarter, and never below 64. ``g.p`` is of all rows in any case: the gradients of the
            parameters tell it, clipped or not. Rows are whole, at least two, spread evenly and others in each step;
            the record has the standard error that this leaves.
        fresh: how far r goes by the slope that a fresh batch would find along the step, and not by this batch's, which
            promises too much, since ``p`` was made of its gradient, noise included. ``g.p`` becomes ``nu^fresh g.p``
            with the share ``0.2 <= nu <= 1`` that the next batches found of the last ten steps or so
            (``fresh_share`` in the record): 0 is this batch alone, 1 a fresh one, 1/2 halfway (the geometric mean).

    Raises:
        ValueError: at construction, for an unknown option, a scale that is not positive, or ``fresh`` outside [0, 1].

    Example:
        >>> import torch, safestep
        >>> model = torch.nn.Linear(1, 1, bias=False)
        >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        >>> guard = safestep.attach(model, optimizer, radius=CurvatureRadius("half_mse"), policy=safestep.Watch())
        >>> x = torch.tensor([[2.0]])  # half_mse bends with lambda = 4
        >>> (model(x) - 1.0).square().sum().div(2).backward()
        >>> optimizer.step()
        >>> round(guard.last.ratio, 6)  # eta lambda / 2
        1.0

    Note:
        A step that goes uphill on its own batch, ``g.p >= 0``, has no length that is short enough: r is inf and a guard
        that acts holds the parameters (``"held"``) while the optimizer's state moves on. Where ``a = 0``, r = 0.

        The model is of the loss that is named here, of these logits: penalties, class weights and other heads are not
        in it. At the first step it is said if the gradients hold more than that loss, or are none that a cross-entropy
        leaves; that a squared error is multiplied by a constant cannot be seen. A loss that is found is looked for
        at the first step, and again at the 2nd, 4th, 8th ...: where no loss explains the gradient, such as that of
        squared errors with labels of many values, it has to be named. ``G``
        leaves out how the logits themselves curve: it is exact for a model linear in its parameters, and elsewhere
        says what the linearised model would do. For any other loss, or the Hessian itself, use `HessianRadius`.

        It holds the gradient at the logits, a tensor of their size for each micro-batch, from backward to the step.

        A sample is measured by differences of the logits over a small part of the step (at its end, where it is far
        inside). Where rows cannot be run without each other (BatchNorm in training mode, contrastive losses) the whole
        batch is, by one forward. With dropout they draw masks of their own: as likely as training's, but others. At
        the 1st, 2nd, 4th, 8th ... measurement, wherever the gradients do not tell ``g.p`` (a penalty in the loss,
        gradients clipped layer by layer or zeroed before the last of several optimizers stepped, sharded parameters),
        and where no difference tells the sample, the exact way takes over.

        ``nu`` is what ``g'.q - q.Gq`` is of ``g.q``, for the last step ``q`` as it was applied and the next batch's
        gradient ``g'``, both on up to 32 768 evenly spread coordinates, which are kept. It starts at 1/2 and stays
        where it is where nothing can be learned: with a closure, with sharded parameters, after parameters were changed
        from outside. It goes by the quadratic model; where that fails along a step, so does ``nu``: each step counts
        within [-1, 2].

    Reference:
        M. Blanco Valentin, ENABOL / kappa, experiment 000, whose throttle keeps ``eta lambda`` below 2; J. Martens,
        "New insights and perspectives on the natural gradient method", JMLR 21 (2020), for ``G``.
    """

    loss: LossName | None = None
    reduction: Reduction | None = None
    scale: float | None = None
    sample: Sample = "all"
    fresh: float = 0.0

    agrees_across_ranks: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the options."""
        for name, allowed in {"loss": get_args(LossName), "reduction": get_args(Reduction)}.items():
            if getattr(self, name) not in (None, *allowed):
                raise ValueError(
                    f"{name}={getattr(self, name)!r}: expected one of {', '.join(map(repr, allowed))}; for another "
                    "loss use HessianRadius(closure)"
                )
        if self.scale is not None and not 0.0 < self.scale < math.inf:
            raise ValueError(f"scale={self.scale!r}: expected the positive number that the loss is multiplied by")
        check_sample(self.sample)
        if not 0.0 <= self.fresh <= 1.0:
            raise ValueError(
                f"fresh={self.fresh!r}: expected a number from 0 (this batch's slope) to 1 (a fresh one's)"
            )

    @property
    def needs(self) -> Needs:
        """The gradient at the logits; the recorded training pass, or what a sample goes by; and the last step."""
        whole, fresh = self.sample == "all", self.fresh > 0.0
        return Needs(tape=whole, gradient=True, logits=not whole, factor=not whole or fresh, last=fresh)

    def exact(self) -> CurvatureRadius:
        """Return the same radius on the whole batch, for an audit."""
        return replace(self, sample="all")

    def read_norms(self, proposal: Proposal, state: State) -> None:
        """Read ``g.p`` off the gradients, where a sample or the fresh share needs it."""
        proposal.step.read(directional_derivative=self.sample != "all" or self.fresh > 0.0)

    def found(self, state: State) -> str:
        """Return which loss was found; an empty text for one that was named, or before any was."""
        return words(None if state is None else state.get("loss"))

    def measure(self, proposal: Proposal, state: State) -> tuple[Reading, State]:
        """Return r of a step over the recorded forwards, and what was learned of the model. See `Radius.measure`."""
        if self.fresh:
            return by_fresh_slope(self.fresh, proposal, state, self._by_this_batch)
        reading, later, _ = self._by_this_batch(proposal, state)
        return reading, later

    def _by_this_batch(self, proposal: Proposal, state: State) -> tuple[Reading, dict[str, Any], Along]:
        """Measure by this batch's own slope; return also what the ratio is made of."""
        if self.sample == "all":
            return self._measured(proposal, state)
        memory = SampleMemory.from_state(None if state is None else state["sample"])
        measured = 1 if state is None else state["measured"] + 1
        known = {"measured": measured}
        if measured & (measured - 1):
            told = ToldLoss(self, None if state is None else state.get("loss"), look=False)
            estimated, along, memory = estimate(told, self.sample, proposal, memory)
            if estimated is not None:
                return estimated, {**(state or {}), **known, "sample": memory.as_state()}, along
        reading, later, along = self._measured(proposal, state)
        memory = confirmed(proposal, along, memory)
        memory = replace(memory, rows=memory.rows.measured(proposal.step.length, reading.ratio, along.bend))
        return reading, {**later, **known, "sample": memory.as_state()}, along

    def _measured(self, proposal: Proposal, state: State) -> tuple[Reading, dict[str, Any], Along]:
        """Measure on the whole batch."""
        step, forwards = proposal.step, proposal.forwards
        route = Route() if state is None else from_state(state["route"])
        looked = 0 if state is None else state.get("looked", 1)
        # Until the gradients have shown something, and now and then after that, until a doubt was said.
        check = looked >= 0 and looked & (looked - 1) == 0
        look = check or (self.sample != "all" and looked > 0)  # the whole batch is measured now and then then
        told = ToldLoss(self, None if state is None else state.get("loss"), look=look)
        unit = unit_of(step.length)  # a power of two, the same on all ranks, whatever each finds convenient

        def found() -> QuadraticTerms:
            nonlocal route
            tangents = Tangents(step, forwards, "train", route)
            try:
                models, parts = _added_up(told, forwards, tangents, check=check)
            finally:
                route = tangents.route
            exact, losses = tangents.exact, {path: told.at(path, parts) for path in models}
            found = [_summed(losses[path], model, parts, forwards, exact=exact) for path, model in models.items()]
            return QuadraticTerms(*map(sum, zip(*found, strict=True))).over(unit / tangents.unit)

        # On several ranks the loss is the mean of theirs, and so are both terms of its quadratic model.
        size = len(QuadraticTerms._fields)
        terms = mean(proposal, lambda: [*found(), *told.signature()], size + 2)
        model, (signature, square) = QuadraticTerms(*terms[:size]), terms[size:]
        if look and signature * signature != square:
            told.agree(forwards.peers)
        said = list(told.doubts)
        if check:
            said += doubts(told.main, proposal, model.over(1.0 / unit))
        for doubt in said:
            warn(doubt)
        if check or said:
            shown = model.half_l1_logit_grad != 0.0 or model.directional_derivative != 0.0
            looked = -1 if said else looked + shown
        elif looked > 0:
            looked += 1
        ratio = curvature_ratio(model.curvature, model.directional_derivative) * unit
        uphill = ratio == math.inf and math.isfinite(model.curvature) and model.directional_derivative >= 0.0
        message = "uphill on this batch: g.p >= 0" if uphill else forwards.kept_of_all
        reading = Reading(
            step.index,
            ratio,
            f"{route.way}/train",
            model.rough == 0.0,
            message,
            uphill=uphill,
            standard_error=0.0 if model.rough == 0.0 else math.nan,
            kl=_kl(told.main, model.curvature * unit**2),
        )
        later = {"route": as_state(route), "looked": looked, "loss": told.as_state()}
        whole = model.over(1.0 / unit)
        return reading, later, Along(whole.directional_derivative, whole.curvature)


def _added_up(
    told: ToldLoss, forwards: Forwards, tangents: Tangents, *, check: bool
) -> tuple[dict[Path, QuadraticModel], float]:
    """Measure on this rank, head by head; return also over how many forwards the step went, for each kept one."""
    check_forwards(forwards, lambda seen: _resolve(told, seen))
    counted, stored = _counted(forwards)
    gradients = {id(output): _gradient(output) for forward in counted for output in forward.heads}
    models: dict[Path, QuadraticModel] = {}
    for output, value, tangent in tangents:
        if (gradient := gradients.get(id(output))) is not None:
            terms = told.terms(output, value, gradient, forwards.loss_scale)
            models.setdefault(output.path, QuadraticModel(terms)).add(output, value, tangent, gradient, check=check)
    # dL/dz is of a part of the step's loss, and the forwards that were kept have their share of all parts.
    missing = forwards.dropped - forwards.handed if stored else forwards.dropped
    return models, 1.0 + missing / max(1, len(counted))


def _resolve(told: ToldLoss, forwards: Forwards) -> None:
    forwards.resolve(told.wanted(forwards))
    for forward in _counted(forwards)[0]:
        for output in forward.heads:
            _gradient(output)
    say_doubts_of_heads(forwards)


def _summed(named: Named, model: QuadraticModel, parts: float, forwards: Forwards, *, exact: bool) -> QuadraticTerms:
    whole = named.reduction == "sum"
    return QuadraticTerms(
        named.scale * (parts * model.curvature if whole else model.mean),
        parts * model.directional_derivative / forwards.loss_scale,
        parts * model.half_l1_logit_grad / forwards.loss_scale,
        named.scale * (parts * model.likely if whole else model.likely / model.count),
        float(not (exact and (whole or model.even))),
    )


def _kl(named: Named, curvature: float) -> float:
    """Return the predicted KL divergence, where ``p.Gp`` is the mean of a softmax's variances."""
    told = named.loss == "cross_entropy" and named.reduction == "mean"
    return curvature / (2.0 * named.scale) if told else math.nan


def _counted(forwards: Forwards) -> tuple[list[Forward], bool]:
    """Return the forwards that the loss is made of, and whether some trained.

    Beside forwards that trained, those whose gradients were handed to the caller are attacks or probes.
    """
    stored = forwards.dropped > forwards.handed or any(forward.stored for forward in forwards.kept)
    return [forward for forward in forwards.kept if forward.stored or not stored], stored


def _gradient(output: Output) -> Tensor:
    if output.gradient is None:
        raise UnseenGradientError(
            f"the gradient at {named(output.path)} was not seen (a logits= function that makes a new tensor, or a loss "
            "inside a compiled forward?), so neither is g.p: let the loss go through what the model or logits= "
            "returns, or use HessianRadius(closure)"
        )
    return output.gradient
