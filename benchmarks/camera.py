"""The bias of networks and fits that do not know of an elliptical camera, and of those that do.

    python benchmarks/camera.py [--folder results/camera] [--epochs 12]

One semi-angle (6.35 mrad), ten layers, images of 64 pixels made of a scattering series, coarse to
fine networks. One is trained with a perfect camera, one with ellipticities up to 2 % in any
direction. Both read test images of a perfect camera, and of cameras with 1 % along x and along the
diagonal. So does a fit, with and without ellipticity among its unknowns. Prints the mean error
(bias) and the mean absolute error of strain in %. What was finished is kept and not done again.
What was found: docs/training.md.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.examples.camera import CameraSettings
from pacbed.examples.dataset import Dataset, read_dataset, write_dataset
from pacbed.examples.pool import write_pool
from pacbed.examples.source import ExampleSource
from pacbed.learning.network import NetworkSettings
from pacbed.learning.prediction import predict
from pacbed.learning.schedule import OneCycleSchedule
from pacbed.learning.training import TrainingSettings, configure, train
from pacbed.machine import usable_cores
from pacbed.precision.bound import priors
from pacbed.reading.predictions import ExampleFits, search_range
from pacbed.scattering.fit import write_series
from pacbed.scattering.series import ScatteringSeries
from pacbed.study.configuration import load
from pacbed.study.draws import draw

SEMIANGLE_MRAD, LAYERS = 6.35, 10
CHANGE = {
    "microscope": {"semiangles_mrad": [SEMIANGLE_MRAD]},
    "deformation": {
        "principal_stretch": [0.98, 1.02],
        "tilt_mrad": [-2, 2],
        "rotation_deg": [-5, 5],
    },
    "simulation": {"engine": "planewave", "layers": LAYERS, "field_of_view_mrad": 64},
    "dataset": {
        "layers": [LAYERS],
        "pixels": 64,
        "field_of_view_mrad": 50,
        "field_of_view_variation": 0.02,
        "translation_px": 1,
        "noise": "poisson",
    },
}
POOL, EXAMPLES, TESTED, FITTED = 6000, 6144, 400, 48
UNKNOWN = CameraSettings(ellipticity=(0.0, 0.02))
TRAINED = {"perfect cameras": None, "elliptical cameras": UNKNOWN}
TEST = {
    "none": None,
    "1 % along x": CameraSettings((0.01, 0.01), (0.0, 0.0)),
    "1 % along the diagonal": CameraSettings((0.01, 0.01), (45.0, 45.0)),
}
STRAINS = ("strain_xx", "strain_yy", "strain_xy")


def main() -> None:
    """Train, read and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("results/camera"))
    parser.add_argument("--epochs", type=int, default=12)
    options = parser.parse_args()
    configure(usable_cores())
    study = Study(options.folder)
    rows = []
    for reader, camera in TRAINED.items():
        model = study.network(reader, camera, options.epochs)
        for shown, ellipse in TEST.items():
            data = study.dataset("test", shown, ellipse, TESTED)
            read = predict(model / "model.keras", model / "settings.json", data, print)
            rows += errors(f"network, {reader}", shown, read)
            fit = study.fit(data, camera, read)
            rows += errors(f"fit, {'free' if camera else 'no'} ellipticity", shown, fit)
    found = pd.DataFrame(rows)
    found.to_csv(options.folder / "camera.csv", index=False)
    show(found)


