"""One self-contained page about a run: what came out, how it looks, how it was made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
import yaml

from pacbed.examples.labels import OUTPUTS, PARAMETERS, PLAIN_SYMBOLS, display_unit
from pacbed.exceptions import PacbedError
from pacbed.figures import TITLES
from pacbed.figures.errors import METHODS, variant_label
from pacbed.figures.page import embedded, environment, number, versions
from pacbed.figures.style import layers_label, shown_parameters
from pacbed.precision.bound_table import MAE_OF_SIGMA
from pacbed.precision.error_table import NETWORK, of_test_set
from pacbed.precision.steps import UNDEFORMED
from pacbed.storage.files import write_text

STRAINS = PARAMETERS[:3]

SAMPLE = ["semiangle_mrad", "layers"]
KEYS = [*SAMPLE, "outputs", "intensity"]

HOUR_s = 3600.0
NO_BREAK = "\N{NO-BREAK SPACE}"

# With normal instead of uniform ranges a bound may be as much above the best that can be reached.
ABOVE_BEST = 0.08


def write_report(
    path: Path,
    *,
    errors: pd.DataFrame,
    draws: pd.DataFrame,
    bounds: pd.DataFrame,
    calibration: pd.DataFrame | None,
    figures: Sequence[Path],
    captions: Mapping[str, str],
    config: Mapping[str, Any],
    revision: str,
    costs: pd.DataFrame,
    patterns: Mapping[str, Any],
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
    calibration
        ``tables/calibration``, if fits or networks state error bars.
    figures
        PNG files, named ``fig1`` and so on as in `TITLES`, in the order in which they are shown.
    captions
        By name, of every figure and of the tables ``errors`` and ``bounds``: see `read_captions`.
    config
        Resolved configuration.
    revision
        Git revision of the workflow.
    costs
        What the run has used: see `costs_by_rule`; left out if empty.
    patterns
        Attributes of a pattern store of the study, which say what made it.

    Raises
    ------
    PacbedError
        If there are no errors, a figure is no PNG file, or the page cannot be written.
    """
    shown = of_test_set(errors)
    if shown.empty:
        raise PacbedError("the table of errors has no row of the test set at all doses")
    upper, of_network = shown["mae_high"].fillna(shown["mae"]), shown["method"] == NETWORK
    shown = shown.assign(
        helpless=upper >= shown["baseline_mae"],
        impossible=of_network & (upper < (1 - ABOVE_BEST) * shown["data_bound_mae"]),
    )
    networks = shown[of_network]
    strains = networks[networks["parameter"].isin(STRAINS)]
    means = strains.groupby(KEYS, as_index=False)[["mae", "baseline_mae"]].mean()
    bounds = bounds[bounds["sigma_prior"].notna()]  # of parameters that vary
    templates = environment()
    templates.filters |= {"sample": _sample, "value": _value}
    page = templates.get_template("report.html.j2").render(
        config=config,
        crystal=config["material"].get("structure") or config["material"]["formula"],
        symbols=PLAIN_SYMBOLS,
        units={p: display_unit(p)[1] for p in PARAMETERS},
        best=means.nsmallest(1, "mae").to_dict("records"),
        over_bound=(strains["mae"] / strains["prior_bound_mae"]).median(),
        networks=len(networks),
        helpless=networks["helpless"].sum(),
        impossible=networks["impossible"].sum(),
        above_best=ABOVE_BEST,
        figures=[_figure(file, captions) for file in figures],
        parameters=shown_parameters(shown),
        errors=_reader_rows(shown),
        bounds=_bound_rows(bounds),
        bound_parameters=shown_parameters(bounds),
        calibration=[] if calibration is None else _reader_rows(calibration),
        captions=captions,
        costs=costs.to_dict("records"),
        total=costs.sum(numeric_only=True).to_dict(),
        draws=pd.crosstab(draws["semiangle_mrad"], draws["split"]).to_dict("index"),
        resolved=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True),
        provenance=_provenance(config, revision, patterns),
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
        try:
            template = environment.from_string(file.read_text(encoding="utf-8"))
            text = template.render(snakemake={"config": config})
        except jinja2.TemplateError as error:
            raise PacbedError(f"cannot use the caption {file}: {error}") from error
        captions[file.stem] = " ".join(text.split())
    return captions


def _value(stored: float, parameter: str, significant: int = 3) -> str:
    """Return the value of a parameter in the unit of figures."""
    return number(display_unit(parameter)[0] * stored, significant)


def _sample(row: Mapping[str, Any]) -> str:
    """Name a sample, to be broken nowhere but after the comma."""
    layers = layers_label(int(row["layers"])).replace(" ", NO_BREAK)
    return f"{row['semiangle_mrad']:g}{NO_BREAK}mrad, {layers}"


# Tables


def _reader_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return the rows by parameter for every network, and after those of a sample other methods."""
    ranks = {"method": list(METHODS), "outputs": list(OUTPUTS)}
    keys = [*SAMPLE, "method", "outputs", "intensity"]
    ordered = table.sort_values(
        keys, key=lambda c: c.map(ranks[c.name].index) if c.name in ranks else c, kind="stable"
    )
    rows = []
    for _, group in ordered.groupby(keys, sort=False):
        of = {row["parameter"]: row for row in group.to_dict("records")}
        first = group.iloc[0]
        network, label = first["method"] == NETWORK, METHODS[first["method"]][0]
        if network:
            label = variant_label(first["outputs"], first["intensity"])
        rows.append({**first, "network": network, "label": label, "of": of})
    return rows


def _bound_rows(bounds: pd.DataFrame) -> list[dict[str, Any]]:
    """Return a row for every sample: the bound as mean absolute error at both ends of the dose."""
    states = sorted(bounds["state"].unique(), key=lambda state: state != UNDEFORMED)
    chosen = bounds[bounds["state"].isin(states[:1])].sort_values("electrons")
    rows = []
    for _, group in chosen.groupby(SAMPLE, sort=True):
        ends = {p: g.iloc[[0, -1]] for p, g in group.groupby("parameter")}
        of = {p: (MAE_OF_SIGMA * two["sigma"]).tolist() for p, two in ends.items()}
        electrons = group["electrons"].iloc[[0, -1]].tolist()
        rows.append({**group.iloc[0], "of": of, "electrons": electrons})
    return rows


# Figures


def _figure(file: Path, captions: Mapping[str, str]) -> dict[str, Any]:
    numeral = file.stem.removeprefix("fig")
    title = TITLES[file.stem]
    return {
        "name": file.stem,
        "title": f"Fig. {numeral}. {title}" if numeral.isdecimal() else title,
        "caption": captions[file.stem],
        **embedded(file.read_bytes(), str(file)),
    }


# Provenance


def costs_by_rule(jobs: Iterable[Any]) -> pd.DataFrame:
    """Add up what finished jobs have used.

    Parameters
    ----------
    jobs
        Each with ``rule``, ``threads`` and ``gpus`` (reserved), and ``seconds``:
        :class:`snakemake_logger_plugin_budget.jobs.Finished`.

    Returns
    -------
    pandas.DataFrame
        A row per rule: ``rule``, ``jobs``, ``core_hours`` and ``gpu_hours``; the dearest first.
    """
    columns = ["rule", "jobs", "core_hours", "gpu_hours"]
    rows = [(job.rule, 1, job.seconds * job.threads, job.seconds * job.gpus) for job in jobs]
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
        "Versions with which this page was written": versions(),
    }
