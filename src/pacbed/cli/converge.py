"""``pacbed converge``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from rich.table import Table

from pacbed.cli.common import Flat, progress, show_table, stderr
from pacbed.cli.simulate import PLANE_WAVES, Computation, Crystal, Motion, PlaneWaveOptions
from pacbed.specimen.microscope import Aperture, Detector


def converge(
    *,
    crystal: Flat[Crystal] = Crystal(),
    semiangle: float = 6.35,
    tilt: tuple[float, float] = (0.0, 0.0),
    fov: float = 100.0,
    motion: Flat[Motion] = Motion(),
    computation: Flat[Computation] = Computation(),
    plane_wave: Annotated[PlaneWaveOptions, PLANE_WAVES] = PlaneWaveOptions(),
    output: Path = Path("convergence.png"),
) -> None:
    """Find out how much the numerical settings matter.

    Refine the band limit, the slices, the incident grid, the supercell and the number of
    configurations, one after another, and print and draw how much each changes the pattern
    after every layer.

    Parameters
    ----------
    semiangle
        Convergence semi-angle in mrad.
    tilt
        Sample tilt along x and y in mrad.
    fov
        Full width of the field in mrad.
    output
        Figure (PNG or PDF); a table of the same name ends in .csv.
    """
    import pandas as pd

    from pacbed.figures.convergence import changes_against_thickness
    from pacbed.figures.style import check_drawable, save
    from pacbed.patterns.convergence import refinements
    from pacbed.storage.files import check_writable, write_text

    csv = output.with_suffix(".csv")
    check_drawable(output)
    check_writable(csv)
    request = crystal.request(
        aperture=Aperture(semiangle),
        tilt_mrad=tilt,
        detector=Detector((fov, fov), (256, 256)),
        thermal=motion.thermal(),
        seed=computation.seed or 0,
    )
    settings = plane_wave.settings(computation.slices)
    with progress(stderr()) as start:
        found = list(refinements(request, settings, computation.threads, computation.device, start))
    layers = [n for n in (1, 2, 5, 10, 15) if n < request.layers] + [request.layers]
    table = Table(
        title="Change of the pattern (%) by number of layers; due to phonon noise in brackets"
    )
    for column in ("setting", "from", "to", *map(str, layers)):
        table.add_column(column)
    for one in found:
        cells = [
            f"{100 * one.change[n - 1]:.2f}"
            + ("" if one.noise is None else f" ({100 * one.noise[n - 1]:.2f})")
            for n in layers
        ]
        table.add_row(one.setting, one.before, one.after, *cells)
    show_table(table)
    rows = [
        {
            **{"setting": one.setting, "from": one.before, "to": one.after, "layers": n},
            "relative_change": change,
            "phonon_noise": None if one.noise is None else one.noise[n - 1],
        }
        for one in found
        for n, change in enumerate(one.change, 1)
    ]
    title = f"{request.material.name}, {request.energy_keV:g} keV, {semiangle:g} mrad"
    save(changes_against_thickness(found, title), output)
    write_text(csv, pd.DataFrame(rows).to_csv(index=False))
    print(f"{output}, {csv}")
