"""The ``pacbed`` command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from pacbed import __version__
from pacbed.exceptions import BudgetExceeded, PacbedError
from pacbed.machine import clear_away_on_sigterm, usable_cores

if TYPE_CHECKING:
    from pacbed.engines import SimulationRequest
    from pacbed.patterns.store import PatternStore
    from pacbed.specimen.microscope import Aperture, Detector

CONFIG = Path("config/config.yaml")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit status: 0, 1 after an error, 3 over a limit."""
    options = _parser().parse_args(arguments)
    clear_away_on_sigterm()
    try:
        options.run(options)
    except PacbedError as error:
        Console(stderr=True).print("[bold red]error:[/] ", end="")
        print(error, file=sys.stderr)
        return 3 if isinstance(error, BudgetExceeded) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    return 0


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Help that names defaults, where there is one that says something."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        named = action.default is None or "(default:" in (action.help or "")
        return action.help if named else super()._get_help_string(action)


def _parser() -> argparse.ArgumentParser:
    # Here, since they import this module.
    from pacbed.cli.design import add_design
    from pacbed.cli.learning import add_evaluate, add_train

    parser = argparse.ArgumentParser(
        prog="pacbed",
        description="PACBED patterns of deformed 2D materials, and how well a network reads them.",
    )
    parser.add_argument("--version", action="version", version=f"pacbed {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_simulate(commands)
    _add_show(commands)
    _add_compare(commands)
    _add_converge(commands)
    _add_network(commands)
    add_train(commands)
    add_evaluate(commands)
    _add_errors(commands)
    add_design(commands)
    _add_plan(commands)
    _add_doctor(commands)
    return parser


def _add_simulate(commands: Any) -> None:
    command = commands.add_parser(
        "simulate",
        help="compute the patterns of one crystal",
        description="Compute the PACBED patterns of one crystal, one per layer, into a Zarr store. "
        "Several semi-angles and tilts share one calculation, and make a store for each pair.",
        formatter_class=HelpFormatter,
    )
    _add_crystal(command)
    add = command.add_argument
    add(
        "--semiangle",
        type=float,
        nargs="+",
        default=[18.13],
        metavar="MRAD",
        help="convergence semi-angles in mrad",
    )
    add(
        "--tilt",
        type=float,
        nargs=2,
        action="append",
        metavar=("X", "Y"),
        help="sample tilt in mrad; repeat for several (default: 0 0)",
    )
    add(
        "--engine",
        default="planewave",
        choices=["planewave", "prismatic"],
        help="what computes the patterns",
    )
    _add_numerics(command)
    _add_prismatic(command)
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
        type=_pixels,
        nargs="+",
        default=[256],
        metavar="N",
        help="pixels: NX [NY]; zero angle lies on pixel N // 2; or native, those of Prismatic",
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
    add(
        "--output",
        type=Path,
        required=True,
        metavar="FILE",
        help="store, such as mos2.zarr.zip; of several, semi-angle and tilt are added to the name",
    )
    command.set_defaults(run=_simulate)


def _add_crystal(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--material", default="MoS2", help="MoS2, MoSe2, WS2, WSe2 or MoTe2")
    add("--energy", type=float, default=80.0, metavar="KEV", help="beam energy in keV")
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
    add("--layers", type=int, default=20, help="number of layers; a pattern is kept after each")


def _add_numerics(command: argparse.ArgumentParser, phonons: int = 0) -> None:
    add = command.add_argument
    add(
        "--phonons",
        type=int,
        default=phonons,
        metavar="N",
        help="frozen-phonon configurations, of each plane wave or of Prismatic's box; 0: atoms at "
        "rest",
    )
    add(
        "--debye-waller",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="damp the potential of atoms at rest by thermal motion",
    )
    add(
        "--slices",
        type=_slices,
        metavar="N",
        help="equal slices per layer, or planes: one on every atomic plane (default: planes; "
        "3 for Prismatic and with --band-limit prismatic)",
    )
    add("--device", choices=["cpu", "gpu"], default="cpu", help="where to compute")
    add("--seed", type=int, default=0, help="seed of everything random")
    add("--threads", type=positive, default=usable_cores(), help="threads to use")
    add = command.add_argument_group("plane-wave engine").add_argument
    add(
        "--band-limit",
        type=_band_limit,
        default="converged",
        metavar="LIMIT",
        help="prismatic: potential and band limit as Prismatic 2.0 at 0.15 Å; converged; or a "
        "number in 1/Å",
    )
    add(
        "--incident-step",
        type=float,
        default=2.0,
        metavar="MRAD",
        help="spacing of the incident plane waves in mrad",
    )
    add(
        "--supercell",
        type=int,
        nargs=2,
        default=(8, 5),
        metavar=("NX", "NY"),
        help="cells that have thermal displacements of their own",
    )
    add("--precision", choices=["single", "double"], default="single", help="of the numbers")


def _add_prismatic(command: argparse.ArgumentParser) -> None:
    add = command.add_argument_group("Prismatic 2.0").add_argument
    add("--sampling", type=float, default=0.15, metavar="ANGSTROM", help="of the potential in Å")
    add(
        "--interpolation-factor",
        type=positive,
        default=4,
        metavar="N",
        help="grid points are a multiple of four times this",
    )
    add(
        "--potential-bound",
        type=float,
        default=3.0,
        metavar="ANGSTROM",
        help="radius of the potential of an atom in Å",
    )
    add(
        "--box",
        type=_or_auto(float),
        default=400.0,
        metavar="ANGSTROM",
        help="edge of the box in Å, or auto",
    )
    add(
        "--probe-region",
        type=float,
        default=200.0,
        metavar="ANGSTROM",
        help="edge of the central square of the box that holds the probes, in Å; an automatic box "
        "has its own",
    )
    add(
        "--probes",
        type=_or_auto(positive),
        nargs="+",
        default=[16, 28],
        metavar="N",
        help="positions along x and y of the cell: NX NY, or auto",
    )
    add(
        "--probes-per-configuration",
        choices=["all", "split"],
        default="all",
        help="split gives each phonon configuration its share of the probes",
    )
    add(
        "--prismatic-python",
        metavar="PATH",
        help="interpreter that has pyprismatic 2.0 (default: this one)",
    )
    add(
        "--scratch",
        type=float,
        metavar="GB",
        help="largest part of TMPDIR to fill (default: most of what is free)",
    )
    add("--log", type=Path, metavar="FILE", help="where to write what Prismatic prints")


def _request(
    options: argparse.Namespace, aperture: Aperture, tilt: tuple[float, float], detector: Detector
) -> SimulationRequest:
    from pacbed.engines import SimulationRequest, ThermalMotion
    from pacbed.specimen.crystal import material
    from pacbed.specimen.deformation import Deformation

    return SimulationRequest(
        material=material(options.material),
        deformation=Deformation(options.stretch[0], options.stretch[1], options.theta),
        tilt_mrad=tilt,
        layers=options.layers,
        energy_keV=options.energy,
        aperture=aperture,
        detector=detector,
        thermal=ThermalMotion(options.phonons, options.debye_waller),
        seed=options.seed,
    )


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    slices = 3 if options.band_limit == "prismatic" else "planes"
    return {
        "band_limit": options.band_limit,
        "slices_per_layer": options.slices or slices,
        "incident_step_mrad": options.incident_step,
        "supercell": tuple(options.supercell),
        "precision": options.precision,
    }


def _prismatic_settings(options: argparse.Namespace) -> dict[str, Any]:
    if options.slices == "planes":
        raise PacbedError("Prismatic has equal slices: give their number per layer (--slices 3)")
    return {
        "pixel_A": options.sampling,
        "slices_per_layer": options.slices or 3,
        "interpolation_factor": options.interpolation_factor,
        "potential_bound_A": options.potential_bound,
        "box_A": options.box,
        "probe_region_A": options.probe_region,
        "probes": _words("auto", options.probes, "--probes"),
        "probes_per_configuration": options.probes_per_configuration,
    }


def _detector(options: argparse.Namespace) -> Detector:
    from pacbed.engines.prismatic import PrismaticSettings, native_detector
    from pacbed.specimen.microscope import Detector

    pixels = _words("native", options.pixels, "--pixels")
    if pixels != "native":
        return Detector(_pair(options.fov, "--fov"), _pair(pixels, "--pixels"))
    if options.engine != "prismatic":
        raise PacbedError("only Prismatic has native pixels: give a number with --pixels")
    return native_detector(PrismaticSettings(**_prismatic_settings(options)), options.energy)


def _simulate(options: argparse.Namespace) -> None:
    from itertools import product

    from pacbed.engines import engine
    from pacbed.patterns.store import write_patterns
    from pacbed.specimen.microscope import Aperture
    from pacbed.storage.zipped import checkpoint_of

    detector = _detector(options)
    requests = [
        _request(
            options,
            Aperture(semiangle, options.aperture_edge, options.aperture_profile),
            tuple(tilt),
            detector,
        )
        for semiangle, tilt in product(options.semiangle, options.tilt or [(0.0, 0.0)])
    ]
    outputs = [_store_name(options.output, r, len(requests)) for r in requests]
    if len(set(outputs)) < len(outputs):
        raise PacbedError("a pair of semi-angle and tilt (to six digits) is asked for twice")
    prismatic = options.engine == "prismatic"
    if options.scratch is not None and options.scratch <= 0:
        raise PacbedError(f"--scratch must be greater than 0, not {options.scratch:g}")
    checkpoints = [checkpoint_of(output) for output in outputs]
    with (
        _log(options.log) as log,
        Progress(console=Console(stderr=True), transient=True) as bar,
    ):
        chosen = engine(
            options.engine,
            _prismatic_settings(options) if prismatic else _settings(options),
            options.threads,
            options.device,
            {"python": options.prismatic_python, "scratch_GB": options.scratch},
            log,
        )
        task = bar.add_task("probes" if prismatic else "plane waves")
        results = chosen.simulate_together(
            requests,
            lambda done, total: bar.update(task, completed=done, total=total),
            checkpoints,
        )
    for output, request, result in zip(outputs, requests, results, strict=True):
        write_patterns(output, request, result)
        noise = result.provenance.get("phonon_noise")
        print(
            f"{output}: {request.layers} patterns of {request.detector.pixels[0]} × "
            f"{request.detector.pixels[1]} pixels"
            + (f", phonon noise up to {100 * max(noise):.2g} %" if noise else "")
        )
    for checkpoint in checkpoints:  # not before all stores are there
        checkpoint.unlink(missing_ok=True)
    seconds = [result.provenance["seconds"] for result in results]
    print(
        f"{sum(seconds) if prismatic else seconds[0]:.1f} s. Look at them: pacbed show {outputs[0]}"
    )


@contextmanager
def _log(path: Path | None) -> Iterator[Callable[[str], None]]:
    """Provide what writes lines to a file, or nowhere."""
    if path is None:
        yield lambda line: None
        return
    try:
        file = open(path, "w", buffering=1, encoding="utf-8")  # noqa: SIM115
    except OSError as error:
        raise PacbedError(f"cannot write {path}: {error.strerror}") from error
    with file:
        yield lambda line: print(line, file=file)


def _store_name(output: Path, request: SimulationRequest, count: int) -> Path:
    """Return the name of a store; of several, with semi-angle and tilt before the suffixes."""
    if count == 1:
        return output
    suffix = "".join(s for s in (".zarr", ".zip") if s in output.suffixes)
    stem = output.name.removesuffix(suffix)
    x, y = request.tilt_mrad
    name = f"{stem}_{request.aperture.semiangle_mrad:g}mrad_tilt{x:+g}{y:+g}{suffix}"
    return output.with_name(name)


def _band_limit(text: str) -> str | float:
    if text in ("prismatic", "converged"):
        return text
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"prismatic, converged or a number in 1/Å, not '{text}'"
        ) from None


def _slices(text: str) -> str | int:
    if text == "planes":
        return text
    if text.isdecimal():
        return positive(text)
    raise argparse.ArgumentTypeError(f"planes or a number of slices, not '{text}'")


def _pixels(text: str) -> str | int:
    return text if text == "native" else positive(text)


def _or_auto(kind: Callable[[str], Any]) -> Callable[[str], Any]:
    def value(text: str) -> Any:
        return text if text == "auto" else kind(text)

    value.__name__ = f"{kind.__name__} or auto"
    return value


def positive(text: str) -> int:
    """Read a whole number, 1 or more, of the command line."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number, 1 or more, not '{text}'")
    return int(text)


def _words(word: str, values: Sequence[Any], name: str) -> Any:
    """Return a word that stands by itself, or numbers."""
    if word not in values:
        return tuple(values)
    if len(values) > 1:
        raise PacbedError(f"{name} takes numbers or the word '{word}', not both")
    return word


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
    from pacbed.figures.patterns import show_patterns
    from pacbed.figures.style import save
    from pacbed.patterns.store import read_patterns

    store = read_patterns(options.store)
    layers = _layers(options, store.layers.tolist(), f"{options.store} has")
    field = _field_mrad(options, store)
    figure = show_patterns(store, layers, field)
    name = options.store.name.removesuffix(".zip").removesuffix(".zarr")
    output = options.output or options.store.with_name(f"{name}.png")
    save(figure, output)
    print(output)
    widest = 2 * float(max(abs(axis).max() for axis in (store.kx_mrad, store.ky_mrad)))
    if options.fov is None and widest > 1.01 * field:
        print(f"shown: {field:.4g} mrad, the narrower side of the field", file=sys.stderr)


def _layers(options: argparse.Namespace, available: list[int], which: str) -> list[int]:
    """Return the layers that are asked for, or a choice of those that there are."""
    choice = [n for n in (1, 2, 5, 10, 20) if n in available and n != available[-1]]
    layers = options.layers or [*choice, available[-1]]
    if absent := [n for n in layers if n not in available]:
        raise PacbedError(f"{which} layers {available[0]} to {available[-1]}: {absent}?")
    return layers


def _field_mrad(options: argparse.Namespace, store: PatternStore) -> float:
    """Return the width to draw, by default that of the patterns."""
    narrowest = 2 * float(min(abs(axis).max() for axis in (store.kx_mrad, store.ky_mrad)))
    field = narrowest if options.fov is None else options.fov
    if not 0 < field <= narrowest * (1 + 1e-9):
        raise PacbedError(f"--fov must be between 0 and {narrowest:.4g} mrad, not {field:g}")
    return field


def _add_compare(commands: Any) -> None:
    command = commands.add_parser(
        "compare",
        help="tell how far the patterns of two stores are apart",
        description="Print the relative L1 distance of the patterns of A from those of B, of "
        "another engine or other settings, and draw both and their difference.",
    )
    add = command.add_argument
    add("a", type=Path, metavar="A", help="a store made by pacbed simulate or the workflow")
    add("b", type=Path, metavar="B", help="the store that A is compared with")
    add(
        "--layers", type=int, nargs="+", metavar="N", help="thicknesses to draw (default: a choice)"
    )
    add("--fov", type=float, metavar="MRAD", help="width to show in mrad (default: all)")
    add(
        "--output",
        type=Path,
        default=Path("compare.png"),
        metavar="FILE",
        help="PNG or PDF (default: compare.png)",
    )
    command.set_defaults(run=_compare)


def _compare(options: argparse.Namespace) -> None:
    from pacbed.figures.patterns import compare_patterns
    from pacbed.figures.style import save
    from pacbed.patterns.difference import compare, differences
    from pacbed.patterns.store import read_patterns

    a, b = read_patterns(options.a), read_patterns(options.b)
    found = compare(a, b)
    common = found.layers.tolist()
    layers = _layers(options, common, "both stores have")
    field = _field_mrad(options, a)
    names = str(options.a), str(options.b)
    save(compare_patterns(a, b, layers, field, names), options.output)
    for letter, name, store in zip("AB", names, (a, b), strict=True):
        print(f"{letter}: {name}: {_made_by(store, common[-1])}")
    if differing := differences(a, b):
        Console(stderr=True).print("[bold yellow]warning:[/] ", end="")
        print(f"they differ in what was simulated: {'; '.join(differing)}", file=sys.stderr)
    table = Table(title="A against B in %, and how many of the electrons are in the field")
    for column in ("layers", "relative L1", "relative L1 at equal sums", "sum of A", "sum of B"):
        table.add_column(column, justify="right")
    columns = found.change, found.change_of_shape, found.sum_a, found.sum_b
    for n, *values in zip(common, *columns, strict=True):
        table.add_row(str(n), *(f"{100 * v:.3f}" for v in values))
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    print(options.output)


def _made_by(store: PatternStore, layers: int) -> str:
    noise = store.attributes.get("phonon_noise")
    number = store.layers.tolist().index(layers)
    return f"engine {store.attributes.get('engine', 'unknown')}" + (
        f", phonon noise {100 * noise[number]:.2g} % at {layers} layers" if noise else ""
    )


def _add_converge(commands: Any) -> None:
    command = commands.add_parser(
        "converge",
        help="find out how much the numerical settings matter",
        description="Refine the band limit, the slices, the incident grid, the supercell and the "
        "number of configurations, one after another, and print and draw how much each changes "
        "the pattern after every layer.",
        formatter_class=HelpFormatter,
    )
    _add_crystal(command)
    add = command.add_argument
    add("--semiangle", type=float, default=6.35, metavar="MRAD", help="semi-angle in mrad")
    add(
        "--tilt",
        type=float,
        nargs=2,
        default=(0.0, 0.0),
        metavar=("X", "Y"),
        help="sample tilt in mrad",
    )
    add("--fov", type=float, default=100.0, metavar="MRAD", help="width of the field in mrad")
    _add_numerics(command, phonons=2)
    add(
        "--output",
        type=Path,
        default=Path("convergence.png"),
        metavar="FILE",
        help="figure (PNG or PDF); a table of the same name ends in .csv",
    )
    command.set_defaults(run=_converge)


def _converge(options: argparse.Namespace) -> None:
    import pandas as pd

    from pacbed.engines.planewave import PlaneWaveSettings
    from pacbed.figures.convergence import changes_against_thickness
    from pacbed.figures.style import save
    from pacbed.patterns.convergence import Refinement, refinements
    from pacbed.specimen.microscope import Aperture, Detector
    from pacbed.storage.files import write_text

    detector = Detector((options.fov, options.fov), (256, 256))
    request = _request(options, Aperture(options.semiangle), tuple(options.tilt), detector)
    found: list[Refinement] = []
    with Progress(console=Console(stderr=True), transient=True) as bar:

        def progress(name: str) -> Callable[[int, int], None]:
            task = bar.add_task(name)
            return lambda done, total: bar.update(task, completed=done, total=total)

        settings = PlaneWaveSettings(**_settings(options))
        found += refinements(request, settings, options.threads, options.device, progress)
    layers = [n for n in (1, 2, 5, 10, 15) if n < options.layers] + [options.layers]
    table = Table(
        title="Change of the pattern (%) by number of layers; due to phonon noise in brackets"
    )
    for column in ("setting", "from", "to", *map(str, layers)):
        table.add_column(column)
    for one in found:
        cells = [f"{100 * one.change[n - 1]:.2f}" for n in layers]
        if one.noise is not None:
            cells = [
                f"{c} ({100 * one.noise[n - 1]:.2f})" for c, n in zip(cells, layers, strict=True)
            ]
        table.add_row(one.setting, one.before, one.after, *cells)
    Console(width=None if sys.stdout.isatty() else 140).print(table)
    rows = [
        {
            "setting": one.setting,
            "from": one.before,
            "to": one.after,
            "layers": n + 1,
            "relative_change": change,
            "phonon_noise": None if one.noise is None else one.noise[n],
        }
        for one in found
        for n, change in enumerate(one.change)
    ]
    title = f"{options.material}, {options.energy:g} keV, {options.semiangle:g} mrad"
    save(changes_against_thickness(found, title), options.output)
    csv = options.output.with_suffix(".csv")
    write_text(csv, pd.DataFrame(rows).to_csv(index=False))
    print(f"{options.output}, {csv}")


def _add_network(commands: Any) -> None:
    command = commands.add_parser(
        "network",
        help="print the layers of the configured network",
        description="Print the layer table of the configured network and its parameter count.",
    )
    add_config(command)
    command.set_defaults(run=_network)


def add_config(command: argparse.ArgumentParser) -> None:
    """Add the option that names the configuration."""
    command.add_argument(
        "--config",
        type=Path,
        nargs="+",
        default=[CONFIG],
        metavar="FILE",
        help=f"overlays of {CONFIG}, the last one wins; or a complete configuration",
    )


def configuration(paths: Sequence[Path]) -> list[Path]:
    """Return the files of a configuration, that of the workflow first."""
    return [*([CONFIG] if CONFIG not in paths and CONFIG.is_file() else []), *paths]


def _network(options: argparse.Namespace) -> None:
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from pacbed.examples.labels import OUTPUTS
    from pacbed.learning.network import build_network
    from pacbed.study.configuration import load

    config = load(configuration(options.config))
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
    from pacbed.examples.labels import display_unit
    from pacbed.storage.tables import read_table

    errors = read_table(options.table)
    absent = {"split", "parameter", "mae", "baseline_mae"} - set(errors.columns)
    if absent:
        raise PacbedError(
            f"{options.table} is not a table of errors: it has no {', '.join(sorted(absent))}"
        )
    errors = errors[errors["split"] == options.split]
    if "dose" in errors:  # other rows are of a part of the doses
        errors = errors[errors["dose"] == "all"]
    if "method" not in errors:
        errors = errors.assign(method="network")
    names = list(dict.fromkeys(errors["parameter"]))
    table = Table(title=f"Mean absolute error ({options.split} set); always the mean in brackets")
    for title in ("semi-angle", "layers", "read by"):
        table.add_column(title, no_wrap=True)
    for name in names:
        table.add_column(f"{name.split('_deg')[0].split('_mrad')[0]} ({display_unit(name)[1]})")
    keys = ["semiangle_mrad", "layers", "method", "outputs", "intensity"]
    for (angle, layers, method, outputs, intensity), rows in errors.groupby(keys, sort=True):
        reader = f"network, {outputs}, {intensity}" if method == "network" else str(method)
        cells = []
        for name in names:
            row = rows[rows["parameter"] == name]
            factor = display_unit(name)[0]
            cells.append(
                f"{factor * row['mae'].iloc[0]:.3g} ({factor * row['baseline_mae'].iloc[0]:.3g})"
                if len(row)
                else ""
            )
        table.add_row(f"{angle:g} mrad", str(layers), reader, *cells)
    # Numbers are not cut off in a narrow terminal, nor in a log, whose width is not known.
    Console(width=max(170, Console().width)).print(table)


def _add_plan(commands: Any) -> None:
    command = commands.add_parser(
        "plan",
        help="say what a run of the workflow will cost, before it is submitted",
        description="Plan a run and print what remains to be done: jobs, core-hours, GPU-hours, "
        "storage and wall-clock time, at most and likely. Nothing is run or submitted. If the "
        "likely figures are over a limit, the exit status is 3.",
        formatter_class=HelpFormatter,
    )
    add = command.add_argument
    add(
        "--profile",
        type=Path,
        default=Path("profiles/slurm"),
        metavar="FOLDER",
        help="profile with which it is going to run",
    )
    add(
        "--config",
        type=Path,
        nargs="+",
        action="extend",
        default=[],
        metavar="FILE",
        help=f"overlays of {CONFIG}, as for snakemake --configfile; the last one wins",
    )
    add("--max-core-hours", type=_amount, metavar="N", help="how many are likely to be used")
    add("--max-gpu-hours", type=_amount, metavar="N", help="how many are likely to be used")
    add("--max-storage", type=_amount, metavar="TB", help="how much may be written, in TB")
    add("--json", type=Path, metavar="FILE", help="also write the budget to a file, as JSON")
    add("--snakefile", type=Path, default=Path("Snakefile"), metavar="FILE", help="the workflow")
    add("--directory", type=Path, metavar="FOLDER", help="where it is going to run (default: here)")
    command.set_defaults(run=_plan)


def _amount(text: str) -> float:
    try:
        value = float(text.replace(",", ""))
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"must be a number, 0 or more, not '{text}'")
    return value


def _plan(options: argparse.Namespace) -> None:
    import json

    from pacbed.runs.budget import Limits, plan
    from pacbed.storage.files import write_text

    with Console(stderr=True).status("planning"):
        table, budget = plan(options.profile, options.config, options.snakefile, options.directory)
    print(table or "Nothing to be done.")
    _warn_of_other_results(options)
    if options.json:
        write_text(options.json, json.dumps(budget, indent=2) + "\n")
    limits = Limits(options.max_core_hours, options.max_gpu_hours, options.max_storage)
    if exceeded := list(limits.exceeded(budget)):
        raise BudgetExceeded("over the limit: " + "; ".join(exceeded))


def _warn_of_other_results(options: argparse.Namespace) -> None:
    """Say whether a run would refuse the folder of results."""
    from pacbed.runs.results_folder import check_results
    from pacbed.study.configuration import canonical, load

    config = canonical(load([options.snakefile.parent / CONFIG, *options.config]))
    try:
        check_results((options.directory or Path()) / config["results"], config)
    except PacbedError as error:
        Console(stderr=True).print("[bold yellow]warning:[/] ", end="")
        print(f"this run would not start: {error}", file=sys.stderr)


def _add_doctor(commands: Any) -> None:
    command = commands.add_parser(
        "doctor",
        help="say what this machine has and what is missing",
        description="Look for what each part of the work needs on this machine, and say how to "
        "get what is missing.",
    )
    command.add_argument(
        "--prismatic-python",
        metavar="PATH",
        help="interpreter that has pyprismatic (default: that of pacbed)",
    )
    command.set_defaults(run=_doctor)


def _doctor(options: argparse.Namespace) -> None:
    from rich.text import Text

    from pacbed.runs.doctor import examine

    colours = {"ok": "green", "limited": "yellow", "missing": "red"}
    table = Table(title="What this machine has")
    for column in ("part", "state", "found", "what to do"):
        table.add_column(column, overflow="fold")
    part = ""
    with Console(stderr=True).status("looking"):
        findings = examine(options.prismatic_python)
    for one in findings:
        if part and one.part != part:
            table.add_section()
        # As text: in names such as tensorflow[and-cuda] the brackets are no markup.
        cells = [Text(t) for t in ("" if one.part == part else one.part, one.found, one.advice)]
        table.add_row(cells[0], Text(one.state, colours[one.state]), *cells[1:])
        part = one.part
    Console(width=None if sys.stdout.isatty() else 170).print(table)
