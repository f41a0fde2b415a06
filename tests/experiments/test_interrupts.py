"""An interrupt that Python swallows is heeded at the next piece of work."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import threading

import pytest

from safestep.experiments.runner.interrupts import heeded


def press():
    os.kill(os.getpid(), signal.SIGINT)
    for _ in range(1000):  # handlers run between two instructions
        pass


class Deleted:
    """Interrupts the process while it is being deleted, where Python drops exceptions."""

    def __del__(self):
        press()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_while_an_object_is_deleted_is_not_lost():
    before = signal.getsignal(signal.SIGINT)
    passed = False
    with contextlib.suppress(KeyboardInterrupt), heeded() as check:
        Deleted()
        gc.collect()
        passed = True
        check()
        raise AssertionError("nobody heeded the interrupt")
    assert passed  # Python did swallow it: otherwise this shows nothing
    assert signal.getsignal(signal.SIGINT) is before


def test_an_ordinary_interrupt_comes_at_once():
    with pytest.raises(KeyboardInterrupt), heeded():
        press()


def test_without_an_interrupt_nothing_is_raised():
    with heeded() as check:
        check()


def test_outside_the_main_thread_nothing_is_installed():
    found = []

    def work():
        with heeded() as check:
            check()
            found.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [signal.getsignal(signal.SIGINT)]


def test_a_process_that_ignores_interrupts_goes_on_ignoring_them():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with heeded() as check:
            os.kill(os.getpid(), signal.SIGINT)
            check()
    finally:
        signal.signal(signal.SIGINT, before)
