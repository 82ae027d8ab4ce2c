"""``pacbed network``, ``evaluate`` and ``errors``: a network and how well it reads."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from pacbed.cli.common import Overlays, Threads, busy, say, show_table
from pacbed.examples.labels import OUTPUTS, display_unit
from pacbed.exceptions import PacbedError
from pacbed.machine import usable_cores

if TYPE_CHECKING:
    import pandas as pd

    from pacbed.learning.prediction import TrainedNetwork

SAMPLE = ("semiangle_mrad", "layers")
_ORDER = {"network": 0, "network+fit": 1, "fit": 2, "discs": 3, "discs-calibrated": 4}
GEOMETRY = ("pixels", "field_of_view_mrad")


def network(*, config: Overlays = ()) -> None:
    """Print the layers of the configured network.

    The table has the output and the number of parameters of every layer.
    """
    from pacbed.learning.network import build_network
    from pacbed.study.configuration import load
    from pacbed.study.training_settings import network_settings

    study = load(config)
    outputs, seen = study.variants[0].outputs, study.dataset
    model = build_network(
        seen.pixels,
        len(OUTPUTS[outputs]),
        network_settings(study, "linear"),
        first=study.deformation.label_scaling(outputs).with_nuisances(
            seen.translation_px, seen.field_of_view_variation
        ),
    )
    table = Table(title=f"Network for {outputs}")
    for title in ("layer", "kind", "output", "parameters"):
        table.add_column(title, justify="right" if title == "parameters" else "left")
    for layer in model.layers:
        shape = " × ".join(str(n) for n in layer.output.shape[1:])
        table.add_row(layer.name, type(layer).__name__, shape, f"{layer.count_params():,}")
    table.add_section()
    table.add_row("total", "", "", f"{model.count_params():,}")
    show_table(table)


def evaluate(
    model_folder: Path,
    dataset: Path,
    /,
    *datasets: Path,
    output: Path | None = None,
    threads: Threads = usable_cores(),
) -> None:
    """Predict the parameters of datasets with a network.

    Print how far the predictions are from the truth, and the error of always answering the mean
    of the same dataset.

    Parameters
    ----------
    model_folder
        Where model.keras and settings.json are, of pacbed train or of the workflow.
    dataset
        Dataset, such as test.zarr.zip.
    datasets
        More of them.
    output
        Also write all predictions to this Parquet file, with a column dataset for several.
    """
    import pandas as pd

    from pacbed.examples.dataset import read_dataset
    from pacbed.learning.prediction import predict_examples, read_network
    from pacbed.learning.training import configure
    from pacbed.precision.metrics import errors
    from pacbed.storage.files import check_writable
    from pacbed.storage.tables import write_table

    check_writable(output)
    paths = (dataset, *datasets)
    configure(threads, log=say)
    network = read_network(model_folder / "model.keras", model_folder / "settings.json")
    _check_fit(paths, network)
    tables = []
    for path in paths:
        with busy(f"reading {path}"):
            table = predict_examples(network, read_dataset(path), log=say)
        _print_errors(errors(table, table), f"{path}, {len(table)} examples")
        tables.append(table)
    if not output:
        return
    if datasets:
        for table, path in zip(tables, paths, strict=True):
            table.insert(0, "dataset", str(path))
    print(write_table(pd.concat(tables, ignore_index=True) if datasets else tables[0], output))


def flat(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes of a dataset with those of its augmentation among them."""
    return {**attributes, **attributes.get("augmentation", {})}


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any], names: Iterable[str]) -> str:
    """Return which of some attributes differ, as far as both have them, in words."""
    return "; ".join(
        f"{name} is {found[name]}, not {wanted[name]}"
        for name in names
        if name in found and name in wanted and found[name] != wanted[name]
    )


def _check_fit(datasets: Sequence[Path], network: TrainedNetwork) -> None:
    """Compare datasets with that on which a network was trained."""
    from pacbed.examples.dataset import read_attributes, refuse_other_simulation

    trained, model = flat(network.settings["data"]), network.model_file
    for path in datasets:
        found = flat(read_attributes(path))
        refuse_other_simulation(trained, found, str(path))
        if differing := differences(found, trained, GEOMETRY):
            raise PacbedError(f"{path} does not fit {model}: {differing}")
        if differing := differences(found, trained, SAMPLE):
            say(f"warning: {path} is not what {model} was trained for: {differing}")


