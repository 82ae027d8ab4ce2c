"""The ``pacbed`` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pacbed import __version__
from pacbed.errors import PacbedError

CONFIG = Path("config/config.yaml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, or 1 after an error."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except PacbedError as error:
        Console(stderr=True).print("[bold red]error:[/] ", end="")
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="pacbed",
        description="PACBED patterns of deformed 2D materials, and how well a network reads them.",
    )
    parser.add_argument("--version", action="version", version=f"pacbed {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_simulate(commands)
    _add_show(commands)
    _add_network(commands)
    _add_errors(commands)
    return parser


def _add_simulate(commands: Any) -> None:
    command = commands.add_parser(
        "simulate",
        help="compute the patterns of one crystal",
        description="Compute the PACBED patterns of one crystal, one per layer, into a Zarr store.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = command.add_argument
    add("--engine", default="planewave", choices=["planewave"], help="what computes the patterns")
    add("--material", default="MoS2", help="MoS2, MoSe2, WS2, WSe2 or MoTe2")
    add("--energy", type=float, default=80.0, metavar="KEV", help="beam energy in keV")
    add(
        "--semiangle",
        type=float,
        default=18.13,
        metavar="MRAD",
        help="convergence semi-angle in mrad",
    )
    add(
        "--stretch",
        type=float,
        nargs=2,
        default=(1.0, 1.0),
        metavar=("L1", "L2"),
        help="principal stretches, largest first",
    )
    add(
        "--theta", type=float, default=0.0, metavar="DEG", help="first principal direction, degrees"
    )
    add(
        "--tilt",
        type=float,
        nargs=2,
        default=(0.0, 0.0),
        metavar=("X", "Y"),
        help="sample tilt in mrad",
    )
    add("--layers", type=int, default=20, help="number of layers; a pattern is kept after each")
    add("--phonons", type=int, default=0, metavar="N", help="frozen-phonon configurations")
    add(
        "--debye-waller",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="damp the potential of atoms at rest by thermal motion",
    )
    add(
        "--band-limit",
        choices=["prismatic", "converged"],
        default="converged",
        help="potential and band limit as Prismatic 2.0 at 0.15 Å, or converged",
    )
    add(
        "--incident-step",
        type=float,
        default=1.5,
        metavar="MRAD",
        help="spacing of the incident plane waves in mrad",
    )
    add(
        "--fov",
        type=float,
        nargs="+",
        default=[100.0],
        metavar="MRAD",
        help="full width of the field in mrad: X [Y]",
    )
    add(
        "--pixels",
        type=int,
        nargs="+",
        default=[256],
        metavar="N",
        help="pixels: NX [NY]; zero angle lies on pixel N // 2",
    )
    add(
        "--aperture-edge",
        type=float,
        default=0.0,
        metavar="MRAD",
        help="width of a soft aperture edge in mrad; 0 is hard, averaged over the pixel area",
    )
    add(
        "--aperture-profile",
        choices=["erf", "linear"],
        default="erf",
        help="shape of a soft edge; linear is that of Prismatic 2.0",
    )
    add("--seed", type=int, default=0, help="seed of everything random")
    add("--threads", type=_positive, default=os.cpu_count() or 1, help="threads to use")
    add("--output", type=Path, required=True, metavar="FILE", help="store, such as mos2.zarr.zip")
    command.set_defaults(run=_simulate)


def _simulate(options: argparse.Namespace) -> None:
    from pacbed.crystal import material
    from pacbed.deformation import Deformation
    from pacbed.engines import SimulationRequest, ThermalMotion, engine
    from pacbed.microscope import Aperture, Detector
    from pacbed.patterns import write_patterns

    request = SimulationRequest(
        material=material(options.material),
        deformation=Deformation(options.stretch[0], options.stretch[1], options.theta),
        tilt_mrad=tuple(options.tilt),
        layers=options.layers,
        energy_keV=options.energy,
        aperture=Aperture(options.semiangle, options.aperture_edge, options.aperture_profile),
        detector=Detector(_pair(options.fov, "--fov"), _pair(options.pixels, "--pixels")),
        thermal=ThermalMotion(options.phonons, options.debye_waller),
        seed=options.seed,
    )
    settings = {
        "band_limit": options.band_limit,
        "incident_step_mrad": options.incident_step,
    }
    chosen = engine(options.engine, settings, threads=options.threads)
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("plane waves")
        result = chosen.simulate(
            request, lambda done, total: bar.update(task, completed=done, total=total)
        )
    write_patterns(options.output, request, result)
    print(
        f"{options.output}: {options.layers} patterns of {request.detector.pixels[0]} × "
        f"{request.detector.pixels[1]} pixels, {result.provenance['seconds']:.1f} s. "
        f"Look at them: pacbed show {options.output}"
    )


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


def _pair(values: Sequence[Any], name: str) -> tuple[Any, Any]:
    if len(values) > 2:
        raise PacbedError(f"{name} takes one or two values, not {len(values)}")
    return values[0], values[-1]


def _add_show(commands: Any) -> None:
    command = commands.add_parser(
        "show",
        help="draw the patterns of a store",
        description="Draw patterns, left half linear and right half cube-root intensity.",
    )
    command.add_argument("store", type=Path, help="a store made by pacbed simulate or the workflow")
    command.add_argument(
        "--layers", type=int, nargs="+", metavar="N", help="thicknesses to draw (default: a choice)"
    )
    command.add_argument("--fov", type=float, metavar="MRAD", help="width to show in mrad")
    command.add_argument(
        "--output", type=Path, metavar="FILE", help="PNG or PDF (default: beside the store)"
    )
    command.set_defaults(run=_show)


def _show(options: argparse.Namespace) -> None:
    import numpy as np

    from pacbed.figures import save, show_patterns
    from pacbed.patterns import read_patterns

    store = read_patterns(options.store)
    available = store.layers.tolist()
    layers = options.layers or [n for n in (1, 2, 5, 10, 20) if n in available] or available[-1:]
    absent = [n for n in layers if n not in available]
    if absent:
        raise PacbedError(
            f"{options.store} has layers {available[0]} to {available[-1]}: {absent}?"
        )
    narrowest = 2 * min(np.abs(store.kx_mrad).max(), np.abs(store.ky_mrad).max())
    field = narrowest if options.fov is None else options.fov
    if not 0 < field <= narrowest * (1 + 1e-9):
        raise PacbedError(f"--fov must be between 0 and {narrowest:.4g} mrad, not {field:g}")
    figure = show_patterns(store, layers, field)
    name = options.store.name.removesuffix(".zip").removesuffix(".zarr")
    output = options.output or options.store.with_name(f"{name}.png")
    save(figure, output)
    print(output)


def _add_network(commands: Any) -> None:
    command = commands.add_parser(
        "network",
        help="print the layers of the configured network",
        description="Print the layer table of the configured network and its parameter count.",
    )
    _add_config(command)
    command.set_defaults(run=_network)


def _add_config(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--config",
        type=Path,
        nargs="+",
        default=[CONFIG],
        metavar="FILE",
        help=f"configuration and overlays; the first must be complete (default: {CONFIG})",
    )


def _network(options: argparse.Namespace) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pacbed.config import load
    from pacbed.labels import OUTPUTS
    from pacbed.network import build_network

    config = load(options.config)
    outputs = config["variants"][0]["outputs"]
    model = build_network(config["dataset"]["pixels"], len(OUTPUTS[outputs]), **config["network"])
    table = Table(title=f"Network for {outputs}")
    for title in ("layer", "kind", "output", "parameters"):
        table.add_column(title, justify="right" if title == "parameters" else "left")
    for layer in model.layers:
        shape = " × ".join(str(n) for n in layer.output.shape[1:])
        table.add_row(layer.name, type(layer).__name__, shape, f"{layer.count_params():,}")
    table.add_section()
    table.add_row("total", "", "", f"{model.count_params():,}")
    Console().print(table)


def _add_errors(commands: Any) -> None:
    command = commands.add_parser(
        "errors",
        help="print a table of prediction errors",
        description="Print the mean absolute errors of an error table beside those of always "
        "answering the mean.",
    )
    command.add_argument("table", type=Path, help="errors.csv of a run")
    command.add_argument("--split", default="test", choices=["train", "validation", "test"])
    command.set_defaults(run=_errors)


def _errors(options: argparse.Namespace) -> None:
    import pandas as pd

    from pacbed.figures import display_unit

    try:
        errors = pd.read_csv(options.table)
    except (OSError, pd.errors.ParserError, pd.errors.EmptyDataError) as problem:
        raise PacbedError(f"cannot read {options.table}: {problem}") from problem
    absent = {"split", "parameter", "mae", "baseline_mae"} - set(errors.columns)
    if absent:
        raise PacbedError(
            f"{options.table} is not a table of errors: it has no {', '.join(sorted(absent))}"
        )
    errors = errors[errors["split"] == options.split]
    names = list(dict.fromkeys(errors["parameter"]))
    table = Table(title=f"Mean absolute error ({options.split} set); always the mean in brackets")
    for title in ("semi-angle", "layers", "outputs", "intensity"):
        table.add_column(title)
    for name in names:
        table.add_column(f"{name.split('_deg')[0].split('_mrad')[0]} ({display_unit(name)[1]})")
    keys = ["semiangle_mrad", "layers", "outputs", "intensity"]
    for (angle, layers, outputs, intensity), rows in errors.groupby(keys, sort=True):
        cells = []
        for name in names:
            row = rows[rows["parameter"] == name]
            factor = display_unit(name)[0]
            cells.append(
                f"{factor * row['mae'].iloc[0]:.3g} ({factor * row['baseline_mae'].iloc[0]:.3g})"
                if len(row)
                else ""
            )
        table.add_row(f"{angle:g} mrad", str(layers), outputs, intensity, *cells)
    # In a log the width of a terminal is not known: do not fold the table.
    Console(width=None if sys.stdout.isatty() else 170).print(table)
