"""One self-contained page about a run."""

from __future__ import annotations

import base64
import platform
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from pacbed import __version__
from pacbed.figures.style import display_unit
from pacbed.files import write_text

CAPTIONS = {
    "fig1": "Patterns of the undeformed crystal, by thickness and semi-angle. Left half on a "
    "linear, right half on a cube-root intensity scale.",
    "fig5": "Mean absolute error of the test set against thickness. Dotted: always answering the "
    "mean.",
    "fig6": "Predicted against true values of the test set.",
}

SYMBOLS = {
    "strain_xx": "ε<sub>xx</sub>",
    "strain_yy": "ε<sub>yy</sub>",
    "strain_xy": "ε<sub>xy</sub>",
    "rotation_deg": "γ",
    "tilt_x_mrad": "φ<sub>x</sub>",
    "tilt_y_mrad": "φ<sub>y</sub>",
}

PACKAGES = ("numpy", "scipy", "zarr", "keras")


def write_report(
    path: Path,
    errors: pd.DataFrame,
    draws: pd.DataFrame,
    figures: Sequence[Path],
    config: Mapping[str, Any],
    revision: str,
) -> None:
    """Write the page.

    Parameters
    ----------
    path
        The HTML file; it appears whole or not at all.
    errors, draws
        Tables of the run.
    figures
        PNG files, embedded in this order.
    config
        Resolved configuration.
    revision
        Git revision of the workflow.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pacbed", "data"), autoescape=True, trim_blocks=True
    )
    page = environment.get_template("report.html.j2").render(
        config=config,
        draws=len(draws),
        errors=_error_rows(errors[errors["split"] == "test"]),
        parameters=[
            (SYMBOLS[p], display_unit(p)[1]) for p in SYMBOLS if p in set(errors["parameter"])
        ],
        figures=[
            {
                "name": f"Fig. {file.stem.removeprefix('fig')}",
                "caption": CAPTIONS[file.stem],
                "data": base64.b64encode(file.read_bytes()).decode(),
            }
            for file in figures
        ],
        resolved=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
        provenance={
            "pacbed": __version__,
            "revision": revision,
            "Python": platform.python_version(),
            **{name: version(name) for name in PACKAGES if find_spec(name)},
        },
    )
    write_text(path, page)


def _error_rows(errors: pd.DataFrame) -> list[dict[str, Any]]:
    rows = []
    keys = ["semiangle_mrad", "layers", "outputs", "intensity"]
    for (angle, layers, outputs, intensity), group in errors.groupby(keys, sort=True):
        cells = []
        for parameter in (p for p in SYMBOLS if p in set(errors["parameter"])):
            row = group[group["parameter"] == parameter]
            if row.empty:
                cells.append(("", ""))
                continue
            factor = display_unit(parameter)[0]
            mae, baseline = row["mae"].iloc[0], row["baseline_mae"].iloc[0]
            cells.append((f"{factor * mae:.3g}", f"{factor * baseline:.3g}"))
        rows.append(
            {
                "semiangle": f"{angle:g}",
                "layers": layers,
                "variant": f"{outputs}, {intensity}",
                "cells": cells,
            }
        )
    return rows
