"""Compilation by XLA may begin in several threads."""

import threading
import time
from contextlib import contextmanager

from pacbed.scattering import xla


def test_one_thread_at_a_time_exchanges_stderr(monkeypatch):
    inside, most = [], []

    @contextmanager
    def deaf():
        inside.append(1)
        most.append(len(inside))
        time.sleep(0.2)
        yield
        inside.pop()

    monkeypatch.setattr(xla, "_deaf", deaf)
    getattr(xla, "_begin", xla.begin).cache_clear()
    threads = [threading.Thread(target=xla.begin) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert most == [1]
