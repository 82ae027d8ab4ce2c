"""One self-contained page about a run: what came out, how it looks, how it was made."""

from __future__ import annotations

import base64
import csv
import html
import math
import platform
import re
import struct
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml
from markupsafe import Markup

from pacbed import __version__
from pacbed.examples.labels import OUTPUTS, PARAMETERS, display_unit
from pacbed.exceptions import PacbedError
from pacbed.figures import TITLES
from pacbed.figures.errors import METHODS
from pacbed.figures.style import layers_label
from pacbed.precision.bound_table import MAE_OF_SIGMA
from pacbed.precision.error_table import NETWORK, of_test_set
from pacbed.precision.steps import UNDEFORMED
from pacbed.storage.files import write_text

# In plain text; what follows the underscore becomes a subscript.
HTML_SYMBOLS = dict(zip(PARAMETERS, ("ε_xx", "ε_yy", "ε_xy", "γ", "φ_x", "φ_y"), strict=True))
STRAINS = PARAMETERS[:3]

SAMPLE = ["semiangle_mrad", "layers"]
KEYS = [*SAMPLE, "outputs", "intensity"]
OUTPUT_NAMES = {
    "strain-rotation-tilt": "strain, rotation, tilt",
    "strain-rotation": "strain, rotation",
}
INTENSITIES = {"linear": "linear", "sqrt": "square-root", "power": "learnt power"}

PACKAGES = (
    *("numpy", "scipy", "zarr", "keras", "tensorflow", "tensorflow-cpu", "pandas", "matplotlib"),
    "snakemake",
)
HOUR_s = 3600.0
NO_BREAK = "\N{NO-BREAK SPACE}"

# With normal instead of uniform ranges a bound may be as much above the best that can be reached.
ABOVE_BEST = 0.08

# Figures have 300 dots per inch, and text of 8 points: shown somewhat larger than printed.
REM_PER_PIXEL = 7.8 / 300


def write_report(
    path: Path,
    *,
    errors: pd.DataFrame,
    draws: pd.DataFrame,
    bounds: pd.DataFrame,
    figures: Sequence[Path],
    captions: Mapping[str, str],
    config: Mapping[str, Any],
    revision: str,
    costs: pd.DataFrame | None = None,
    patterns: Mapping[str, Any] | None = None,
) -> None:
    """Write the page. It needs nothing but itself: no network, no other file.

    Parameters
    ----------
    path
        The HTML file; it appears whole or not at all.
    errors
        ``tables/errors``: methods, networks, sets, parameters and doses. Shown are those of the
        test set at all doses.
    draws
        The draws of the study, with columns ``semiangle_mrad`` and ``split``.
    bounds
        ``tables/bounds``.
    figures
        PNG files, named ``fig1`` and so on as in `TITLES`; shown in that order.
    captions
        By name, of every figure and of the tables ``errors`` and ``bounds``: see `read_captions`.
    config
        Resolved configuration.
    revision
        Git revision of the workflow.
    costs
        What the run has used: see `costs_by_rule`; left out if None or empty.
    patterns
        Attributes of a pattern store of the study, which say what made it.

    Raises
    ------
    PacbedError
        If a caption is missing, a figure is no PNG file, or the page cannot be written.
    """
    shown = of_test_set(errors)
    if shown.empty:
        raise PacbedError("the table of errors has no row of the test set at all doses")
    upper = shown["mae_high"].fillna(shown["mae"])
    shown = shown.assign(upper=upper, helpless=upper >= shown["baseline_mae"])
    bounds = bounds[bounds["sigma_prior"].notna()]  # of parameters that vary
    costs = pd.DataFrame() if costs is None else costs
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pacbed.figures", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"rich": _rich, "number": _number}
    page = environment.get_template("report.html.j2").render(
        config=config,
        key_numbers=_key_numbers(shown, costs),
        summary=list(_summary(shown, costs)),
        figures=[_figure(file, captions) for file in _in_order(figures)],
        parameters=_headers(shown),
        errors=_error_rows(shown),
        errors_caption=_caption(captions, "errors"),
        bounds=_bound_rows(bounds),
        bounds_caption=_caption(captions, "bounds"),
        bound_parameters=_headers(bounds),
        costs=costs.to_dict("records"),
        total=costs.sum(numeric_only=True).to_dict(),
        contradictions=contradictions(),
        draws=pd.crosstab(draws["semiangle_mrad"], draws["split"]).to_dict("index"),
        resolved=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
        provenance=_provenance(config, revision, patterns or {}),
    )
    write_text(path, page)


