"""The guard: has each step measured, decided about and recorded, as soon as all of its optimizers have stepped."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from safestep._torch.unwrap import bare
from safestep._torch.warn_once import Once
from safestep.guard.audit import Audit
from safestep.guard.checkpoint import Saved
from safestep.guard.controller import Controller, nothing, report_of, still
from safestep.guard.deferred_step import DeferredStep
from safestep.guard.diagnose import Columns
from safestep.guard.group import Group
from safestep.guard.guard_options import GuardOptions
from safestep.guard.round import Round, Taken
from safestep.guard.silence import Elsewhere, Silence
from safestep.guard.stalls import NOTHING_PROPOSED, Standstill
from safestep.guard.stub import DetachedGuard
from safestep.guard.wind_down import begin
from safestep.heads.head import Head
from safestep.policy import Policy
from safestep.radius import Radius
from safestep.radius.deferred import Later
from safestep.recording.forward_hooks import ForwardRecorder
from safestep.recording.last_step import LastStep
from safestep.recording.optimizer_hooks import learns_state
from safestep.recording.proposal import Proposal
from safestep.recording.step import Step
from safestep.recording.trained import Trained
from safestep.recording.weak_hook import WeakHook
from safestep.records.reading import Status
from safestep.records.report import History, StepReport


class Guard:
    """Watches the steps of an optimizer and keeps them inside. Made by `safestep.attach`."""

    def __init__(self, model: nn.Module, optimizers: Sequence[Optimizer], options: GuardOptions) -> None:
        say, needs, writes = Once(), options.radius.needs, options.policy.writes
        self._history, self._log = History(options.history), options.log
        self._controller = Controller(options.radius, options.policy, say)
        self._standstill = Standstill(model, say, raises=writes)
        self._trained, self._columns = Trained(model, optimizers), Columns(options.diagnostics, say)
        self._elsewhere, self._group = Elsewhere(self._trained, say), Group(options.ranks, self._trained)
        self._index = 0
        self._last: StepReport | None = None
        self._deferred: DeferredStep | None = None
        self._recorder = ForwardRecorder(
            self._trained,
            options.logits,
            keep=sum(parameter.nbytes for parameter in bare(model).parameters()) if needs.logits else 0,
            tape=needs.tape,
            hold=needs.gradient,
            factor=needs.factor,
            most=options.max_forwards,
            readout=options.readout,
        )
        # Registered last with `prepend`, it runs before anything is recorded of a forward.
        entering = WeakHook(self._before_forward, self._recorder)
        handles = (*self._recorder.handles, model.register_forward_pre_hook(entering, prepend=True))
        detached = ExitStack()
        detached.callback(self._log.close)
        for handle in handles:
            detached.callback(handle.remove)
        self._finalizer = weakref.finalize(self, detached.close)  # holds no guard
        closing: list[Round | Silence] = []
        try:
            self._round = Round(
                optimizers,
                self._trained,
                self._recorder,
                self._group,
                say,
                self._after,
                writes=writes,
                skips=options.skips,
                last=needs.last,
                known=options.joins,
            )
            closing.append(self._round)
            self._silence = Silence(model, optimizers, handles)
            closing.append(self._silence)
            self._log.open()
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
            self._recorder.close()
            self._finalizer()

    def __reduce__(self) -> tuple[type[DetachedGuard], tuple[str]]:
        """Return what a copy is: a stub that says so. A guard belongs to this model and this optimizer."""
        return DetachedGuard, (repr(self),)

    def __enter__(self) -> Self:
        """Return the guard itself; leaving the block detaches it."""
        return self

    def __exit__(self, *_: object) -> None:
        """Detach."""
        self.detach()

    def __repr__(self) -> str:
        state = "attached" if self.attached else "detached"
        heads = "; ".join(str(head) for head in self.heads)
        found = self.radius.found(self._controller.radius_state)
        more = f"{heads and f', on {heads}'}{found and f'; loss found: {found}'}"
        return f"<Guard {self.policy} of {self.radius}, {self._index} steps, {state}{more}>"

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
            wind_down=self._controller.wind_down,
            peaks=self._controller.peaks,
            last=None if (last := self._round.last) is None else last.as_state(self._trained.parameters()),
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
        self._controller.wind_down, self._controller.peaks = saved.wind_down, saved.peaks
        self._recorder.load_state(saved.forwards)
        self._round.beginning.known, self._round.step = True, Step(self._index)
        self._round.last = None if saved.last is None else LastStep.from_state(saved.last, self._trained.parameters())

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
        self._columns.diagnostics = (*self._columns.diagnostics, audit)
        return audit

    def wind_down(self, steps: int) -> None:
        """End a run whose length was not known: from the coming step on the target goes linearly to 0.

        The first of these steps has the whole target, the last ``1 / steps`` of it, and there the run is to stop; its
        checkpoints hold how far it is. On several ranks all call it at the same step. A checkpoint from before goes on
        as if it had not been called. Where the length is known: ``Cap(schedule=DecayAtEnd(total))``. What a limit that
        follows the learning rates takes off the target goes on top.

        Args:
            steps: at least 1; 3/7 of those taken so far make 30 % of the whole run.

        Raises:
            ScheduleError: for what is no number of steps, a second wind-down, or a policy that aims at no target.

        Example:
            >>> import torch, safestep
            >>> model = torch.nn.Linear(4, 3)
            >>> guard = safestep.attach(model, torch.optim.SGD(model.parameters(), lr=10.0), policy=safestep.Pin(0.5))
            >>> guard.wind_down(2_000)

        Reference:
            A. Hägele et al., arXiv 2405.18392: a constant rate and a cooldown, instead of a length fixed beforehand.
        """
        self._resolve()  # the index counts what was recorded
        self._controller.wind_down = begin(self.policy, self._index, steps, self._controller.wind_down)

    def _before_forward(self, *_: object) -> None:
        """Before the model is used where only some of the optimizers have stepped, act on what has moved."""
        if not self._round.running:
            self._round.attempt(self._round.end)
            if torch.is_grad_enabled():
                self._round.attempt(self._elsewhere.forward, self._index)

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
            proposal = self._controller.propose(step, forwards, taken.schedule)
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
            if report.status not in NOTHING_PROPOSED:
                report = self._columns.add(step, forwards, report)
        self._finish(report)
        self._round.follow(self._index, step)
        self._standstill.count(report.status, taken.optimizers, step.peers)

    def _decided(self, proposal: Proposal, taken: Taken) -> StepReport:
        step = proposal.step
        if step.length == 0.0 and taken.skipped:
            reading = nothing(step, "the gradients are not finite")
            return report_of(step, reading, Status.SKIPPED, 0.0, taken.rates)
        if step.length == 0.0:
            return still(step, proposal.target, taken.rates)
        scalable, keep = not taken.searched, self._columns.need_displacement
        return self._controller.decide(proposal, taken.rates, scalable=scalable, keep=keep)

    def _decided_on_device(self, proposal: Proposal, taken: Taken) -> bool:
        """Decide without reading the device, if the radius can and nobody asks for the numbers of each step."""
        if self._columns.wanted or taken.searched:
            return False
        decision = self._controller.decide_on_device(proposal)
        if decision is None:
            return False
        if self.policy.writes:
            decision.apply(proposal.step)
        self._deferred = DeferredStep(taken, decision, Later(decision.numbers))
        self._elsewhere.stepped()
        self._round.follow(self._index, proposal.step)
        return True

    def _resolve(self) -> None:
        """Record a step that was decided on the device, once somebody wants to know."""
        deferred, self._deferred = self._deferred, None
        if deferred is None:
            return
        report = deferred.report(self._controller)
        self._finish(report)
        self._round.step.index = self._index
        self._standstill.count(report.status, deferred.taken.optimizers)

    def _finish(self, report: StepReport) -> None:
        self._index += 1
        self._last = report
        self._history.append(report)
        self._elsewhere.stepped()
        self._log(report)
