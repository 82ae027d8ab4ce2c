"""``pacbed show`` and ``pacbed compare``: patterns of stores."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.table import Table

from pacbed.cli.common import Count, say, show_table
from pacbed.cli.structures import AnyCrystal
from pacbed.exceptions import PacbedError

if TYPE_CHECKING:
    from pacbed.patterns.store import PatternStore

Layers = Annotated[
    tuple[Count, ...], Parameter(help="Thicknesses to draw.", show_default="a choice")
]
Field = Annotated[
    float | None, Parameter(help="Width to show in mrad.", show_default="the narrower side")
]


def show(
    store: Path | None = None,
    /,
    *,
    layers: Layers = (),
    fov: Field = None,
    cell: Annotated[bool, Parameter(negative=())] = False,
    structure: Annotated[AnyCrystal, Parameter(name="*", group="With --cell")] = AnyCrystal(),
    output: Annotated[Path | None, Parameter(show_default="next to the store")] = None,
) -> None:
    """Draw the patterns of a store, or a crystal.

    The left half is linear, the right half the cube root of the intensity.

    Parameters
    ----------
    store
        A store made by pacbed simulate or the workflow.
    cell
        Draw the crystal instead: that of the store, or of --material or --config.
    output
        PNG or PDF.
    """
    from pacbed.figures.patterns import show_patterns
    from pacbed.figures.style import save
    from pacbed.patterns.store import read_patterns

    if cell:
        _show_cell(store, structure, layers, output)
        return
    if structure.named or store is None:
        raise PacbedError("name a store of patterns, or draw a crystal with --cell --material NAME")
    found = read_patterns(store)
    drawn = _layers(layers, found.layers.tolist(), f"{store} has")
    field = _field_mrad(fov, found)
    name = store.name.removesuffix(".zip").removesuffix(".zarr")
    path = output or store.with_name(f"{name}.png")
    save(show_patterns(found, drawn, field), path)
    print(path)
    widest = 2 * float(max(abs(axis).max() for axis in (found.kx_mrad, found.ky_mrad)))
    if fov is None and widest > 1.01 * field:
        print(f"shown: {field:.4g} mrad, the narrower side of the field", file=sys.stderr)


def _show_cell(
    store: Path | None, structure: AnyCrystal, layers: tuple[int, ...], output: Path | None
) -> None:
    """Draw the crystal of a store, or one that is named, and describe it in a line."""
    from pacbed.figures.cell import show_crystal
    from pacbed.figures.style import save
    from pacbed.patterns.store import read_patterns
    from pacbed.specimen.crystal import crystal_of
    from pacbed.study.structures import described

    if (store is None) == (not structure.named):
        raise PacbedError(
            "--cell draws the crystal of a store, or that of --material or --config: name one"
        )
    if store is None:
        made, name = structure.crystal(), Path("cell.png")
    else:
        made = crystal_of(read_patterns(store).attributes["request"]["material"])
        stem = store.name.removesuffix(".zip").removesuffix(".zarr")
        name = store.with_name(f"{stem}_cell.png")
    path = output or name
    save(show_crystal(made, max(layers, default=None)), path)
    print(described(made))
    print(path)


def compare(
    a: Path,
    b: Path,
    /,
    *,
    layers: Layers = (),
    fov: Field = None,
    output: Path = Path("compare.png"),
) -> None:
    """Compare the patterns of two stores.

    Print the relative L1 distance of the patterns of A from those of B, of another engine or
    other settings, and draw both and their difference.

    Parameters
    ----------
    a
        A store made by pacbed simulate or the workflow.
    b
        The store that A is compared with.
    output
        PNG or PDF.
    """
    from pacbed.figures.patterns import compare_patterns
    from pacbed.figures.style import save
    from pacbed.patterns.difference import compare as changes
    from pacbed.patterns.difference import simulated_differently
    from pacbed.patterns.store import read_patterns

    stores, names = (read_patterns(a), read_patterns(b)), (str(a), str(b))
    found = changes(*stores)
    common = found.layers.tolist()
    drawn = _layers(layers, common, "both stores have")
    field = _field_mrad(fov, stores[0])
    save(compare_patterns(*stores, drawn, field, names), output)
    for letter, name, store in zip("AB", names, stores, strict=True):
        print(f"{letter}: {name}: {_made_by(store, common[-1])}")
    if differing := simulated_differently(*stores):
        say(f"warning: they differ in what was simulated: {'; '.join(differing)}")
    table = Table(title="A against B in %, and how many of the electrons are in the field")
    for column in ("layers", "relative L1", "relative L1 at equal sums", "sum of A", "sum of B"):
        table.add_column(column, justify="right")
    columns = found.change, found.change_of_shape, found.sum_a, found.sum_b
    for n, *values in zip(common, *columns, strict=True):
        table.add_row(str(n), *(f"{100 * v:.3f}" for v in values))
    show_table(table)
    print(output)


def _layers(asked: tuple[int, ...], available: list[int], which: str) -> list[int]:
    """Return the layers that are asked for, or a choice of those that there are."""
    choice = [n for n in (1, 2, 5, 10, 20) if n in available and n != available[-1]]
    layers = list(asked) or [*choice, available[-1]]
    if absent := [n for n in layers if n not in available]:
        raise PacbedError(f"{which} layers {available[0]} to {available[-1]}: {absent}?")
    return layers


def _field_mrad(asked: float | None, store: PatternStore) -> float:
    """Return the width to draw, by default that of the patterns."""
    narrowest = 2 * float(min(abs(axis).max() for axis in (store.kx_mrad, store.ky_mrad)))
    field = narrowest if asked is None else asked
    if not 0 < field <= narrowest * (1 + 1e-9):
        raise PacbedError(f"--fov must be between 0 and {narrowest:.4g} mrad, not {field:g}")
    return field


def _made_by(store: PatternStore, layers: int) -> str:
    noise = store.attributes.get("phonon_noise")
    number = store.layers.tolist().index(layers)
    return f"engine {store.attributes.get('engine', 'unknown')}" + (
        f", phonon noise {100 * noise[number]:.2g} % at {layers} layers" if noise else ""
    )
