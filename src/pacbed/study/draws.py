"""The random draws of a study, and their split into training, validation and test sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

from pacbed.seeding import seed_at, stream
from pacbed.specimen.deformation import Deformation, DrawRanges

if TYPE_CHECKING:
    import pandas as pd

SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Draw:
    """One random strain and tilt, to be simulated at one semi-angle."""

    semiangle_mrad: float
    index: int
    stretch_1: float
    stretch_2: float
    angle_deg: float
    tilt_x_mrad: float
    tilt_y_mrad: float

    @property
    def deformation(self) -> Deformation:
        """The deformation of the crystal."""
        return Deformation(self.stretch_1, self.stretch_2, self.angle_deg)

    @property
    def tilt_mrad(self) -> tuple[float, float]:
        """Sample tilt (φx, φy) in mrad."""
        return self.tilt_x_mrad, self.tilt_y_mrad


def draw(
    seed: int,
    semiangle_mrad: float,
    index: int,
    ranges: DrawRanges,
    shared_strain: bool = False,
) -> Draw:
    """Draw deformation number `index` of a semi-angle.

    The result depends on these arguments alone: asking for more draws or other semi-angles leaves
    it as it is. Two stretches are drawn uniformly and sorted, then θ, φx and φy uniformly
    (Yankovich et al. 2026, section 2.2). With `shared_strain` the stretches and θ are the same for
    all semi-angles; the tilts are not.
    """
    random = stream(seed, "draw", float(semiangle_mrad), index)
    stretch_1, stretch_2, angle = _strain(random, ranges)
    tilt_x, tilt_y = (float(random.uniform(*ranges.tilt_mrad)) for _ in range(2))
    if shared_strain:
        stretch_1, stretch_2, angle = _strain(stream(seed, "strain", index), ranges)
    return Draw(
        semiangle_mrad=float(semiangle_mrad),
        index=index,
        stretch_1=stretch_1,
        stretch_2=stretch_2,
        angle_deg=angle,
        tilt_x_mrad=tilt_x,
        tilt_y_mrad=tilt_y,
    )


def _strain(random: np.random.Generator, ranges: DrawRanges) -> tuple[float, float, float]:
    stretch_2, stretch_1 = sorted(random.uniform(*ranges.stretch, size=2).tolist())
    return stretch_1, stretch_2, float(random.uniform(*ranges.angle_deg))


def simulation_seed(
    seed: int, semiangle_mrad: float, index: int | None, shared_strain: bool = False
) -> int:
    """Return the seed of what is random in the simulation of a draw (None: the undeformed crystal).

    With `shared_strain` the simulations of all semi-angles share a seed, since they share thermal
    displacements.
    """
    address: list[str | int | float] = [] if shared_strain else [float(semiangle_mrad)]
    address.append("undeformed" if index is None else index)
    return seed_at(seed, "simulation", *address)


def assign_splits(count: int, fractions: Mapping[str, float]) -> list[str]:
    """Assign draws 0 ... count-1 to the training, validation and test sets.

    Each draw goes to the set that lags furthest behind its share, so the assignment of a draw
    depends only on its index and the fractions, and any leading part of the list is balanced.

    Parameters
    ----------
    count
        Number of draws.
    fractions
        Share of each of ``train``, ``validation``, ``test``; they sum to one.

    Returns
    -------
    list of str
        The set of each draw.
    """
    assigned = dict.fromkeys(SPLITS, 0)
    result = []
    for index in range(count):
        # Rounding keeps ties between equal shares from being broken by floating-point dust.
        lag = {s: round(fractions[s] * (index + 1) - assigned[s], 9) for s in SPLITS}
        chosen = max(SPLITS, key=lambda split: lag[split])
        assigned[chosen] += 1
        result.append(chosen)
    return result


def draw_table(
    seed: int,
    semiangles_mrad: Sequence[float],
    count: int,
    ranges: DrawRanges,
    fractions: Mapping[str, float],
    shared_strain: bool = False,
) -> pd.DataFrame:
    """Tabulate all draws, one row each.

    Returns
    -------
    pandas.DataFrame
        Columns of :class:`Draw` and ``strain_xx``, ``strain_yy``, ``strain_xy`` (fractions) and
        ``split``.
    """
    import pandas as pd  # here, since thousands of simulation jobs import this module

    rows = []
    for angle in semiangles_mrad:
        for index, split in enumerate(assign_splits(count, fractions)):
            one = draw(seed, angle, index, ranges, shared_strain)
            (xx, xy), (_, yy) = one.deformation.strain
            strains = {"strain_xx": xx, "strain_yy": yy, "strain_xy": xy}
            rows.append({**asdict(one), **strains, "split": split})
    return pd.DataFrame(rows)
