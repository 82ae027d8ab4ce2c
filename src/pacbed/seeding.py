"""Counter-based random streams: random numbers depend on names and indices, not on order.

Every stream has an address: the seed of the run and a path such as ``("draw", semiangle, index)``.
Any process can make any stream, in any order. More draws, or more of anything, leave the numbers
of all other addresses unchanged.
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
        Address: names, counters, or physical quantities. Floats are rounded to a millionth of their
        unit, so that 6.35 is the same address for any way to compute it.

    Returns
    -------
    numpy.random.Generator
        Philox generator keyed by the address.

    Examples
    --------
    More draws, or draws in another order, leave this one as it is.

    >>> stream(2026, "draw", 6.35, 17).random() == stream(2026, "draw", 6.35, 17).random()
    True
    >>> stream(2026, "draw", 6.35, 18).random() == stream(2026, "draw", 6.35, 17).random()
    False
    """
    return np.random.Generator(np.random.Philox(_sequence(seed, path)))


def seed_at(seed: int, *path: str | int | float) -> int:
    """Return the 64-bit seed of an address, for example of a simulation."""
    return int(_sequence(seed, path).generate_state(1, np.uint64)[0])


def _sequence(seed: int, path: tuple[str | int | float, ...]) -> np.random.SeedSequence:
    return np.random.SeedSequence(seed, spawn_key=tuple(_word(part) for part in path))


def _word(part: str | int | float) -> int:
    if isinstance(part, str):
        return zlib.crc32(part.encode())
    word = round(part * 1e6) if isinstance(part, float) else part
    return word if word >= 0 else _NEGATIVE - word