# Text


def read_captions(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """Read the captions that Snakemake's own report shows too.

    Parameters
    ----------
    folder
        Holds ``<name>.rst``: plain sentences, which may name ``snakemake.config``.
    config
        The configuration that they name.

    Raises
    ------
    PacbedError
        If a caption names what is not there.
    """
    environment = jinja2.Environment(undefined=jinja2.StrictUndefined)
    captions = {}
    for file in sorted(folder.glob("*.rst")):
        if file.stem == "workflow":  # the front page of Snakemake's report
            continue
        try:
            template = environment.from_string(file.read_text(encoding="utf-8"))
            text = template.render(snakemake={"config": config})
        except jinja2.TemplateError as error:
            raise PacbedError(f"cannot use the caption {file}: {error}") from error
        captions[file.stem] = " ".join(text.split())
    return captions


def contradictions() -> list[dict[str, str]]:
    """Return what the paper says, what follows from its own numbers, and what is done here."""
    text = (files("pacbed.figures") / "contradictions.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(text.splitlines()))


def _caption(captions: Mapping[str, str], name: str) -> str:
    if name not in captions:
        raise PacbedError(f"{name} has no caption: write workflow/report/{name}.rst")
    return captions[name]


def _rich(text: object) -> Markup:
    """Return text as HTML: symbols with subscripts, formulae, and Markdown's code and emphasis."""
    escaped = html.escape(str(text), quote=False)
    escaped = re.sub(r"([εφσ])_(xx|yy|xy|x|y)(?![a-z])", r"\1<sub>\2</sub>", escaped)
    escaped = re.sub(r"\b((?:Mo|W)(?:Se|S|Te))2\b", r"\1<sub>2</sub>", escaped)
    escaped = re.sub(r"`([^`]+)`", r"<code>\1</code>", escaped)
    return Markup(re.sub(r"\*([^*\s]+)\*", r"<em>\1</em>", escaped))


def _number(value: float, significant: int = 3) -> str:
    """Return a number with so many significant digits, without an exponent."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    digits = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def _shown(value: float, parameter: str, significant: int = 3) -> str:
    return _number(display_unit(parameter)[0] * value, significant)


def _with_unit(value: float, parameter: str) -> str:
    unit = display_unit(parameter)[1]
    return f"{_shown(value, parameter)}{'' if unit == '°' else ' '}{unit}"


def _headers(table: pd.DataFrame) -> list[tuple[str, str]]:
    return [(HTML_SYMBOLS[p], display_unit(p)[1]) for p in _parameters(table)]


def _parameters(table: pd.DataFrame) -> list[str]:
    known = set(table["parameter"])
    return [p for p in PARAMETERS if p in known]


def _symbols(parameters: Iterable[str]) -> list[str]:
    return [HTML_SYMBOLS[p] for p in parameters]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _first(table: pd.DataFrame) -> dict[str, Any]:
    return _records(table.head(1))[0]


def _sample(row: Mapping[str, Any]) -> str:
    """Name a sample, to be broken nowhere but after the comma."""
    layers = layers_label(int(row["layers"])).replace(" ", NO_BREAK)
    return f"{row['semiangle_mrad']:g}{NO_BREAK}mrad, {layers}"


def _variant(row: Mapping[str, Any]) -> str:
    return f"{OUTPUT_NAMES[row['outputs']]}; {INTENSITIES[row['intensity']]} intensity"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


def _hours(costs: pd.DataFrame) -> tuple[str, str]:
    """Return core-hours, and what is said after them."""
    total = costs.sum(numeric_only=True)
    gpu = f" and {_number(total['gpu_hours'])} GPU-hours" if total["gpu_hours"] else ""
    return _number(total["core_hours"]), f"core-hours{gpu}"


# Summary


def _most_precise(shown: pd.DataFrame) -> pd.DataFrame:
    """Return the strain rows of the network with the smallest mean error of the strains."""
    strains = shown[(shown["method"] == NETWORK) & shown["parameter"].isin(STRAINS)]
    means = strains.groupby(KEYS)["mae"].mean()
    if means.empty:
        return strains
    best = strains.set_index(KEYS).loc[[means.idxmin()]].reset_index()
    return best.sort_values("parameter", key=lambda names: names.map(PARAMETERS.index))


def _over_bound(shown: pd.DataFrame) -> pd.DataFrame:
    """Return the strain rows of networks with a bound, and the factor between error and bound."""
    rows = shown[shown["parameter"].isin(STRAINS) & (shown["prior_bound_mae"] > 0)]
    rows = rows[rows["method"] == NETWORK]
    return rows.assign(factor=rows["mae"] / rows["prior_bound_mae"])


def _key_numbers(shown: pd.DataFrame, costs: pd.DataFrame) -> list[tuple[str, str]]:
    """Return a few numbers, each with what it says."""
    found = []
    if len(best := _most_precise(shown)):
        value, baseline = (f"{_number(100 * best[c].mean())} %" for c in ("mae", "baseline_mae"))
        where = _sample(_first(best))
        found += [
            (value, f"smallest strain error (mean of the components), at {where}"),
            (baseline, "strain error of always answering the mean"),
        ]
    if len(close := _over_bound(shown)):
        factor = _number(close["factor"].median(), 2)
        found.append((f"{factor} ×", "the bound: strain error, median"))
    if len(costs):
        hours, words = _hours(costs)
        found.append((hours, f"{words} used"))
    return found


def _summary(shown: pd.DataFrame, costs: pd.DataFrame) -> Iterable[tuple[str, list[str]]]:
    """Yield sentences, each with a list of details that may be empty."""
    networks, classical = (
        shown[m] for m in (shown["method"] == NETWORK, shown["method"] != NETWORK)
    )
    if len(best := _most_precise(shown)):
        rows = _records(best)
        values = [f"{HTML_SYMBOLS[r['parameter']]} to {_number(100 * r['mae'])} %" for r in rows]
        means = [_number(100 * r["baseline_mae"]) for r in rows]
        yield (
            f"The most precise network ({_sample(rows[0])}; {_variant(rows[0])}) reads "
            f"{_listed(values)} of strain: mean absolute errors of the test set. Always answering "
            f"the mean would give {_listed(means)} %.",
            [],
        )
    yield from _bound_sentences(networks)
    yield from _classical_sentences(networks, classical)
    helpless = networks[networks["helpless"]]
    if len(helpless):
        yield (
            f"{len(helpless)} of {len(networks)} errors are no better than always answering the "
            "mean (they or their 95 % intervals reach its error): there the network has not learnt "
            "to read the parameter, or the pattern does not tell it.",
            _by_network(helpless),
        )
    elif len(networks):
        yield "Every network reads each of its parameters better than the mean would.", []
    read = {p for outputs in networks["outputs"].unique() for p in OUTPUTS[outputs]}
    if fixed := [p for p in PARAMETERS if p in read - set(networks["parameter"])]:
        yield (
            f"{_listed(_symbols(fixed))} {'do' if fixed[1:] else 'does'} not vary in this study, "
            "so that tables and figures leave out the errors.",
            [],
        )
    if len(costs):
        yield f"{int(costs['jobs'].sum()):,} jobs used {' '.join(_hours(costs))}.", []


def _bound_sentences(networks: pd.DataFrame) -> Iterable[tuple[str, list[str]]]:
    rows = _over_bound(networks)
    if rows.empty:
        return
    closest = _first(rows.sort_values("factor", kind="stable"))
    yield (
        f"Errors of strain are {_number(rows['factor'].median(), 2)} times the Cramér–Rao bound "
        "(counted electrons, ranges known) in the median of all networks, and "
        f"{_number(closest['factor'], 2)} times where they come closest "
        f"({HTML_SYMBOLS[str(closest['parameter'])]} at {_sample(closest)}).",
        [],
    )
    # Other noise may tell more than that of counted electrons.
    below = networks[networks["upper"] < (1 - ABOVE_BEST) * networks["data_bound_mae"]]
    if len(below):
        yield (
            f"{len(below)} errors lie more than {100 * ABOVE_BEST:.0f} % below the bound for the "
            "noise of the examples, with their 95 % intervals where these are known. That points "
            "to a mistake, or to a bound that does not hold there: look before you trust them.",
            _by_network(below),
        )


def _classical_sentences(
    networks: pd.DataFrame, classical: pd.DataFrame
) -> Iterable[tuple[str, list[str]]]:
    keys = [*SAMPLE, "parameter"]
    best = networks.sort_values("mae", kind="stable").drop_duplicates(keys)
    for method, rows in classical.groupby("method", sort=True):
        both = rows.merge(best, on=keys, suffixes=("", "_network"))
        if both.empty:
            continue
        # Where it finds nothing it answers zero, which is no better reading than another.
        better = both[~both["helpless"] & (both["mae"] < both["mae_network"])]
        clearly = (better["mae_high"] < better["mae_low_network"]).sum()
        yield (
            f"The classical method ({METHODS[str(method)][0]}) is better than every network in "
            f"{len(better)} of {len(both)} comparisons (sample and parameter)"
            + (f", in {clearly} of them beyond both 95 % intervals." if len(better) else "."),
            [
                f"{_sample(row)}: {HTML_SYMBOLS[row['parameter']]} "
                f"{_with_unit(row['mae'], row['parameter'])} instead of "
                f"{_with_unit(row['mae_network'], row['parameter'])}"
                for row in _records(better)
            ],
        )


def _by_network(rows: pd.DataFrame) -> list[str]:
    return [
        f"{_sample(_first(group))} ({_variant(_first(group))}): "
        + ", ".join(_symbols(_parameters(group)))
        for _, group in rows.groupby(KEYS, sort=True)
    ]


# Tables


def _error_rows(shown: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row for every network, and after those of a sample one for another method."""
    ranks = {"method": list(METHODS), "outputs": list(OUTPUT_NAMES)}
    keys = [*SAMPLE, "method", "outputs", "intensity"]
    ordered = shown.sort_values(
        keys, key=lambda c: c.map(ranks[c.name].index) if c.name in ranks else c, kind="stable"
    )
    rows = []
    for _, group in ordered.groupby(keys, sort=False):
        first, of = _first(group), {str(row["parameter"]): row for row in _records(group)}
        is_network = first["method"] == NETWORK
        failed = f"{_number(100 * first['failed'], 1)} % without a lattice"
        rows.append(
            {
                "sample": _sample(first),
                "reads": OUTPUT_NAMES[first["outputs"]]
                if is_network
                else METHODS[first["method"]][0],
                "remark": INTENSITIES[first["intensity"]]
                if is_network
                else failed * (first["failed"] > 0),
                "classical": not is_network,
                "cells": [_error_cell(of[p]) if p in of else None for p in _parameters(shown)],
            }
        )
    return rows


def _error_cell(row: Mapping[str, Any]) -> dict[str, Any]:
    bound = float(row["prior_bound_mae"])  # not known of a method that knows the scale
    mae, low, high, baseline = (
        _shown(row[name], row["parameter"])
        for name in ("mae", "mae_low", "mae_high", "baseline_mae")
    )
    return {
        "mae": mae,
        "interval": f"{low}–{high}" if math.isfinite(row["mae_high"]) else "",
        "baseline": baseline,
        "factor": f"{_number(row['mae'] / bound, 2)} ×" if bound > 0 else "",
        "helpless": row["helpless"],
    }


def _bound_rows(bounds: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row for every sample: the bound as mean absolute error at both ends of the dose."""
    states = sorted(bounds["state"].unique(), key=lambda state: state != UNDEFORMED)
    chosen = bounds[bounds["state"].isin(states[:1])].sort_values("electrons")
    names = _parameters(bounds)
    rows = []
    for _, group in chosen.groupby(SAMPLE, sort=True):
        sigma = {str(p): MAE_OF_SIGMA * g["sigma"] for p, g in group.groupby("parameter")}
        rows.append(
            {
                "sample": _sample(_first(group)),
                "state": states[0],
                "electrons": (group["electrons"].min(), group["electrons"].max()),
                "probe_nm": _number(group["probe_nm"].iloc[0]),
                "cells": [
                    [_shown(sigma[p].iloc[end], p, 2) for end in (0, -1)] if p in sigma else None
                    for p in names
                ],
            }
        )
    return rows


# Figures


def _in_order(figures: Sequence[Path]) -> list[Path]:
    if unknown := [file.stem for file in figures if file.stem not in TITLES]:
        raise PacbedError(f"figure {unknown[0]} is unknown; known are {', '.join(TITLES)}")
    return sorted(figures, key=lambda file: list(TITLES).index(file.stem))


def _figure(file: Path, captions: Mapping[str, str]) -> dict[str, Any]:
    content = file.read_bytes()
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        raise PacbedError(f"{file} is no PNG file: delete it and run again")
    width, height = struct.unpack(">II", content[16:24])
    number = file.stem.removeprefix("fig")
    title = TITLES[file.stem]
    return {
        "name": file.stem,
        "title": f"Fig. {number}. {title}" if number.isdecimal() else title,
        "caption": _caption(captions, file.stem),
        "rem": round(width * REM_PER_PIXEL, 1),
        "width": width,
        "height": height,
        "data": base64.b64encode(content).decode(),
    }


# Provenance


def costs_by_rule(jobs: Iterable[Any]) -> pd.DataFrame:
    """Add up what finished jobs have used.

    Parameters
    ----------
    jobs
        Each with ``rule``, ``threads`` and ``gpus`` (reserved), ``seconds`` and ``cpu_s`` (in which
        a core was busy): :class:`snakemake_logger_plugin_budget.jobs.Finished`.

    Returns
    -------
    pandas.DataFrame
        A row per rule: ``rule``, ``jobs``, ``core_hours``, ``cpu_hours`` and ``gpu_hours``; the
        dearest first.
    """
    columns = ["rule", "jobs", "core_hours", "cpu_hours", "gpu_hours"]
    rows = [
        (job.rule, 1, job.seconds * job.threads, job.cpu_s, job.seconds * job.gpus) for job in jobs
    ]
    table = pd.DataFrame(rows, columns=columns).groupby("rule", as_index=False).sum()
    table[columns[2:]] /= HOUR_s
    return table.sort_values("core_hours", ascending=False, ignore_index=True)


def _provenance(
    config: Mapping[str, Any], revision: str, patterns: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """Return what the results were made with: headings, each with names and values."""
    made = {
        name.replace("_", " "): value
        for name, value in patterns.items()
        if name.endswith(("_version", "_revision")) or name == "device"
    }
    engine = str(config["simulation"]["engine"])
    return {
        "Workflow": {"revision": revision, "seed": config["seed"]},
        "Patterns": {"engine": engine, **made, **config["simulation"].get(engine, {})},
        "Versions with which this page was written": {
            "pacbed": __version__,
            "Python": platform.python_version(),
            **_versions(),
        },
    }


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
