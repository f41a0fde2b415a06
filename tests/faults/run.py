"""Plays a schedule: takes its steps, brings its faults about, and does after each what a careful user would do."""

from __future__ import annotations

import contextlib
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from faults.book import Book, Broken, ensure
from faults.forecast import AFTER, BEFORE, HALF_WAY, Forecast, foretell
from faults.schedule import Plan, Schedule
from faults.task import SAMPLES, data
from faults.training import Training, finite
from faults.truth import Call, true_ratio
from safestep import PoisonedOptimizerError, SafestepWarning

CLEAN = 20
"""Steps without a fault at the end, which must lower the loss."""


class Boom(Exception):
    """A fault."""


class Interrupt(KeyboardInterrupt):
    """A fault, as from the keyboard."""


class Killed(BaseException):
    """The run ends here, and goes on from its last checkpoint."""


class Run:
    """One run of a schedule.

    Attributes:
        faults: how many of each kind happened.
        steps: how many steps were begun, repeated ones included.
        book: what had to happen.
        losses: before and after the clean steps.
    """

    def __init__(self, schedule: Schedule, folder: Path, device: str = "cpu") -> None:
        self.schedule, self._device = schedule, device
        self._log = folder / f"{schedule.seed}.jsonl"
        self._x, self._y = (tensor.to(device) for tensor in data())
        self.book = Book(schedule.setting, self._log)
        self.faults: Counter[str] = Counter()
        self.steps, self.losses = 0, (0.0, 0.0)
        setting = schedule.setting
        self._knows_truth = (
            setting.method == "exact" and setting.policy != "throttle" and "dropout" not in setting.model
        )
        self._calls: list[Call] = []  # forwards whose gradients are in place
        self._over: set[int] = set()  # positions whose kill has happened
        self._known: set[int] = set()  # positions whose fault has been counted
        self.training = self._build()
        self._saved, self._saved_at = self.training.save(), 0

    def play(self) -> None:
        """Play the schedule to its end.

        Raises:
            Broken: if something is not as it had to be.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SafestepWarning)
            warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step", category=UserWarning)
            plans = list(self.schedule.plans)
            self._through(plans)
            before = self.training.loss(self._x, self._y)
            self._through(plans + [Plan((SAMPLES,))] * CLEAN, at=len(plans))
            self.losses = before, self.training.loss(self._x, self._y)
            self._finish()
        ensure(finite(self.training.parameters()), "the parameters are not finite")
        ensure(self.losses[1] < self.losses[0], f"{CLEAN} clean steps did not lower the loss: {self.losses}")

    def _through(self, plans: list[Plan], at: int = 0) -> None:
        position = at
        while position < len(plans):
            plan = plans[position]
            try:
                self._step(position, plan)
                if self.schedule.setting.policy == "watch" and not finite(self.training.parameters()):
                    raise Killed
                self._after_step(position + 1)
            except Killed:
                watched = self.schedule.setting.policy == "watch" and not finite(self.training.parameters())
                if watched:  # a user who only watches has to start again, without the bad batch
                    plans[position] = replace(plan, fault="")
                self._over.add(position)
                self._resume(position if watched else None, tear=7 if plan.where == "torn log" else 0)
                position = self._saved_at
                continue
            position += 1

    def _after_step(self, position: int) -> None:
        if position % self.schedule.setting.every:
            return
        try:
            saved = self.training.save()
        except PoisonedOptimizerError:  # of a step that was decided on the device
            self.book.poisoned()
            self.training.heal(None)
            saved = self.training.save()
        self.book.arrived(self.training.parameters())
        self.book.save()
        self._saved, self._saved_at = saved, position

    def _build(self) -> Training:
        return Training(self.schedule.setting, self.schedule.seed, self._log, self._device)

    def _resume(self, since: int | None, tear: int) -> None:
        self.book.close(killed=True)
        self.book.reopen(since=since, tear=tear)
        self.training = self._build()  # nothing but the bytes of the checkpoint is left of the one before
        self.training.load(self._saved)

    def _finish(self) -> None:
        with contextlib.suppress(PoisonedOptimizerError):
            self.training.guard.detach()
        self.book.arrived(self.training.parameters())
        self.book.close(killed=False)

    # -- one step -----------------------------------------------------------------------------------------------------

    def _step(self, position: int, plan: Plan) -> None:
        fault = "" if plan.fault == "kill" and position in self._over else plan.fault
        where = plan.where if fault == "kill" else ""
        if fault and position not in self._known:
            self.faults[fault] += 1
        if position not in self._known:
            usual = (
                position == 0 or plan.sizes == self.schedule.plans[min(position, len(self.schedule.plans)) - 1].sizes
            )
            self.faults["batch size"] += not usual
        self._known.add(position)
        self.steps += 1
        training, scaler = self.training, self.training.scaler
        _die(where == "before forward")
        error: BaseException = (Interrupt if plan.interrupt else Boom)(fault)
        owed = self.book.owed
        forecast: Forecast | None = None
        try:
            training.zero()
            self._calls = []
            self._backward(position, replace(plan, fault=fault), error)
            if fault == "evaluation":
                training.loss(self._x, self._y)
            if fault in ("overflow", "nan"):
                self._poke(plan.optimizer, float("inf" if fault == "overflow" else "nan"))
            overflowed = training.overflowed()
            unscaled = self._clip()
            _die(where == "before step")
            stop = plan.optimizer % len(training.optimizers), fault
            with self._lengthened(fault == "spike"):
                forecast = foretell(
                    training, stop if fault in (BEFORE, HALF_WAY, AFTER) else None, overflowed, unscaled=unscaled
                )
                if forecast.kind == "applied" and self._knows_truth:
                    forecast.ratio = true_ratio(training.model, forecast.start, forecast.end, self._calls)
                self.book.write(position, forecast)
                for index, optimizer in enumerate(training.optimizers):
                    with _raising(optimizer, fault if index == stop[0] else "", error):
                        (optimizer.step if scaler is None else lambda one=optimizer: scaler.step(one))()
                    if where == "between steps" and index == 0 and len(training.optimizers) == 2:
                        self.book.cut()
                        raise Killed
        except PoisonedOptimizerError:
            if owed and forecast is not None and forecast.kind:
                self.book.strike()
                forecast = None
            self.book.poisoned()
            training.heal(self._saved if plan.reload else None)
        except (Boom, Interrupt) as caught:
            ensure(caught is error, f"another error than the fault: {caught!r}")
        except Killed:
            raise
        except BaseException as unexpected:
            raise Broken(f"at {position} ({plan}): {type(unexpected).__name__}: {unexpected}") from unexpected
        if forecast is not None and not forecast.late:
            forecast.after = training.parameters()
        if forecast is not None and forecast.kind and not forecast.late and "never" not in self.schedule.setting.method:
            ensure(not self.book.owed, f"no PoisonedOptimizerError after {self.book.undone} undone steps in a row")
        if scaler is not None:
            with contextlib.suppress(AssertionError):  # an error before the gradients were looked at
                scaler.update()
        for schedule in training.schedules:
            schedule.step()
        _die(where in ("after step", "torn log"))

    def _backward(self, position: int, plan: Plan, error: BaseException) -> None:
        training, total = self.training, sum(plan.sizes)
        generator = torch.Generator().manual_seed(1000 * self.schedule.seed + position)
        order = torch.randperm(SAMPLES, generator=generator)[:total]
        if total > SAMPLES:
            raise ValueError(f"{total} samples of {SAMPLES}")
        for part, rows in enumerate(order.split(plan.sizes)):
            x, y = self._x[rows.to(self._device)], self._y[rows.to(self._device)]
            met = part == plan.part
            if met and plan.fault in ("raise in forward", "raise in backward"):
                training.model.fail, training.model.in_backward = error, plan.fault == "raise in backward"
            try:
                with training.autocast:
                    logits = training.model(x, plan.fault != "unused")
            finally:
                if part == 0:
                    acts = self.schedule.setting.policy != "watch"
                    ensure(finite(training.parameters()) or not acts, "the model is used, and its parameters are nan")
                    self.book.arrived(training.parameters())
            loss = cross_entropy(logits.float(), y) * (len(rows) / total)
            if met and plan.fault == "dropped loss" and len(plan.sizes) > 1:
                continue
            if met and plan.fault in ("nan loss", "overflowing loss"):
                loss *= float("nan" if plan.fault == "nan loss" else "inf")
            (loss if training.scaler is None else training.scaler.scale(loss)).backward()
            self._calls.append((x, plan.fault != "unused"))
            if part == 0 and plan.fault == "zeroed between" and len(plan.sizes) > 1:
                training.zero()
                self._calls = []

    def _poke(self, index: int, bad: float) -> None:
        optimizer = self.training.optimizers[index % len(self.training.optimizers)]
        gradient: Tensor = next(p.grad for g in optimizer.param_groups for p in g["params"] if p.grad is not None)
        gradient.view(-1)[0] = bad

    def _clip(self) -> bool:
        if not self.schedule.setting.clip:
            return False
        training = self.training
        if training.scaler is not None:
            for optimizer in training.optimizers:
                training.scaler.unscale_(optimizer)
        torch.nn.utils.clip_grad_norm_(training.model.parameters(), 1.0)
        return True

    @contextlib.contextmanager
    def _lengthened(self, on: bool) -> Iterator[None]:
        groups = [group for optimizer in self.training.optimizers for group in optimizer.param_groups]
        rates = [group["lr"] for group in groups]
        for group in groups if on else []:
            group["lr"] *= 1e4
        yield
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate


def _die(now: bool) -> None:
    if now:
        raise Killed


@contextlib.contextmanager
def _raising(optimizer: torch.optim.Optimizer, fault: str, error: BaseException) -> Iterator[None]:
    """Make an optimizer raise: by the user's own hooks, or between two of its groups, by a rate that is missing."""

    def raises(*_: Any) -> None:
        raise error

    hooks: dict[str, Callable[..., Any]] = {
        BEFORE: optimizer.register_step_pre_hook,
        AFTER: optimizer.register_step_post_hook,
    }
    handle = hooks[fault](raises) if fault in hooks else None
    rate = optimizer.param_groups[-1].pop("lr") if fault == HALF_WAY else None
    try:
        yield
    except KeyError:
        raise error from None
    finally:
        if handle is not None:
            handle.remove()
        if rate is not None:
            optimizer.param_groups[-1]["lr"] = rate
        for name in (
            "grad_scale",
            "found_inf",
        ):  # a scaler leaves them on a fused optimizer that raised, and multiplies
            vars(optimizer).pop(name, None)
