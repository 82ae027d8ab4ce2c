"""One self-contained page about a run: what came out, how it looks, how it was made."""

from __future__ import annotations

import base64
import csv
import html
import math
import platform
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
    networks = shown[shown["method"] == NETWORK]
    bounds = bounds[bounds["sigma_prior"].notna()]  # of parameters that vary
    costs = pd.DataFrame() if costs is None else costs
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("pacbed.figures", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "rich": _rich,
        "number": _number,
        "listed": _listed,
        "sample": _sample,
        "variant": _variant,
        "value": _value,
    }
    page = environment.get_template("report.html.j2").render(
        config=config,
        symbols=HTML_SYMBOLS,
        units={p: display_unit(p)[1] for p in PARAMETERS},
        methods={name: label for name, (label, _) in METHODS.items()},
        output_names=OUTPUT_NAMES,
        intensities=INTENSITIES,
        best=_most_precise(networks),
        close=_over_bound(networks),
        below=_below_bound(networks),
        above_best=ABOVE_BEST,
        comparisons=list(_comparisons(networks, shown[shown["method"] != NETWORK])),
        networks=len(networks),
        helpless=networks[networks["helpless"]],
        by_network=_by_network,
        fixed=_fixed(networks),
        figures=[_figure(file, captions) for file in _in_order(figures)],
        parameters=_parameters(shown),
        errors=_error_rows(shown),
        bounds=_bound_rows(bounds),
        bound_parameters=_parameters(bounds),
        captions={name: _caption(captions, name) for name in ("errors", "bounds")},
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
    rich = str(text) if isinstance(text, Markup) else html.escape(str(text), quote=False)
    rich = re.sub(r"([εφσ])_(xx|yy|xy|x|y)(?![a-z])", r"\1<sub>\2</sub>", rich)
    rich = re.sub(r"\b((?:Mo|W)(?:Se|S|Te))2\b", r"\1<sub>2</sub>", rich)
    rich = re.sub(r"`([^`]+)`", r"<code>\1</code>", rich)
    return Markup(re.sub(r"\*([^*\s]+)\*", r"<em>\1</em>", rich))


def _number(value: float, significant: int = 3) -> str:
    """Return a number with so many significant digits, without an exponent."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    digits = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def _value(number: float, parameter: str, significant: int = 3, with_unit: bool = False) -> str:
    """Return the value of a parameter in the unit of figures."""
    factor, unit = display_unit(parameter)
    shown = _number(factor * number, significant)
    return f"{shown} {unit}".replace(" °", "°") if with_unit else shown


def _parameters(table: pd.DataFrame) -> list[str]:
    known = set(table["parameter"])
    return [p for p in PARAMETERS if p in known]


def _records(table: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _sample(row: Mapping[str, Any]) -> str:
    """Name a sample, to be broken nowhere but after the comma."""
    layers = layers_label(int(row["layers"])).replace(" ", NO_BREAK)
    return f"{row['semiangle_mrad']:g}{NO_BREAK}mrad, {layers}"


def _variant(row: Mapping[str, Any]) -> str:
    return f"{OUTPUT_NAMES[row['outputs']]}; {INTENSITIES[row['intensity']]} intensity"


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if words[1:] else words)


# Summary


def _most_precise(networks: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the strain rows of the network with the smallest mean error of the strains."""
    strains = networks[networks["parameter"].isin(STRAINS)]
    means = strains.groupby(KEYS)["mae"].mean()
    if means.empty:
        return []
    best = strains.set_index(KEYS).loc[[means.idxmin()]].reset_index()
    return _records(best.sort_values("parameter", key=lambda p: p.map(PARAMETERS.index)))


def _over_bound(networks: pd.DataFrame) -> dict[str, Any]:
    """Return by how much errors of strain exceed their bounds: the median, and the row closest."""
    rows = networks[networks["parameter"].isin(STRAINS) & (networks["prior_bound_mae"] > 0)]
    rows = rows.assign(factor=rows["mae"] / rows["prior_bound_mae"])
    if rows.empty:
        return {}
    closest = rows.sort_values("factor", kind="stable").head(1)
    return {"median": rows["factor"].median(), "closest": _records(closest)[0]}


def _below_bound(networks: pd.DataFrame) -> pd.DataFrame:
    """Return the rows whose error, with its interval, is less than is possible."""
    # Other noise may tell more than that of counted electrons.
    return networks[networks["upper"] < (1 - ABOVE_BEST) * networks["data_bound_mae"]]


def _fixed(networks: pd.DataFrame) -> list[str]:
    """Return the symbols of outputs of networks that do not vary."""
    read = {p for outputs in networks["outputs"].unique() for p in OUTPUTS[outputs]}
    return [HTML_SYMBOLS[p] for p in PARAMETERS if p in read - set(networks["parameter"])]


def _comparisons(networks: pd.DataFrame, classical: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """Yield how each classical method compares with the best network of each sample."""
    keys = [*SAMPLE, "parameter"]
    best = networks.sort_values("mae", kind="stable").drop_duplicates(keys)
    for method, rows in classical.groupby("method", sort=True):
        both = rows.merge(best, on=keys, suffixes=("", "_network"))
        # Where it finds nothing it answers zero, which is no better reading than another.
        better = both[~both["helpless"] & (both["mae"] < both["mae_network"])]
        clearly = int((better["mae_high"] < better["mae_low_network"]).sum())
        if len(both):
            found = {"method": METHODS[str(method)][0], "of": len(both)}
            yield found | {"better": _records(better), "clearly": clearly}


def _by_network(rows: pd.DataFrame) -> list[str]:
    """Return in words which parameters of which networks rows are of."""
    lines = []
    for _, group in rows.groupby(KEYS, sort=True):
        first = _records(group)[0]
        symbols = ", ".join(HTML_SYMBOLS[p] for p in _parameters(group))
        lines.append(f"{_sample(first)} ({_variant(first)}): {symbols}")
    return lines


# Tables


def _error_rows(shown: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows by parameter for every network, and after those of a sample other methods."""
    ranks = {"method": list(METHODS), "outputs": list(OUTPUT_NAMES)}
    keys = [*SAMPLE, "method", "outputs", "intensity"]
    ordered = shown.sort_values(
        keys, key=lambda c: c.map(ranks[c.name].index) if c.name in ranks else c, kind="stable"
    )
    groups = [_records(group) for _, group in ordered.groupby(keys, sort=False)]
    return [{**rows[0], "of": {row["parameter"]: row for row in rows}} for rows in groups]


def _bound_rows(bounds: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row for every sample: the bound as mean absolute error at both ends of the dose."""
    states = sorted(bounds["state"].unique(), key=lambda state: state != UNDEFORMED)
    chosen = bounds[bounds["state"].isin(states[:1])].sort_values("electrons")
    chosen = chosen.assign(mae=MAE_OF_SIGMA * chosen["sigma"])
    rows = []
    for _, group in chosen.groupby(SAMPLE, sort=True):
        of = {str(p): g["mae"].iloc[[0, -1]].tolist() for p, g in group.groupby("parameter")}
        electrons = group["electrons"].iloc[[0, -1]].tolist()
        rows.append(_records(group)[0] | {"of": of, "electrons": electrons})
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
