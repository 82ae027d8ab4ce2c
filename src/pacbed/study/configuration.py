"""From a configuration to the objects of the library, with every check that can be made early.

The JSON schema (``src/pacbed/study/config.schema.yaml``) knows keys and types; this module knows
which values fit together. A problem is one line: key, value, what is allowed.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from pacbed.engines.planewave import PlaneWaveSettings, check_phonons
from pacbed.engines.planewave.atoms import kirkland
from pacbed.engines.prismatic import Layout, PrismaticSettings, memory_bytes, native_detector
from pacbed.engines.prismatic.specimen import probe_counts
from pacbed.engines.request import SimulationRequest, ThermalMotion
from pacbed.examples.augment import AugmentationSettings
from pacbed.exceptions import ConfigError, RequestError
from pacbed.learning.specification import NetworkSpec
from pacbed.specimen.crystal import MATERIALS, Material
from pacbed.specimen.deformation import Deformation, DrawRanges
from pacbed.specimen.microscope import Aperture, Detector, wavelength_A
from pacbed.study.draws import SPLITS, assign_splits

if TYPE_CHECKING:
    import jsonschema

Config = Mapping[str, Any]

SCHEMA = Path(__file__).with_name("config.schema.yaml")
"""The JSON schema."""


def load(paths: Sequence[Path], schema: Path | None = None) -> dict[str, Any]:
    """Read a configuration and its overlays and check it.

    Parameters
    ----------
    paths
        YAML files; later ones are merged over earlier ones, mappings key by key.
    schema
        The JSON schema; the one of this package if not given.

    Raises
    ------
    ConfigError
        If a file cannot be read or the result cannot be used.
    """
    merged: dict[str, Any] = {}
    for path in paths:
        try:
            content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(
                f"cannot read {path}: {error.strerror}. Run this in a checkout of the workflow, or "
                "name the configuration"
            ) from error
        except yaml.YAMLError as error:
            raise ConfigError(f"{path} is not valid YAML: {error}") from error
        if not isinstance(content, dict):
            raise ConfigError(f"{path} must be a mapping of keys to values")
        _merge(merged, content)
    validate(merged, schema or SCHEMA)
    return merged


def _merge(target: dict[str, Any], overlay: Mapping[str, Any]) -> None:
    for key, value in overlay.items():
        if isinstance(value, Mapping) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value


def validate(config: Config, schema: Path) -> None:
    """Check a configuration.

    Raises
    ------
    ConfigError
        Listing every problem, one line each: key, value, what is allowed.
    """
    try:
        structure = yaml.safe_load(Path(schema).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the schema {schema}: {error.strerror}") from error
    import jsonschema  # here, since every job of a run imports this module, and none validates

    # JSON knows neither NaN nor a difference between 8 and 8.0; YAML does.
    checker = jsonschema.Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": lambda _, v: isinstance(v, int) and not isinstance(v, bool),
            "number": lambda _, v: (
                isinstance(v, (int, float)) and not isinstance(v, bool) and math.isfinite(v)
            ),
        }
    )
    kind = jsonschema.validators.extend(jsonschema.Draft202012Validator, type_checker=checker)
    validator = kind(structure)
    errors = sorted(validator.iter_errors(config), key=lambda e: [str(p) for p in e.absolute_path])
    problems = [line for error in errors for line in _explain(error)] or list(_conflicts(config))
    if problems:
        raise ConfigError(
            "the configuration cannot be used:\n" + "\n".join(f"  - {p}" for p in problems)
        )


def _explain(error: jsonschema.ValidationError) -> Iterator[str]:
    key = ".".join(str(p) for p in error.absolute_path) or "the configuration"
    if error.validator == "additionalProperties" and isinstance(error.schema, dict):
        known = list(error.schema.get("properties", {}))
        given: Mapping[str, Any] = dict(error.instance)  # type: ignore[arg-type]
        for name in (n for n in given if n not in known):
            full = f"{key}.{name}" if error.absolute_path else name
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
            yield f"{full} = {given[name]!r}: unknown key; {hint}"
    elif error.validator == "required":
        yield f"{key}: {error.message}"
    else:
        yield f"{key} = {error.instance!r}: {_allowed(error)}"


def _allowed(error: jsonschema.ValidationError) -> str:
    limit: Any = error.validator_value
    match error.validator:
        case "type":
            names = limit if isinstance(limit, list) else [limit]
            text = f"must be of type {' or '.join(names)}"
            if isinstance(error.instance, float):
                text += ", finite" if "number" in names else ", without a decimal point"
            if isinstance(error.instance, str) and {"number", "integer"} & set(names):
                text += " (YAML reads 1e6 as text: write 1.0e+6)"
            return text
        case "enum":
            return f"must be one of {', '.join(map(str, limit))}"
        case "minimum":
            return f"must be at least {limit}"
        case "maximum":
            return f"must be at most {limit}"
        case "exclusiveMinimum":
            return f"must be greater than {limit}"
        case "exclusiveMaximum":
            return f"must be less than {limit}"
        case "minItems" | "maxItems":
            bound = "at least" if error.validator == "minItems" else "at most"
            return f"must have {bound} {limit} items"
        case "oneOf":
            return f"must be {' or '.join(_described(one) for one in limit)}"
    return error.message


def _described(alternative: Mapping[str, Any]) -> str:
    if "const" in alternative:
        return f"'{alternative['const']}'"
    if alternative["type"] == "array":
        return "two whole numbers, 1 or more" if "maxItems" in alternative else "a list of numbers"
    kind = "a whole number" if alternative["type"] == "integer" else "a number"
    low, high = alternative.get("minimum"), alternative.get("maximum")
    return kind + (f" from {low}" if low is not None else "") + (f" to {high}" if high else "")


def _conflicts(config: Config) -> Iterator[str]:
    """Yield what the schema cannot see."""
    problems = [*_range_conflicts(config), *_split_conflicts(config), *_material_conflicts(config)]
    problems += [*_geometry_conflicts(config), *_planewave_conflicts(config)]
    if not problems and config["simulation"]["engine"] == "prismatic":
        problems += _prismatic_conflicts(config)
    yield from problems
    yield from _network_conflicts(config)


def _material_conflicts(config: Config) -> Iterator[str]:
    try:
        made = material(config["material"])
        for element in made.elements:
            kirkland(element)
    except RequestError as error:
        yield f"material: {error}"
        return
    others = [m for m in MATERIALS.values() if m.formula != made.formula]
    for name in ("zigzag_A", "armchair_A", "stacking_A"):
        value = getattr(made, name)
        if made.formula in MATERIALS and value in [getattr(other, name) for other in others]:
            right = getattr(MATERIALS[made.formula], name)
            yield f"material.{name} = {value}: that is another crystal; {made.formula} has {right}"
    if made.chalcogen_height_A >= made.layer_thickness_A / 2:
        yield (
            f"material.chalcogen_height_A = {made.chalcogen_height_A}: must be less than half a "
            f"layer, {made.layer_thickness_A / 2:g} Å"
        )


def _range_conflicts(config: Config) -> Iterator[str]:
    positive = {"deformation.principal_stretch", "dataset.electrons", "dataset.image_mean"}
    for key in (
        "deformation.principal_stretch",
        "deformation.principal_angle_deg",
        "deformation.tilt_mrad",
        "deformation.rotation_deg",
        "dataset.electrons",
        "dataset.image_mean",
    ):
        section, name = key.split(".")
        low, high = config[section][name]
        if low > high:
            yield f"{key} = [{low}, {high}]: the lower end must come first"
        elif key in positive and low <= 0:
            yield f"{key} = [{low}, {high}]: both ends must be greater than 0"
    low, high = config["deformation"]["principal_stretch"]
    if 0 < low <= high and (low < 0.5 or high > 1.5):
        yield (
            f"deformation.principal_stretch = [{low}, {high}]: must lie within 0.5 to 1.5 "
            "(a stretch of 1 is undeformed; 3 % strain is 1.03)"
        )


def _split_conflicts(config: Config) -> Iterator[str]:
    split, count = config["draws"]["split"], config["draws"]["count"]
    if not math.isclose(total := sum(split.values()), 1, abs_tol=1e-9):
        yield f"draws.split = {dict(split)}: the shares sum to {total:g}, but must sum to 1"
        return
    assigned = assign_splits(count, split)
    for name in SPLITS:
        if name not in assigned:
            yield f"draws.count = {count}: too few for a {name} set with a share of {split[name]:g}"
    if count % (together := config["execution"]["draws_per_job"]):
        yield f"draws.count = {count}: must be a multiple of execution.draws_per_job = {together}"


def _geometry_conflicts(config: Config) -> Iterator[str]:
    simulation, dataset = config["simulation"], config["dataset"]
    try:
        kept = detector(simulation, config["microscope"]["energy_keV"])
    except RequestError as error:
        yield f"simulation.pixels = {simulation['pixels']}: {error}"
        return
    stored, pixels = kept.field_of_view_mrad[0], kept.pixels[0]
    field = dataset["field_of_view_mrad"]
    edge = config["microscope"]["aperture_edge_mrad"]
    for angle in config["microscope"]["semiangles_mrad"]:
        reach = min(stored, field) / 2
        if "e" in f"{angle:g}" or float(f"{angle:g}") != angle:
            yield (
                f"microscope.semiangles_mrad = {angle}: at most six digits, since it names files"
            )
        if angle + 2 * edge >= reach:
            yield (
                f"microscope.semiangles_mrad = {angle:g}: beyond the detector; with the aperture "
                f"edge must be less than {reach:g} mrad, half of the field of view"
            )
    augmentation = augmentation_settings(config)
    needed = augmentation.reach_mrad * 2 + stored / pixels
    if stored < needed:
        yield (
            f"simulation.field_of_view_mrad = {stored:g}: must be at least {needed:.4g} mrad, what "
            "rotation, field-of-view variation and translation of the examples can reach"
        )
    pixel, finest = stored / pixels, augmentation.smallest_pixel_mrad
    if pixel > finest * (1 + 1e-9):
        yield (
            f"simulation.pixels = {simulation['pixels']}: too coarse; must be at least "
            f"{math.ceil(stored / finest)} for stored pixels ({pixel:.3g} mrad) not to be larger "
            f"than those of the examples ({finest:.3g} mrad)"
        )
    for layers in dataset["layers"]:
        if layers > simulation["layers"]:
            yield (
                f"dataset.layers = {layers}: must be at most simulation.layers = "
                f"{simulation['layers']}"
            )


def _planewave_conflicts(config: Config) -> Iterator[str]:
    simulation = config["simulation"]
    section = simulation["planewave"]
    try:
        settings = PlaneWaveSettings(**_settings(section))
    except RequestError as error:
        yield f"simulation.planewave: {error}"
        return
    if "planewave" not in (simulation["engine"], simulation["beside"]):
        return
    if configurations := section["phonon_configurations"]:
        smallest = config["deformation"]["principal_stretch"][0]
        # A stretch, or a material, that makes no sense has its own complaint.
        deformation = Deformation(smallest, smallest) if smallest >= 0.5 else Deformation()
        try:
            cell = material(config["material"]).in_plane_cell_A(deformation)
        except RequestError:
            return
        try:
            check_phonons(configurations, cell, settings.supercell)
        except RequestError as error:
            yield f"simulation.planewave.phonon_configurations = {configurations}: {error}"
    stored = simulation["field_of_view_mrad"]
    band = 1e3 * wavelength_A(config["microscope"]["energy_keV"]) * settings.cutoff_per_A
    # Prismatic's band belongs to the frame of the pattern, unless several tilts share a crystal.
    moves = settings.band_limit != "prismatic" or config["draws"]["shared_strain"]
    tilts = [*config["deformation"]["tilt_mrad"], *_largest_gallery_tilt_mrad()]
    tilt = max(map(abs, tilts)) if moves else 0.0
    if stored / 2 + tilt > band:
        yield (
            f"simulation.field_of_view_mrad = {stored:g}: must be at most "
            f"{2 * (band - tilt):.4g} mrad, what the band limit '{settings.band_limit}' lets "
            f"through{f' at tilts of up to {tilt:g} mrad' if tilt else ''}"
            f"{'' if simulation['engine'] == 'planewave' else '; or set simulation.beside: study'}"
        )


def _largest_gallery_tilt_mrad() -> tuple[float, float]:
    from pacbed.study.states import GALLERY  # here: it imports this module

    x, y = zip(*(state.tilt_mrad for state in GALLERY.values()), strict=True)
    return max(x), max(y)


def _prismatic_conflicts(config: Config) -> Iterator[str]:
    probes = config["simulation"]["prismatic"]["probes"]
    try:
        for request, _ in _prismatic_layouts(config):
            if probes == "auto":
                continue
            needed = probe_counts(request, PrismaticSettings(probes="auto"))
            if any(n < least for n, least in zip(probes, needed, strict=True)):
                yield (
                    f"simulation.prismatic.probes = {probes}: too few at "
                    f"{request.aperture.semiangle_mrad:g} mrad, where the mean over all positions "
                    f"takes at least {list(needed)}"
                )
                return
    except RequestError as error:
        yield f"simulation.prismatic: {error}"


def _prismatic_layouts(config: Config) -> Iterator[tuple[SimulationRequest, Layout]]:
    """Yield what simulations of the undeformed and the most deformed crystals come to."""
    settings = PrismaticSettings(**engine_settings(config["simulation"]))
    low, high = config["deformation"]["principal_stretch"]
    states = [Deformation(), *(Deformation(*s) for s in ((high, high), (high, low), (low, low)))]
    for angle in config["microscope"]["semiangles_mrad"]:
        for deformation in states:
            request = example_request(config, angle, deformation)
            yield request, Layout.of(request, settings)


def prismatic_memory_MB(config: Config, threads: int) -> int:
    """Return the memory that a simulation with Prismatic needs on so many threads, in MB."""
    settings = PrismaticSettings(**engine_settings(config["simulation"]))
    needed = (
        memory_bytes(request, settings, layout.grid, threads)
        for request, layout in _prismatic_layouts(config)
    )
    return math.ceil(max(needed) / 1e6)


def example_request(
    config: Config,
    semiangle_mrad: float,
    deformation: Deformation,
    tilt_mrad: tuple[float, float] = (0.0, 0.0),
) -> SimulationRequest:
    """Return what a simulation of the study comes to, whatever its seed."""
    return simulation_request(
        seed=config["seed"],
        material_section=config["material"],
        energy_keV=config["microscope"]["energy_keV"],
        aperture_edge_mrad=config["microscope"]["aperture_edge_mrad"],
        simulation=config["simulation"],
        semiangle_mrad=semiangle_mrad,
        deformation=deformation,
        tilt_mrad=tilt_mrad,
    )


def _network_conflicts(config: Config) -> Iterator[str]:
    blocks, pixels = len(config["network"]["filters"]), config["dataset"]["pixels"]
    if pixels % 2**blocks:
        yield (
            f"dataset.pixels = {pixels}: must be a multiple of {2**blocks}, since each of the "
            f"{blocks} blocks of network.filters halves the image"
        )
    elif (head := config["network"]["pooled_head"]) and (pixels >> blocks) % head:
        yield (
            f"network.pooled_head = {head}: must divide {pixels >> blocks}, the width of the last "
            "feature maps"
        )
    known = {
        "semiangles_mrad": config["microscope"]["semiangles_mrad"],
        "layers": config["dataset"]["layers"],
    }
    if (fast := config["training"]["fast"])["averaged_epochs"] > fast["epochs"]:
        yield (
            f"training.fast.averaged_epochs = {fast['averaged_epochs']}: must be at most "
            f"training.fast.epochs = {fast['epochs']}"
        )
    for number, variant in enumerate(config["variants"]):
        for name, values in known.items():
            absent = [v for v in variant[name] if v not in values] if variant[name] != "all" else []
            if absent:
                yield (
                    f"variants.{number}.{name} = {variant[name]}: {', '.join(map(str, absent))} "
                    f"not among the configured {', '.join(f'{v:g}' for v in values)}"
                )


def canonical(config: Any) -> Any:
    """Return a configuration with sorted keys, in which whole numbers are integers.

    Snakemake decides on reruns by the text of parameters: 80 and 80.0, or an overlay that repeats
    a default, must not change it.
    """
    if isinstance(config, Mapping):
        return {key: canonical(config[key]) for key in sorted(config)}
    if isinstance(config, list):
        return [canonical(value) for value in config]
    return int(config) if isinstance(config, float) and config.is_integer() else config


def material(section: Config) -> Material:
    """Make the material of a configuration section."""
    return Material(**section)


def draw_ranges(config: Config) -> DrawRanges:
    """Return the ranges from which deformations are drawn."""
    section = config["deformation"]
    return DrawRanges(
        stretch=tuple(section["principal_stretch"]),
        angle_deg=tuple(section["principal_angle_deg"]),
        tilt_mrad=tuple(section["tilt_mrad"]),
    )


def augmentation_settings(config: Config) -> AugmentationSettings:
    """Return how examples are made of patterns."""
    dataset = config["dataset"]
    return AugmentationSettings(
        pixels=dataset["pixels"],
        field_of_view_mrad=dataset["field_of_view_mrad"],
        field_of_view_variation=dataset["field_of_view_variation"],
        rotation_deg=tuple(config["deformation"]["rotation_deg"]),
        translation_px=dataset["translation_px"],
        noise=dataset["noise"],
        electrons=tuple(dataset["electrons"]),
        image_mean=tuple(dataset["image_mean"]),
    )


def networks(config: Config) -> list[NetworkSpec]:
    """List the networks that the variants ask for, each once."""
    angles = config["microscope"]["semiangles_mrad"]
    layers = config["dataset"]["layers"]

    def chosen(value: Any, everything: Iterable[Any]) -> Iterable[Any]:
        return everything if value == "all" else value

    found = {
        NetworkSpec(float(a), n, v["outputs"], v["intensity"]): None
        for v in config["variants"]
        for a in chosen(v["semiangles_mrad"], angles)
        for n in chosen(v["layers"], layers)
    }
    return list(found)


def neighbour(
    network: NetworkSpec, among: Sequence[NetworkSpec], warm_start: str
) -> NetworkSpec | None:
    """Return the network of the next thickness with whose weights the training of one begins.

    Parameters
    ----------
    network
        The network to be trained.
    among
        All networks of the study.
    warm_start
        ``none``, ``thinner`` or ``thicker``.
    """
    alike = [n for n in among if replace(n, layers=network.layers) == network]
    if warm_start == "thinner":
        thinner = [n for n in alike if n.layers < network.layers]
        return max(thinner, key=lambda n: n.layers, default=None)
    if warm_start == "thicker":
        thicker = [n for n in alike if n.layers > network.layers]
        return min(thicker, key=lambda n: n.layers, default=None)
    return None


def used_training(section: Config) -> dict[str, Any]:
    """Return what a training depends on, so that keys of the other schedule make none run again."""
    paper = section["schedule"] == "paper"
    unused = {"fast"} if paper else {"learning_rate_steps", "batch_size"}
    return {key: value for key, value in section.items() if key not in unused}


def evaluated_splits(section: Config) -> tuple[str, ...]:
    """Return the sets that are predicted: those in files, without online training examples."""
    return tuple(s for s in SPLITS if s != "train" or section["data"] != "online")


def training_epochs(section: Config) -> int:
    """Return the length of a training."""
    if section["schedule"] == "fast":
        return int(section["fast"]["epochs"])
    return sum(step["epochs"] for step in section["learning_rate_steps"])


def training_batch(section: Config) -> int:
    """Return the number of examples per step."""
    return int((section["fast"] if section["schedule"] == "fast" else section)["batch_size"])


def engine_settings(simulation: Config) -> dict[str, Any]:
    """Return the settings of the chosen engine."""
    return _settings(simulation[simulation["engine"]])


def execution_settings(section: Config) -> dict[str, Any]:
    """Return how a program outside is run."""
    return {
        "python": section["prismatic_python"],
        "scratch_GB": section["scratch_GB"],
        "call_limit_h": section["call_limit_h"],
    }


def _settings(section: Config) -> dict[str, Any]:
    return {key: value for key, value in section.items() if key != "phonon_configurations"}


def scientific(simulation: Config) -> dict[str, Any]:
    """Return what the patterns depend on, so that other keys make no simulation run again."""
    name = simulation["engine"]
    kept = {k: v for k, v in simulation.items() if k not in {"planewave", "prismatic"} - {name}}
    kept.pop("beside", None)
    kept[name] = dict(simulation[name])
    if simulation[name]["phonon_configurations"]:
        del kept["debye_waller"]
    elif name == "planewave":
        del kept[name]["supercell"]
    if simulation["pixels"] == "native":
        del kept["field_of_view_mrad"]
    if simulation[name].get("box_A") == "auto":
        del kept[name]["probe_region_A"]
    return kept


def beside(simulation: Config, energy_keV: float) -> dict[str, Any]:
    """Return section ``simulation`` for what is simulated beside the draws."""
    section = dict(simulation)
    if simulation["beside"] == "study" or simulation["engine"] == "planewave":
        return section
    if simulation["pixels"] == "native":  # which only Prismatic has
        own = detector(simulation, energy_keV)
        section |= {"pixels": own.pixels[0], "field_of_view_mrad": own.field_of_view_mrad[0]}
    return section | {"engine": "planewave"}


def of_bound(simulation: Config, energy_keV: float) -> dict[str, Any]:
    """Return section ``simulation`` for the steps from which the bound follows.

    With plane waves, atoms are at rest: a tilt would move the beam to waves with other
    displacements, and the difference of their speckle looks like information.
    """
    section = beside(simulation, energy_keV)
    if section["engine"] == "planewave":
        section["planewave"] = dict(section["planewave"], phonon_configurations=0)
    return section


def detector(simulation: Config, energy_keV: float) -> Detector:
    """Return the pixels in which patterns are stored.

    Raises
    ------
    RequestError
        If the engine has no pixels of its own and they are asked for.
    """
    pixels = simulation["pixels"]
    if pixels != "native":
        field = simulation["field_of_view_mrad"]
        return Detector((field, field), (pixels, pixels))
    if simulation["engine"] != "prismatic":
        raise RequestError("only Prismatic has native pixels: give a number (640 by default)")
    return native_detector(PrismaticSettings(**engine_settings(simulation)), energy_keV)


def simulation_request(
    *,
    seed: int,
    material_section: Config,
    energy_keV: float,
    aperture_edge_mrad: float,
    simulation: Config,
    semiangle_mrad: float,
    deformation: Deformation,
    tilt_mrad: tuple[float, float],
) -> SimulationRequest:
    """Make the request for one simulation from sections of a configuration."""
    configurations = simulation[simulation["engine"]]["phonon_configurations"]
    return SimulationRequest(
        material=material(material_section),
        deformation=deformation,
        tilt_mrad=tilt_mrad,
        layers=simulation["layers"],
        energy_keV=energy_keV,
        aperture=Aperture(semiangle_mrad, aperture_edge_mrad),
        detector=detector(simulation, energy_keV),
        thermal=ThermalMotion(configurations, simulation.get("debye_waller", True)),
        seed=seed,
    )
