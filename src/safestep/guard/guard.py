"""The guard: has each step measured, decided about and recorded, as soon as all of its optimizers have stepped."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import LBFGS, Optimizer
from torch.utils.hooks import RemovableHandle

from safestep._torch.unwrap import bare
from safestep._torch.warn_once import Once
from safestep.distributed.consensus import ALONE, Peers
from safestep.distributed.ranks import Ranks
from safestep.guard.audit import Audit
from safestep.guard.checkpoint import Saved
from safestep.guard.controller import Controller, Rates, nothing, report_of, still
from safestep.guard.group import Group
from safestep.guard.round import Round, Taken
from safestep.guard.silence import PATIENCE, Elsewhere, Silence
from safestep.guard.stalls import Standstill
from safestep.guard.stub import DetachedGuard
from safestep.heads.head import Head
from safestep.logs.sinks import Sinks
from safestep.policy import Policy
from safestep.radius import Radius
from safestep.radius.deferred import Decision, Later
from safestep.recording.forward_hooks import ForwardRecorder
from safestep.recording.forwards import Forwards
from safestep.recording.logits import LogitsFinder
from safestep.recording.optimizer_hooks import learns_state
from safestep.recording.proposal import Proposal
from safestep.recording.readout import Readout
from safestep.recording.step import Step
from safestep.recording.trained import Trained
from safestep.recording.weak_hook import WeakHook
from safestep.records.reading import Status
from safestep.records.report import History, StepReport

Diagnostic = Callable[[Step, Forwards, StepReport], Mapping[str, float]]
"""Adds columns to a record: called after each measured step with the step, its forwards, and the report so far."""

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
        diagnostics: tuple[Diagnostic, ...],
        log: Sinks,
        history: int,
        skip_nonfinite: bool,
        ranks: Ranks | None,
        max_forwards: int,
        readout: Readout | None,
    ) -> None:
        self._say, self._history, self._log = Once(), History(history), log
        self._controller, self._standstill = Controller(radius, policy, self._say), Standstill(model, self._say)
        self._trained, self._diagnostics = Trained(model, optimizers), diagnostics
        self._elsewhere, self._group = Elsewhere(self._trained), Group(ranks, self._trained)
        self._index = 0
        self._last: StepReport | None = None
        self._pending: _Pending | None = None
        needs = radius.needs
        self._recorder = ForwardRecorder(
            self._trained,
            logits,
            keep=sum(parameter.nbytes for parameter in bare(model).parameters()) if needs.logits else 0,
            tape=needs.tape,
            hold=needs.gradient,
            most=max_forwards,
            readout=readout,
        )
        # Registered last with `prepend`, it runs before anything is recorded of a forward.
        entering = WeakHook(self._before_forward, self._recorder)
        handles = (*self._recorder.handles, model.register_forward_pre_hook(entering, prepend=True))
        self._finalizer = weakref.finalize(self, _close, handles, log)  # holds no guard
        closing: list[Round | Silence] = []
        try:
            self._round = Round(
                optimizers,
                self._trained,
                self._recorder,
                self._group,
                self._say,
                self._after,
                writes=policy.writes,
                skips=skip_nonfinite,
            )
            closing.append(self._round)
            self._silence = Silence(model, optimizers, handles)
            closing.append(self._silence)
            log.open()
        except BaseException:  # an attach that fails leaves nothing behind
            for part in closing:
                part.close()
            for handle in handles:
                handle.remove()
            self._finalizer.detach()
            raise

    @property
    def radius(self) -> Radius:
        """How far a step may go."""
        return self._controller.radius

    @property
    def policy(self) -> Policy:
        """What to do about it."""
        return self._controller.policy

    @property
    def heads(self) -> tuple[Head, ...]:
        """How the loss reads the model's outputs, as far as their gradients show."""
        return tuple(head for head in self._recorder.heads.known.values() if head.kind != "other")

    @property
    def last(self) -> StepReport | None:
        """The report of the last step; None before the first."""
        self._resolve()
        return self._last

    @property
    def history(self) -> History:
        """The latest reports."""
        self._resolve()
        return self._history

    @property
    def attached(self) -> bool:
        """Whether the guard still acts."""
        return self._finalizer.alive and bool(self._trained.optimizers)

    @property
    def trains(self) -> tuple[nn.Module, list[Tensor]]:
        """The model, and the parameters that its optimizers may move."""
        return self._trained.model, self._trained.moving()

    def detach(self) -> None:
        """Remove every hook and close the log; the history stays. Safe to call twice.

        If only some of several optimizers have stepped, their step is decided first.
        """
        try:
            self._round.end()
            self._resolve()
        finally:
            self._round.close()
            self._silence.close()
            self._finalizer()

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
        optimizers have stepped, their step is decided first: call it before the ``state_dict`` of the model.

        Raises:
            TypeError: if a radius or policy remembers what is not plain data.
        """
        self._round.end()
        self._resolve()
        saved = Saved(
            step=self._index,
            undone=self._standstill.undone,
            held=self._standstill.held,
            radius=self._controller.radius_state,
            policy=self._controller.policy_state,
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
        self._resolve()
        self._index, self._standstill.undone, self._standstill.held = saved.step, saved.undone, saved.held
        self._controller.radius_state, self._controller.policy_state = saved.radius, saved.policy
        self._recorder.load_state(saved.forwards)
        self._round.step = Step(self._index)

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
        self._diagnostics = (*self._diagnostics, audit)
        return audit

    def _before_forward(self, *_: object) -> None:
        """Before the model is used where only some of the optimizers have stepped, act on what has moved."""
        self._round.attempt(self._enter)

    def _enter(self) -> None:
        if not self._round.running:
            self._round.end()
            if torch.is_grad_enabled() and self._elsewhere.forward():
                self._say("unheard", _NEVER_STEPS.format(count=PATIENCE, state=self._index or "no"))

    def _after(self, taken: Taken) -> None:
        """Measure a step, decide about it and record it."""
        step, writes = taken.step, self.policy.writes
        try:
            forwards = self._recorder.take(taken.forwards)
            forwards.place, forwards.loss_scale = taken.place, taken.loss_scale
            self._resolve()
            step.index = self._index
            if taken.trouble is not None:
                raise taken.trouble
            step.peers = forwards.peers = self._group.peers(self._index)
            proposal = self._controller.propose(step, forwards)
            if not taken.skipped and self._decided_on_device(proposal, taken):
                return
            self._controller.read_norms(proposal)
            if step.length == 0.0 and learns_state():
                return
            report = self._decided(proposal, taken)
        except BaseException as error:  # such as a step before this one that has poisoned the optimizer
            if writes:
                step.undo()  # never leave an unmeasured step in place
            if writes or not isinstance(error, Exception):
                raise
            report = self._controller.unmeasured(step, error, taken.rates)
        else:
            if report.status not in _NOTHING_PROPOSED:
                report = self._diagnosed(step, forwards, report)
        self._finish(report)
        self._round.step = Step(self._index, step)  # takes over the memory of this one
        self._count(report.status, taken.optimizers, step.peers)

    def _decided(self, proposal: Proposal, taken: Taken) -> StepReport:
        step = proposal.step
        if step.length == 0.0 and taken.skipped:
            reading = nothing(step, "the gradients are not finite")
            return report_of(step, reading, Status.SKIPPED, 0.0, taken.rates)
        if step.length == 0.0:
            return still(step, proposal.target, taken.rates)
        keep = any(not isinstance(diagnostic, Audit) for diagnostic in self._diagnostics)
        return self._controller.decide(proposal, taken.rates, scalable=not _searches(taken.optimizers), keep=keep)

    def _decided_on_device(self, proposal: Proposal, taken: Taken) -> bool:
        """Decide without reading the device, if the radius can and nobody asks for the numbers of each step."""
        if self._diagnostics or _searches(taken.optimizers):
            return False
        decision = self._controller.decide_on_device(proposal)
        if decision is None:
            return False
        if self.policy.writes:
            decision.apply(proposal.step)
        self._pending = proposal.step, Later(decision.numbers), decision, taken.optimizers, taken.rates
        self._elsewhere.stepped()
        self._round.step = Step(self._index, proposal.step)
        return True

    def _resolve(self) -> None:
        """Record a step that was decided on the device, once somebody wants to know."""
        if self._pending is None:
            return
        (step, numbers, decision, stepped, rates), self._pending = self._pending, None
        try:
            report = self._controller.resolve(step, decision, numbers.tolist(), rates)
        except Exception as error:
            if self.policy.writes:
                raise
            report = self._controller.unmeasured(step, error, rates)
        self._finish(report)
        self._round.step.index = self._index
        self._count(report.status, stepped)

    def _diagnosed(self, step: Step, forwards: Forwards, report: StepReport) -> StepReport:
        """Return the report with the columns of the diagnostics."""
        extras: dict[str, float] = {}
        for diagnostic in self._diagnostics:
            try:
                columns = diagnostic(step, forwards, report).items()
                # A tensor or an array's number is no cell of a log, and would be held by the history.
                extras |= {name: value if isinstance(value, (bool, int)) else float(value) for name, value in columns}
            except Exception as error:
                self._say(
                    f"diagnostic {id(diagnostic)}", f"diagnostic {diagnostic!r} failed and is left out: {error!r}"
                )
        return replace(report, extras=extras) if extras else report

    def _finish(self, report: StepReport) -> None:
        self._index += 1
        self._last = report
        self._history.append(report)
        self._elsewhere.stepped()
        self._log(report)

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


_Pending = tuple[Step, Later, Decision, list[Optimizer], Rates]
"""A step that was decided on the device, and what its report needs."""
_NOTHING_PROPOSED = (Status.STILL, Status.SKIPPED)
"""Nothing moved: there is nothing to diagnose, and nothing that could go on for ever."""


def _searches(optimizers: Sequence[Optimizer]) -> bool:
    return any(isinstance(optimizer, LBFGS) for optimizer in optimizers)


def _close(handles: Iterable[RemovableHandle], log: Sinks) -> None:
    for handle in handles:
        handle.remove()
    log.close()
