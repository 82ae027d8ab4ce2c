"""Counter-based random streams: what is drawn depends on names and indices, never on order.

Every stream is addressed by the run's seed and a path such as ``("draw", semiangle, index)``. A
stream can therefore be made anywhere, by any process, in any order, and asking for more of
anything leaves all that was drawn before as it was.
"""

from __future__ import annotations

import zlib

import numpy as np

_NEGATIVE = 1 << 63  # the words of an address have no sign


def stream(seed: int, *path: str | int | float) -> np.random.Generator:
    """Return the random generator at an address.

    Parameters
    ----------
    seed
        Seed of the run, a non-negative integer.
    *path
        Address below it: names, counters, or physical quantities. Floats are taken to a millionth
        of their unit, so that 6.35 means the same however it was computed.

    Returns
    -------
    numpy.random.Generator
        Philox generator keyed by the address.
    """
    return np.random.Generator(np.random.Philox(_sequence(seed, path)))


def seed_at(seed: int, *path: str | int | float) -> int:
    """Return a seed of 64 bits for what has an address of its own, such as a simulation."""
    return int(_sequence(seed, path).generate_state(1, np.uint64)[0])


def _sequence(seed: int, path: tuple[str | int | float, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=tuple(_word(part) for part in path))


def _word(part: str | int | float) -> int:
    if isinstance(part, str):
        return zlib.crc32(part.encode())
    word = round(part * 1e6) if isinstance(part, float) else part
    return word if word >= 0 else _NEGATIVE - word