class Study:
    """A series, and pools and datasets that are made of it when they are not there yet."""

    def __init__(self, folder: Path) -> None:
        self.config, self.folder = load().changed(CHANGE), folder
        self.ranges = self.config.deformation.draw_ranges()
        self.settings = self.config.augmentation()
        self.scaling = self.config.deformation.label_scaling("strain-rotation-tilt")
        self.aperture = self.config.microscope.aperture(SEMIANGLE_MRAD)
        path, asked = folder / "series.zarr.zip", self.config.series(states=15, degree=2)
        if not path.exists():
            engine = PlaneWaveEngine(self.config.simulation.planewave.settings(), usable_cores())
            write_series(path, asked, engine)
        self.series = ScatteringSeries(path)

    def source(self, split: str, name: str, camera: CameraSettings | None) -> ExampleSource:
        """Return examples of a set and a camera."""
        settings = replace(self.settings, camera=camera)
        path = self.folder / f"{split}, {name}.pool.zarr.zip"
        if not path.exists():
            # Each set has draws of its own; sets of different cameras have the same.
            seed = self.config.seed + ("train", "validation", "test").index(split)
            images = POOL if split == "train" else TESTED
            drawn = [draw(seed, SEMIANGLE_MRAD, n, self.ranges) for n in range(images)]
            states = [(one.deformation, one.tilt_mrad) for one in drawn]
            write_pool(path, self.series, states, self.aperture, LAYERS, settings, seed)
        address = (self.config.seed, SEMIANGLE_MRAD, LAYERS, split)
        source = ExampleSource.read([path], None, settings, EXAMPLES, address)
        # Numbers of draws count from the end of a pool: those of other sets are others.
        first = 10_000 * ("train", "validation", "test").index(split)
        return replace(
            source,
            library=replace(source.library, draws=range(first, first + len(source.library.draws))),
        )

    def dataset(
        self, split: str, name: str, camera: CameraSettings | None, examples: int
    ) -> Dataset:
        """Return examples in a file."""
        path = self.folder / f"{split}, {name}.zarr.zip"
        if not path.exists():
            write_dataset(path, replace(self.source(split, name, camera), examples=examples))
        return read_dataset(path)

    def network(self, name: str, camera: CameraSettings | None, epochs: int) -> Path:
        """Return the folder of a trained network."""
        folder = self.folder / f"{name}, {epochs} epochs"
        if (folder / "model.keras").exists():
            return folder
        network = NetworkSettings(
            filters=(16, 32, 64), dense=(256, 128), intensity="sqrt", kind="coarse-to-fine"
        )
        settings = TrainingSettings(
            network,
            OneCycleSchedule(epochs, 1e-3, 0.15),
            32,
            0.9,
            1,
            optimizer="adam",
        )
        train(
            self.source("train", name, camera),
            self.dataset("validation", name, camera, 1000),
            self.scaling,
            settings,
            folder,
            lambda epoch, epochs, losses: print(f"{name}: epoch {epoch}, {losses}", flush=True),
            print,
        )
        return folder

    def fit(
        self, data: Dataset, camera: CameraSettings | None, starts: pd.DataFrame
    ) -> pd.DataFrame:
        """Read some examples by a fit that knows, or does not know, that cameras are elliptical."""
        known = priors(self.ranges, replace(self.settings, camera=camera))
        fits = ExampleFits(self.series, data, known, search_range(self.ranges, self.settings))
        return fits.read(range(FITTED), starts)


def errors(reader: str, shown: str, table: pd.DataFrame) -> list[dict[str, object]]:
    """Return bias and mean absolute error of each strain in %."""
    rows = []
    for name in STRAINS:
        error = 100 * (table[f"predicted_{name}"] - table[f"true_{name}"])
        mean, mae = float(error.mean()), float(error.abs().mean())
        spread = float(error.std() / len(error) ** 0.5)
        rows.append(
            {
                "reader": reader,
                "ellipticity": shown,
                "strain": name,
                "bias": mean,
                "bias_sigma": spread,
                "mae": mae,
            }
        )
    return rows


def show(found: pd.DataFrame) -> None:
    """Print bias and, in brackets, the mean absolute error."""
    table = Table(title="bias ± its standard error (mean absolute error) in %")
    for column in ("reader", "ellipticity", *STRAINS):
        table.add_column(column)
    for (reader, shown), rows in found.groupby(["reader", "ellipticity"], sort=False):
        cells = [
            f"{bias:+.3f} ± {sigma:.3f} ({mae:.3f})"
            for bias, sigma, mae in rows[["bias", "bias_sigma", "mae"]].to_numpy().tolist()
        ]
        table.add_row(str(reader), str(shown), *cells)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