def _label(parameter: str) -> str:
    """Return a parameter and its unit, as the head of a row or column."""
    return f"{parameter.split('_deg')[0].split('_mrad')[0]} ({display_unit(parameter)[1]})"


def _print_errors(found: pd.DataFrame, title: str) -> None:
    table = Table(title=Text(title))
    table.add_column("parameter")
    for column in ("MAE", "RMSE", "bias", "95th percentile", "MAE of the mean"):
        table.add_column(column, justify="right")
    for row in found.to_dict("records"):
        factor, _ = display_unit(str(row["parameter"]))
        cells = [f"{factor * row[name]:.3g}" for name in ("mae", "rmse", "p95", "baseline_mae")]
        cells.insert(2, f"{factor * row['bias']:+.3g}")
        table.add_row(_label(str(row["parameter"])), *cells)
    show_table(table)


def errors(table: Path, /, *, split: Literal["train", "validation", "test"] = "test") -> None:
    """Print a table of prediction errors.

    The mean absolute errors of all ways of reading, as wide as the terminal; below them the
    smallest possible ones by the Cramér-Rao bound, and those of always answering the mean.

    Parameters
    ----------
    table
        errors.csv of a run.
    split
        Which of the sets.
    """
    from pacbed.storage.tables import read_table

    found = read_table(table)
    needed = {"split", "parameter", "mae", "baseline_mae", "outputs", "intensity", *SAMPLE}
    if absent := needed - set(found.columns):
        raise PacbedError(
            f"{table} is not a table of errors: it has no {', '.join(sorted(absent))}"
        )
    found = found[found["split"] == split]
    if "dose" in found:  # other rows are of a part of the doses
        found = found[found["dose"] == "all"]
    if "method" not in found:
        found = found.assign(method="network")
    if found.empty:
        raise PacbedError(f"{table} has no errors of the {split} set")
    names = list(dict.fromkeys(found["parameter"]))
    shown = Table(
        title=f"Mean absolute error ({split} set)",
        title_justify="left",
        box=None,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    shown.add_column("read by", no_wrap=True, overflow="fold")
    for name in names:
        shown.add_column(_label(name).replace(" ", "\n"), justify="right")
    for key, sample in found.groupby(list(SAMPLE)):
        angle, layers = np.array(key)
        what = f"{angle:g} mrad, {layers:g} layer{'s' if layers > 1 else ''}"
        shown.add_row(Text(what, style="bold"))
        for reader, cells in _readers(sample).items():
            shown.add_row(f" {reader}", *(cells.get(name, "") for name in names))
    console = Console()
    console.print(shown)
    if "bound_mae" in found:
        console.print(
            "The bound is of counted electrons. Errors may lie a little below it: the noise of the "
            "examples tells more, and fits read some of the examples only."
        )


def _readers(sample: pd.DataFrame) -> dict[str, dict[str, str]]:
    """Return by reader and parameter the errors of one sample, networks first."""
    networks = sample[sample["method"] == "network"].groupby("outputs")["intensity"]
    several = networks.nunique().max() > 1

    def name(row: Mapping[Hashable, Any]) -> str:
        if row["method"] != "network":
            return str(row["method"])
        without = "" if "tilt" in row["outputs"] else " without tilt"
        return f"network{without}{', ' + row['intensity'] if several else ''}"

    rows = sample.assign(tilt=sample["outputs"].str.contains("tilt")).sort_values(
        ["method", "tilt"], key=lambda c: c.map(_ORDER) if c.name == "method" else ~c, kind="stable"
    )
    readers: dict[str, dict[str, str]] = {}
    for row in rows.to_dict("records"):
        _enter(readers, name(row), row, "mae")
    # The first is of a network, and of all of its test set.
    for title, column in (("bound", "bound_mae"), ("always the mean", "baseline_mae")):
        for row in rows.drop_duplicates("parameter").to_dict("records") if column in rows else ():
            _enter(readers, title, row, column)
    return readers


def _enter(
    readers: dict[str, dict[str, str]], reader: str, row: Mapping[Hashable, Any], column: str
) -> None:
    parameter = str(row["parameter"])
    factor, _ = display_unit(parameter)
    readers.setdefault(reader, {})[parameter] = f"{factor * row[column]:.3g}"
