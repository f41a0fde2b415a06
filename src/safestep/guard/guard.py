"""The guard: copies the parameters before each step, measures, decides, rescales and records after it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.utils.hooks import RemovableHandle

from safestep._torch.unwrap import bare
from safestep._torch.warn_once import Once
from safestep.distributed.consensus import ALONE, Peers
from safestep.distributed.fsdp import held_back
from safestep.distributed.ranks import Ranks
from safestep.errors import AttachError
from safestep.guard.audit import Audit
from safestep.guard.checkpoint import Saved
from safestep.guard.decision import Judge, nothing, report_of, still
from safestep.guard.silence import PATIENCE, Elsewhere, Silence
from safestep.guard.stalls import Standstill
from safestep.guard.stub import DetachedGuard
from safestep.guard.validation import is_scaler_step
from safestep.heads.head import Head
from safestep.logs.sinks import Sinks
from safestep.policy import Policy
from safestep.radius import Radius
from safestep.radius.deferred import Decision, Later
from safestep.recording.forward import Seen
from safestep.recording.forward_hooks import ForwardRecorder
from safestep.recording.logits import LogitsFinder
from safestep.recording.nonfinite import WithheldGradients, all_finite, parameters_of
from safestep.recording.optimizer_hooks import StepHooks, in_backward, learns_state, loss_scale
from safestep.recording.readout import Readout
from safestep.recording.step import Step
from safestep.records.reading import Status
from safestep.records.report import History, StepReport, number

Probe = Callable[[Step, Seen, StepReport], Mapping[str, float]]
"""Adds columns to a record: called after each measured step with the step, what was seen, and the report so far."""

_IN_BACKWARD = (
    "an optimizer stepped while backward was still running (optimizer-in-backward): there is no single step of the "
    "whole model to measure. Step after backward, or detach the guard"
)

_WRITTEN = (
    "the parameters were written to after some of several optimizers had stepped and before the others did (a "
    "checkpoint loaded, averaged weights swapped in?), so that step can no longer be measured: it is left as it is, "
    "without a record"
)


_NEVER_STEPS = (
    "the parameters were written to between {count} training forwards, and the optimizer of this guard took no step in "
    "between ({state} so far): another optimizer trains the model, and nothing is kept inside. A trainer that makes "
    "its own optimizer, or one made anew? detach() this guard and attach(model, the optimizer that steps)"
)


class Guard:
    """Watches the steps of an optimizer and keeps them inside. Made by `safestep.attach`."""

    def __init__(
        self,
        model: nn.Module,
        optimizers: Sequence[Optimizer],
        radius: Radius,
        policy: Policy,
        logits: LogitsFinder | None,
        probes: tuple[Probe, ...],
        log: Sinks,
        history: int,
        skip_nonfinite: bool,
        ranks: Ranks | None,
        max_forwards: int,
        readout: Readout | None,
    ) -> None:
        self._say, self._history = Once(), History(history)
        self._judge, self._standstill = Judge(radius, policy, self._say), Standstill(model, self._say)
        self._model, self._probes, self._skip_nonfinite = model, probes, skip_nonfinite
        self._optimizers = [weakref.ref(optimizer) for optimizer in optimizers]
        self._log = log
        self._last: StepReport | None = None
        self._ranks, self._known_peers = ranks, None if ranks else ALONE
        self._index, self._loss_scale = 0, 1.0
        self._step, self._counted, self._began, self._ended, self._place = Step(0), 0, 0, 0, 0
        self._withheld: dict[int, WithheldGradients] = {}
        self._rates: tuple[float, ...] = ()  # of the running step: when it is judged a scheduler may have stepped
        self._pending: tuple[Step, Later, Decision, list[Optimizer], tuple[float, ...]] | None = None
        self._elsewhere_trained = Elsewhere(self._moving)
        self._trouble: Exception | None = None  # what failed under a policy that only watches, before its step ended
        needs = radius.needs
        keep = sum(parameter.nbytes for parameter in bare(model).parameters()) if needs.logits else 0
        moving = self._moving if needs.tape else None
        self._recorder = ForwardRecorder(
            model,
            logits,
            partial(self._kept, self._entering),
            self._stored,
            self._elsewhere,
            keep,
            moving,
            self._version,
            needs.gradient,
            max_forwards,
            readout,
        )
        self._finalizer = weakref.finalize(self, _close, self._recorder.handles, log)  # holds no guard
        try:
            self._hooks = StepHooks(
                optimizers,
                partial(self._kept, self._before),
                partial(self._kept, self._between),
                self._after,
                partial(self._kept, self._abandoned),
            )
            self._silence = Silence(model, optimizers, self._recorder.handles)
            log.open()
        except BaseException:  # an attach that fails leaves nothing behind
            self._unhook()
            self._recorder.close()
            self._finalizer.detach()
            raise

    @property
    def radius(self) -> Radius:
        """How far a step may go."""
        return self._judge.radius

    @property
    def policy(self) -> Policy:
        """What to do about it."""
        return self._judge.policy

    @property
    def heads(self) -> tuple[Head, ...]:
        """How the loss reads the model's outputs, as far as their gradients have told."""
        return tuple(head for head in self._recorder.heads.known.values() if head.kind != "other")

    @property
    def last(self) -> StepReport | None:
        """The report of the last step; None before the first."""
        self._settle()
        return self._last

    @property
    def history(self) -> History:
        """The latest reports."""
        self._settle()
        return self._history

    @property
    def attached(self) -> bool:
        """Whether the guard still acts."""
        return self._finalizer.alive and bool(self._alive())

    @property
    def trains(self) -> tuple[nn.Module, list[Tensor]]:
        """The model, and the parameters that its optimizers may move."""
        return self._model, self._moving()

    def detach(self) -> None:
        """Remove every hook and close the log; the history stays. Safe to call twice.

        If only some of several optimizers have stepped, their step is judged first.
        """
        try:
            self._end_round()
            self._settle()
        finally:
            self._unhook()
            self._finalizer()

    def _unhook(self) -> None:
        for closing in (getattr(self, "_hooks", None), getattr(self, "_silence", None)):
            if closing is not None:
                closing.close()

    def __reduce__(self) -> tuple[type[DetachedGuard], tuple[str]]:
        """Return what a copy is: a stub that says so. A guard belongs to this model and this optimizer."""
        return DetachedGuard, (repr(self),)

    def __enter__(self) -> Self:
        """Return the guard itself; leaving the block detaches it."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Detach."""
        self.detach()

    def __repr__(self) -> str:
        state = "attached" if self.attached else "detached"
        heads = "; ".join(str(head) for head in self.heads)
        return f"<Guard {self.policy} of {self.radius}, {self._index} steps, {state}{heads and f', on {heads}'}>"

    def state_dict(self) -> dict[str, Any]:
        """Return what must survive a restart: numbers and texts, under keys that are always the same.

        They go through ``torch.load(weights_only=True)`` and through ``torch.distributed.checkpoint``, see
        ``docs/resume.md``. The history is not part of it; the log is the complete record. If only some of several
        optimizers have stepped, their step is judged first: call it before the ``state_dict`` of the model.

        Raises:
            TypeError: if a radius or policy remembers what is not plain data.
        """
        self._end_round()
        self._settle()
        saved = Saved(
            step=self._index,
            undone=self._standstill.undone,
            held=self._standstill.held,
            radius=self._judge.radius_state,
            policy=self._judge.policy_state,
            forwards=self._recorder.as_state(),
        )
        return saved.as_state(self.radius, self.policy)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state_dict`; a run stopped and resumed equals one that was not.

        Raises:
            ValueError: if the state is of an unknown version, of a guard with another radius or policy, or damaged.
                Nothing was changed then.
        """
        saved = Saved.of(state, self.radius, self.policy)
        self._settle()
        self._index, self._standstill.undone, self._standstill.held = saved.step, saved.undone, saved.held
        self._judge.radius_state, self._judge.policy_state = saved.radius, saved.policy
        self._recorder.load_state(saved.forwards)
        self._step = Step(self._index)

    def audit(self, fraction: float = 1.0) -> Audit:
        """Measure a share of the steps again, exactly, after they were applied; training stays what it is.

        Not so under ``sync="never"``: with an audit the guard reads the numbers of every step, as under ``"auto"``.

        Args:
            fraction: the share of the coming steps to audit, in (0, 1].

        Returns:
            The audit: how many steps went beyond the target and how far. ``print`` it at any time. The records of
            audited steps have a column ``audited_ratio``.

        Raises:
            ValueError: for a fraction outside (0, 1].

        Example:
            >>> import torch, safestep
            >>> model = torch.nn.Linear(4, 3)
            >>> guard = safestep.attach(model, torch.optim.SGD(model.parameters(), lr=0.1))
            >>> guard.audit(0.1)
            <audit: no step audited yet>
        """
        audit = Audit(self.radius.exact(), fraction)
        self._probes = (*self._probes, audit)
        return audit

    # -- before a step --------------------------------------------------------------------------------------------

    def _alive(self) -> list[Optimizer]:
        return [optimizer for ref in self._optimizers if (optimizer := ref()) is not None]

    @property
    def _peers(self) -> Peers:
        """The other ranks, known from the first step on: by then the model is sharded, and the optimizer prepared."""
        if self._known_peers is None and self._ranks is not None:
            self._known_peers = self._ranks.peers(self._model, self._moving())
        peers = self._known_peers or ALONE
        if peers is not ALONE:
            peers.step = self._index
        return peers

    def _entering(self) -> None:
        """Before the model is used where only some of the optimizers have stepped, act on what has moved."""
        if not self._hooks.running:
            self._end_round()
            if torch.is_grad_enabled() and self._elsewhere_trained.seen():
                self._say("unheard", _NEVER_STEPS.format(count=PATIENCE, state=self._index or "no"))

    def _kept(self, act: Callable[..., None], *given: object) -> None:
        """Do something for a step; under a policy that only watches, what fails is kept for the report of the step."""
        try:
            act(*given)
        except Exception as error:
            if self.policy.writes:
                raise
            self._trouble = self._trouble or error

    def _end_round(self) -> None:
        """Judge the step of those optimizers that have stepped, where the others will not; drop one that raised."""
        raised = self._hooks.recover()
        if raised:  # what was seen before a step that raised half way cannot be repeated after it
            self._recorder.take(self._recorder.count)
        if not self._hooks.waiting:
            return
        written = self._version() != self._ended
        if raised or written:
            self._hooks.drop()
            if written:
                self._say("written", _WRITTEN)
            elif self.policy.writes:
                self._step.undo()  # never leave an unmeasured step in place
            self._step = Step(self._index)
        else:
            self._hooks.finish()

    def _gradients(self) -> list[Tensor]:
        parameters = (p for optimizer in self._alive() for p in parameters_of(optimizer))
        return [gradient for parameter in parameters if (gradient := parameter.grad) is not None]

    def _stored(self) -> list[Tensor]:
        """Return what backward leaves behind, in the parameters or in units that have not synchronised yet."""
        return self._gradients() + held_back(bare(self._model))

    def _moving(self) -> list[Tensor]:
        return [p for optimizer in self._alive() for p in parameters_of(optimizer) if p.requires_grad]

    def _elsewhere(self) -> bool:
        """Return whether the running step has moved already: a closure then does not look at theta_0."""
        return self._hooks.running and self._version() != self._began

    def _version(self) -> int:
        return sum(p._version for optimizer in self._alive() for p in parameters_of(optimizer))

    def _before(self, optimizer: Optimizer, closure: object) -> None:
        if in_backward():
            raise AttachError(_IN_BACKWARD)
        self._began, scale = self._version(), loss_scale()
        if not self._step.start:
            self._place, self._loss_scale = self._began, 1.0
        self._loss_scale = scale if scale != 1.0 else self._loss_scale  # of several, one may step without the scaler
        self._step.remember(parameters_of(optimizer))
        looks = self._skip_nonfinite and self.policy.writes and closure is None and not is_scaler_step(optimizer)
        if looks and not self._peers.every(all_finite(self._gradients())):
            self._withheld[id(optimizer)] = WithheldGradients(parameters_of(optimizer))

    def _between(self, optimizer: Optimizer) -> None:
        self._counted = self._recorder.count
        self._ended = self._version() if len(self._optimizers) > 1 else 0
        self._rates = tuple(number(g.get("lr")) for optimizer in self._alive() for g in optimizer.param_groups)
        if id(optimizer) in self._withheld:
            self._withheld[id(optimizer)].give_back()

    def _abandoned(self, optimizer: Optimizer) -> None:
        failed, parameters = Step(self._index), parameters_of(optimizer)
        failed.start = {q: self._step.start[q] for q in parameters if q in self._step.start}
        self._step.forget(parameters)
        # What moved before the error stays, as without a guard; somebody may have written to it since.
        if self.policy.writes and not all_finite(failed.start):
            failed.undo()
        if (withheld := self._withheld.pop(id(optimizer), None)) is not None:
            withheld.give_back()

    # -- after a step ---------------------------------------------------------------------------------------------

    def _after(self, stepped: list[Optimizer]) -> None:
        step, (trouble, self._trouble) = self._step, (self._trouble, None)
        skipped, self._withheld = bool(self._withheld), {}
        self._step = Step(self._index)
        try:
            seen = self._recorder.take(self._counted)
            seen.place, seen.loss_scale = self._place, self._loss_scale
            self._settle()
            step.index = self._index
            if trouble is not None:
                raise trouble
            step.peers = seen.peers = self._peers
            self._judge.aim(step)
            if not skipped and self._foreseen(step, seen, stepped):
                return
            self._judge.look(step, seen)
            if step.length == 0.0 and learns_state():
                return
            report = self._judged(step, seen, stepped, skipped=skipped)
        except BaseException as error:  # such as a step before this one that has poisoned the optimizer
            if self.policy.writes:
                step.undo()  # never leave an unmeasured step in place
            if self.policy.writes or not isinstance(error, Exception):
                raise
            report = self._judge.unmeasured(step, error, self._rates)
        else:
            if report.status not in _NOTHING_PROPOSED:
                report = self._probe(step, seen, report)
        self._finish(report)
        self._step = Step(self._index, step)  # takes over the memory of this one
        self._count(report.status, stepped, step.peers)

    def _judged(self, step: Step, seen: Seen, stepped: list[Optimizer], *, skipped: bool) -> StepReport:
        """Measure, decide and write what was looked at."""
        if step.length == 0.0 and skipped:
            reading = nothing(step, "the gradients are not finite")
            return report_of(step, reading, Status.SKIPPED, 0.0, self._rates)
        if step.length == 0.0:
            return still(step, self._rates)
        scalable, keep = not _searches(stepped), any(not isinstance(probe, Audit) for probe in self._probes)
        return self._judge.judge(step, seen, self._rates, scalable=scalable, keep=keep)

    def _count(self, status: Status, stepped: list[Optimizer], peers: Peers = ALONE) -> None:
        """Count steps in a row that stood still for a reason."""
        if status in _NOTHING_PROPOSED:
            return
        try:
            self._standstill.count(status, stepped, peers)
        except Exception as error:
            if self.policy.writes:
                raise
            self._say("standstill", str(error))

    def _foreseen(self, step: Step, seen: Seen, stepped: list[Optimizer]) -> bool:
        """Decide without reading the device, if the radius can and nobody asks for the numbers of each step."""
        decision = None if self._probes or _searches(stepped) else self._judge.foresee(step, seen)
        if decision is None:
            return False
        if self.policy.writes:
            decision.apply(step)
        self._pending = step, Later(decision.numbers), decision, stepped, self._rates
        self._elsewhere_trained.stepped()
        self._step = Step(self._index, step)
        return True

    def _settle(self) -> None:
        """Record a step that was decided on the device, once somebody wants to know."""
        if self._pending is None:
            return
        (step, numbers, decision, stepped, lrs), self._pending = self._pending, None
        try:
            settled = self._judge.settle(step, decision, numbers.tolist(), lrs)
        except Exception as error:
            if self.policy.writes:
                raise
            settled = self._judge.unmeasured(step, error, lrs)
        following = self._step
        self._finish(settled)
        self._step, following.index = following, self._index
        self._count(settled.status, stepped)

    def _probe(self, step: Step, seen: Seen, report: StepReport) -> StepReport:
        extras: dict[str, float] = {}
        for probe in self._probes:
            try:
                columns = probe(step, seen, report).items()
                # A tensor or an array's number is no cell of a log, and would be held by the history.
                extras |= {name: value if isinstance(value, (bool, int)) else float(value) for name, value in columns}
            except Exception as error:
                self._say(f"probe {id(probe)}", f"probe {probe!r} failed and is left out: {error!r}")
        return replace(report, extras=extras) if extras else report

    def _finish(self, report: StepReport) -> None:
        self._index += 1
        self._step = Step(self._index)
        self._last = report
        self._history.append(report)
        self._elsewhere_trained.stepped()
        self._log(report)


_NOTHING_PROPOSED = (Status.STILL, Status.SKIPPED)
"""Nothing moved: there is nothing to probe, and nothing that could go on for ever."""


def _searches(optimizers: Sequence[Optimizer]) -> bool:
    return any(isinstance(optimizer, LBFGS) for optimizer in optimizers)


def _close(handles: Iterable[RemovableHandle], log: Sinks) -> None:
    for handle in handles:
        handle.remove()
    log.close()
