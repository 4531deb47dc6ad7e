"""Signals as words: told in order, whichever thread the kernel gives them to, and undone after."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys

from reconciler import signals

GIVE_UP_S = 60.0
STRANGE_THREAD = """
import os, signal, threading, time
from reconciler import signals

# As a library does that made its threads before: it lets every signal through.
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
told = threading.Event()
with signals.told(lambda number: (print(number.name, flush=True), told.set())):
    os.kill(os.getpid(), signal.SIGTERM)
    assert told.wait(60)
print("ended well")
"""


def test_signals_are_told_by_name_and_as_before_afterwards() -> None:
    before = {each: signal.getsignal(each) for each in signals.SIGNALS}
    told: queue.Queue[signal.Signals] = queue.Queue()
    with signals.told(told.put):
        for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGINT):
            os.kill(os.getpid(), number)
            assert told.get(timeout=GIVE_UP_S) is number
    assert {each: signal.getsignal(each) for each in signals.SIGNALS} == before
    assert signal.set_wakeup_fd(-1) == -1
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()).isdisjoint(signals.SIGNALS)


def test_a_thread_of_a_library_that_lets_signals_through_does_not_end_the_process() -> None:
    program = [sys.executable, "-c", STRANGE_THREAD]
    run = subprocess.run(program, capture_output=True, text=True, timeout=GIVE_UP_S, check=False)
    assert run.returncode == 0, run
    assert run.stdout == "SIGTERM\nended well\n"
