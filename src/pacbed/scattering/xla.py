"""Compilation by XLA, without the lines that the first one writes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

import tensorflow as tf

_ALONE = Lock()


def compiled(function: Callable[..., Any]) -> Any:
    """Return a function of tensors that XLA compiles when it is called first."""
    begin()
    return tf.function(function, jit_compile=True, autograph=False)


def begin() -> None:
    """Let XLA begin, once for a process, in whichever thread.

    With its first compilation TensorFlow writes to stderr that there is XLA, and that it does not
    log yet. No setting silences these lines, so something small is compiled while nobody listens.
    """
    with _ALONE:  # two threads that exchange stderr at a time would leave it closed
        _begin()


@cache
def _begin() -> None:
    with _deaf():
        tf.function(tf.negative, jit_compile=True, autograph=False)(tf.zeros(()))


@contextmanager
def _deaf() -> Iterator[None]:
    """Drop what this process writes to stderr below Python."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
