"""``pacbed network``, ``evaluate`` and ``errors``: a network and how well it reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from pacbed.cli.common import Overlays, Threads, say, show_table, stderr
from pacbed.examples.labels import OUTPUTS, display_unit
from pacbed.exceptions import PacbedError
from pacbed.machine import usable_cores

if TYPE_CHECKING:
    import pandas as pd

SAMPLE = ("semiangle_mrad", "layers")
GEOMETRY = ("pixels", "field_of_view_mrad")


def network(*, config: Overlays = ()) -> None:
    """Print the layers of the configured network.

    The table has the output and the number of parameters of every layer.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pacbed.learning.network import build_network
    from pacbed.study.configuration import load
    from pacbed.study.training_settings import network_settings

    study = load(config)
    outputs = study.variants[0].outputs
    settings = network_settings(study, "linear")
    model = build_network(study.dataset.pixels, len(OUTPUTS[outputs]), settings)
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
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import pandas as pd

    from pacbed.examples.dataset import read_dataset
    from pacbed.learning.prediction import predict
    from pacbed.learning.training import configure
    from pacbed.precision.metrics import errors
    from pacbed.storage.files import check_writable
    from pacbed.storage.tables import write_table

    check_writable(output)
    paths = (dataset, *datasets)
    model, settings = model_folder / "model.keras", model_folder / "settings.json"
    _check_fit(paths, model, settings)
    configure(threads, log=say)
    tables = []
    for path in paths:
        with stderr().status(Text(f"reading {path}")):
            table = predict(model, settings, read_dataset(path), log=say)
        _print_errors(errors(table, table), f"{path}, {len(table)} examples")
        tables.append(table)
    if not output:
        return
    if datasets:
        for table, path in zip(tables, paths, strict=True):
            table.insert(0, "dataset", str(path))
    write_table(pd.concat(tables, ignore_index=True) if datasets else tables[0], output)
    print(output)


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


def _check_fit(datasets: Sequence[Path], model: Path, settings: Path) -> None:
    """Compare datasets with that on which a network was trained."""
    from pacbed.examples.dataset import refuse_other_simulation
    from pacbed.storage.zipped import open_store

    for path in (model, settings):
        if not path.is_file():
            raise PacbedError(
                f"{path} does not exist: name a folder that pacbed train or the workflow filled"
            )
    try:
        trained = flat(json.loads(settings.read_text(encoding="utf-8"))["data"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PacbedError(f"cannot read {settings}: {error}") from error
    for path in datasets:
        with open_store(path) as group:
            found = flat(dict(group.attrs))
        if differing := differences(found, trained, GEOMETRY):
            raise PacbedError(f"{path} does not fit {model}: {differing}")
        # Of what is not recorded `predict` warns, when the file is known to be a dataset.
        refuse_other_simulation(trained, found, str(path), lambda line: None)
        if differing := differences(found, trained, SAMPLE):
            say(f"warning: {path} is not what {model} was trained for: {differing}")


def _label(parameter: str) -> str:
    """Return a parameter and its unit, as the head of a row or column."""
    return f"{parameter.split('_deg')[0].split('_mrad')[0]} ({display_unit(parameter)[1]})"


def _in_units(parameter: str, mae: float, baseline_mae: float) -> str:
    factor, _ = display_unit(parameter)
    return f"{factor * mae:.3g} ({factor * baseline_mae:.3g})"


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

    The mean absolute errors, and in brackets those of always answering the mean.

    Parameters
    ----------
    table
        errors.csv of a run.
    split
        Which of the sets.
    """
    from pacbed.storage.tables import read_table

    found = read_table(table)
    if absent := {"split", "parameter", "mae", "baseline_mae"} - set(found.columns):
        raise PacbedError(
            f"{table} is not a table of errors: it has no {', '.join(sorted(absent))}"
        )
    found = found[found["split"] == split]
    if "dose" in found:  # other rows are of a part of the doses
        found = found[found["dose"] == "all"]
    if "method" not in found:
        found = found.assign(method="network")
    names = list(dict.fromkeys(found["parameter"]))
    shares = zip(found["parameter"], found["mae"], found["baseline_mae"], strict=True)
    found = found.assign(cell=[_in_units(name, mae, mean) for name, mae, mean in shares])
    shown = Table(title=f"Mean absolute error ({split} set); always the mean in brackets")
    for title in ("semi-angle", "layers", "read by"):
        shown.add_column(title, no_wrap=True)
    for name in names:
        shown.add_column(_label(name))
    keys = ["semiangle_mrad", "layers", "method", "outputs", "intensity"]
    cells = found.groupby([*keys, "parameter"])["cell"].first().unstack(fill_value="")
    for key, row in zip(cells.index.tolist(), cells[names].to_numpy(), strict=True):
        angle, layers, method, outputs, intensity = key
        reader = f"network, {outputs}, {intensity}" if method == "network" else str(method)
        shown.add_row(f"{angle:g} mrad", str(layers), reader, *row)
    # Numbers are not cut off in a narrow terminal, nor in a log, whose width is not known.
    Console(width=max(170, Console().width)).print(shown)
