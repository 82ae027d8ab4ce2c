"""The configuration: the shipped one is the paper's, and what cannot be used is refused early."""

import copy
import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import jsonschema
import pytest
import yaml

from pacbed.engines import ThermalMotion
from pacbed.exceptions import ConfigError
from pacbed.learning.specification import NetworkSpec
from pacbed.scattering.request import StateRequest
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.storage.zipped import plain
from pacbed.study.checks import conflicts
from pacbed.study.configuration import checked, load, of_record, of_workflow, schema
from pacbed.study.draws import draw, simulation_seed
from pacbed.study.model import Configuration
from pacbed.study.networks import evaluated_splits, neighbour, networks
from pacbed.study.prismatic import memory_MB
from pacbed.study.sections import canonical
from pacbed.study.states import GALLERY

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "config" / "config.yaml"
DEMO = ROOT / "config" / "demo.yaml"
SCHEMA = schema()


@pytest.fixture(scope="module")
def paper():
    return load()


@pytest.fixture
def config(paper):
    """The configuration as a mapping, to be changed."""
    return copy.deepcopy(paper.plain())


def names(key):
    return [int(name) if name.isdecimal() else name for name in key.split(".")]


def value_of(config, key):
    for name in names(key):
        config = config[name]
    return config


def change(config, key, value):
    *sections, name = names(key)
    for section in sections:
        config = config[section]
    config[name] = value


def complaints(config):
    """The problems found in a configuration, one line each."""
    with pytest.raises(ConfigError) as caught:
        checked(config)
    head, *lines = str(caught.value).splitlines()
    assert head == "the configuration cannot be used:"
    return lines


def the_complaint(config):
    lines = complaints(config)
    assert len(lines) == 1, lines
    return lines[0]


# The shipped configuration


@pytest.mark.parametrize(
    ("key", "value"),
    [
        # Protocol, section 1: structure.
        ("material.formula", "MoS2"),
        ("material.zigzag_A", 3.1613),
        ("material.armchair_A", 5.4755),
        ("material.stacking_A", 12.3063),
        ("material.chalcogen_height_A", 1.5875),
        # Section 2: deformation.
        ("deformation.principal_stretch", [0.95, 1.05]),
        ("deformation.principal_angle_deg", [0, 180]),
        ("deformation.rotation_deg", [-10, 10]),
        ("deformation.tilt_mrad", [-5, 5]),
        ("draws.count", 1000),
        ("microscope.semiangles_mrad", [6.35, 12.65, 18.13, 25.44, 32.94]),
        # Section 3: multislice.
        ("microscope.energy_keV", 80),
        ("material.rms_displacement_A", {"Mo": 0.07535, "S": 0.08856}),
        ("simulation.layers", 20),
        # Section 4: datasets.
        ("dataset.layers", [1, 2, 3, 4, 5, 10, 15, 20]),
        ("draws.split", {"train": 500 / 1000, "validation": 250 / 1000, "test": 250 / 1000}),
        ("dataset.field_of_view_variation", 6.25 / 100),
        ("dataset.pixels", 256),
        ("dataset.field_of_view_mrad", 100),
        ("dataset.translation_px", 10),
        ("dataset.image_mean", [0.20, 0.30]),
        ("dataset.electrons", [1e6, 5e7]),
        ("dataset.noise", "lognormal"),
        ("dataset.examples", {"train": 128_000, "validation": 32_000, "test": 16_000}),
        # Section 5: network and training.
        ("network.filters", [32, 64, 128, 256]),
        ("network.dense", [512, 384, 256, 128]),
        ("network.pooled_head", None),
        ("training.momentum", 0.9),
        ("training.batch_size", 256),
    ],
)
def test_the_shipped_configuration_is_the_protocol(key, value):
    assert value_of(yaml.safe_load(DEFAULT.read_text(encoding="utf-8")), key) == value


def test_the_shipped_configuration_is_what_holds_without_it(paper):
    shipped = yaml.safe_load(DEFAULT.read_text(encoding="utf-8"))
    assert canonical(shipped) == paper.plain()
    assert load([DEFAULT]) == paper


def test_the_learning_rate_is_stepped_up_and_down_again_in_4000_epochs(paper):
    steps = paper.training.learning_rate_steps
    rates = [step.rate for step in steps]
    top = rates.index(1e-3)
    assert sum(step.epochs for step in steps) == 4000
    assert rates[0] == rates[-1] == 1e-4
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_the_paper_has_40_networks_and_10_without_tilt(paper):
    found = networks(paper)
    with_tilt = {n for n in found if n.outputs == "strain-rotation-tilt"}
    without = {n for n in found if n.outputs == "strain-rotation"}
    assert len(found) == len(set(found)) == 50
    assert {(n.semiangle_mrad, n.layers) for n in with_tilt} == {
        (a, n) for a in (6.35, 12.65, 18.13, 25.44, 32.94) for n in (1, 2, 3, 4, 5, 10, 15, 20)
    }
    assert {n.intensity for n in with_tilt} == {"linear"}
    assert {(n.semiangle_mrad, n.layers, n.intensity) for n in without} == {
        (6.35, n, i) for n in (1, 2, 3, 4, 5) for i in ("linear", "sqrt")
    }


def test_a_network_that_two_variants_ask_for_is_trained_once(config):
    config["variants"] = config["variants"][:1] * 2
    assert len(networks(checked(config))) == 40


def test_the_demo_has_two_semiangles_at_most_four_networks_and_64_pixels():
    demo = load([DEFAULT, DEMO])
    assert demo.dataset.pixels == 64
    found = networks(demo)
    assert len(found) <= 4
    assert {n.semiangle_mrad for n in found} == set(demo.microscope.semiangles_mrad)
    assert {n.layers for n in found if n.semiangle_mrad == 6.35} == {5, 10}


@pytest.mark.parametrize("name", ["laptop", "recommended"])
def test_overlays_that_are_recommended_are_valid(name):
    study = load([DEFAULT, DEMO.with_name(f"{name}.yaml")])
    assert {n.semiangle_mrad for n in networks(study)} == set(study.microscope.semiangles_mrad)
    assert study.simulation.motion == "full"


def test_an_overlay_changes_what_it_names_and_nothing_else(paper, tmp_path):
    overlay = tmp_path / "my.yaml"
    overlay.write_text("simulation: {layers: 20, planewave: {diffuse_waves: 40}}\n")
    change = {"simulation": {"planewave": {"diffuse_waves": 40}}}
    assert load([overlay]) == paper.changed(change) != paper


def test_an_overlay_is_laid_over_the_paper_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("my.yaml").write_text("draws: {count: 40}\n")
    assert load([Path("my.yaml")]) == load([DEFAULT, Path("my.yaml")])
    assert load([Path("my.yaml")]).draws.count == 40


def test_another_material_may_be_laid_over_the_default(tmp_path):
    overlay = tmp_path / "wse2.yaml"
    overlay.write_text(yaml.safe_dump({"material": vars(MATERIALS["WSe2"])}))
    made = load([overlay]).material.material()
    assert made.kinds == ("W", "Se")
    assert made.zigzag_A == MATERIALS["WSe2"].zigzag_A


# The schema, made from the models


def test_every_key_is_described_and_no_other_is_taken():
    sections = {"all": SCHEMA, **SCHEMA["$defs"]}
    # Its other keys are options of pacbed map, which takes no other either.
    assert sections.pop("ScanSection")["additionalProperties"] is not False
    for section in sections.values():
        assert section["additionalProperties"] is False
        for name, child in section["properties"].items():
            assert "$ref" in child or child["description"], name


def test_the_schema_takes_the_shipped_configuration_and_no_other_key():
    shipped = yaml.safe_load(DEFAULT.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    jsonschema.validate(shipped, SCHEMA)
    shipped["draws"]["counts"] = 3
    with pytest.raises(jsonschema.ValidationError, match="counts"):
        jsonschema.validate(shipped, SCHEMA)


# Keys, types and single values


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("microscop", "did you mean 'microscope'?"),
        ("dataset.electron", "did you mean 'electrons'?"),
        ("simulation.planewave.slice_per_layer", "did you mean 'slices_per_layer'?"),
        ("draws.split.holdout", "known: train, validation, test"),
        ("variants.1.intensities", "did you mean 'intensity'?"),
    ],
)
def test_an_unknown_key_is_named_with_what_was_probably_meant(config, key, suggestion):
    change(config, key, 7)
    assert the_complaint(config) == f"  - {key} = 7: unknown key; {suggestion}"


def test_a_key_without_a_default_is_missed(config):
    del config["variants"][1]["outputs"]
    assert the_complaint(config) == "  - variants.1: 'outputs' is missing"


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("draws.count", "many", "must be a whole number"),
        ("draws.count", 8.0, "must be a whole number, without a decimal point"),
        ("draws.count", True, "must be a whole number"),
        ("draws.count", 0, "must be at least 1"),
        ("execution.draws_per_job", 5, "must be 1, 10 or 100"),
        ("microscope", [80], "must be a mapping of keys to values"),
        ("microscope", None, "must be a mapping of keys to values"),
        ("microscope.energy_keV", True, "must be a number"),
        ("microscope.energy_keV", float("inf"), "must be a finite number"),
        ("microscope.energy_keV", 20, "must be at least 30"),
        ("microscope.energy_keV", 301, "must be at most 300"),
        ("microscope.semiangles_mrad", 6.35, "must be a list: write [6.35]"),
        ("microscope.semiangles_mrad", "6.35", "must be a list, such as [6.35, 12.65, "),
        ("microscope.semiangles_mrad", [], "must be a list of at least 1 items"),
        ("microscope.semiangles_mrad", [6.35, 6.35], "must be a list of values that differ"),
        ("microscope.semiangles_mrad.2", -18.13, "must be greater than 0"),
        ("microscope.semiangles_mrad.1", 12.3456789, "must be a number of at most six digits"),
        ("microscope.semiangles_mrad.1", 0.01265, "must be at least 0.5 mrad; if it is in rad"),
        ("deformation.principal_stretch", [95, 105], "within 0.5 to 1.5 (a stretch of 1 is undef"),
        ("deformation.principal_stretch", [-0.05, 0.05], "must be within 0.5 to 1.5"),
        ("deformation.tilt_mrad", [5, -5], "must be a range whose lower end comes first"),
        ("deformation.tilt_mrad.1", float("nan"), "must be a finite number"),
        ("dataset.electrons", 1e6, "must be a list of two values, such as [1000000, 50000000]"),
        ("dataset.electrons", [1e6], "must be a list of two values"),
        ("dataset.electrons", [1e6, 2e6, 3e6], "must be a list of two values"),
        ("dataset.electrons.0", 0, "must be at least 1000"),
        ("dataset.camera.ellipticity.1", 1, "must be at most 0.05"),
        ("dataset.camera.blur_px", [2, 1], "must be a range whose lower end comes first"),
        ("dataset.camera.dead_pixels.0", -0.1, "must be at least 0"),
        ("dataset.noise", "gaussian", "must be 'lognormal' or 'poisson'"),
        ("dataset.field_of_view_variation", 1, "must be less than 1"),
        ("draws.shared_strain", "on", "must be true or false"),
        ("simulation.thermal_motion", "on", "'full', 'coherent' or 'none' or a whole number"),
        ("simulation.thermal_motion", 0, "at least 1 (without phonons, the discs alone: coherent)"),
        ("simulation.thermal_motion", -1, "'coherent' or 'none' or at least 1"),
        ("simulation.thermal_motion", True, "'full', 'coherent' or 'none' or a whole number"),
        ("simulation.planewave.incident_step_mrad", "fine", "be a number or 'auto'"),
        ("simulation.planewave.incident_step_mrad", 7, "be at most 5 or 'auto'"),
        ("simulation.planewave.diffuse_waves", 8, "must be at least 16"),
        ("simulation.planewave.diffuse_knots_mrad", 5, "a list of two values, such as [3.3, 8]"),
        ("simulation.planewave.diffuse_knots_mrad.1", 0.1, "must be at least 0.5"),
        ("simulation.pixels", "raw", "must be a whole number or 'native'"),
        ("simulation.planewave.band_limit", "sharp", "be 'converged' or 'prismatic' or a number"),
        ("simulation.planewave.band_limit", 20, "be 'converged' or 'prismatic' or at most 10"),
        ("simulation.prismatic.probes", 16, "a list of two values, such as [16, 28] or 'auto'"),
        ("network.pooled_head", "none", "must be a whole number or null"),
        ("variants", "all", "must be a list"),
        ("variants.0.layers", "every", "must be 'all' or a list"),
        ("results", "my results", "must be the name of a folder"),
        ("results", "{semiangle}", "must be the name of a folder"),
        ("results", "/", "must be the name of a folder"),
        ("results", "~/mos2", "must be the name of a folder"),
        ("results", "a\0b", "must be the name of a folder"),
        ("draws.count", 10**12, "must be at most 1000000"),
        ("dataset.pixels", 10**9, "must be at most 65536"),
        ("simulation.pixels", 10**9, "must be at most 65536"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_what_is_allowed(config, key, value, allowed):
    change(config, key, value)
    line = the_complaint(config)
    assert f"{key} = {value!r}" in line
    assert allowed in line


def test_a_number_that_yaml_takes_for_text_is_explained(tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("microscope: {energy_keV: 8e1}\n")
    with pytest.raises(
        ConfigError, match=r"energy_keV = '8e1': .*YAML reads 8e1 as text: write 80"
    ):
        load([overlay])


def test_all_problems_are_told_at_once(config):
    change(config, "seed", "x")
    change(config, "draws.count", 0)
    change(config, "dataset.colour", "red")
    lines = complaints(config)
    assert len(lines) == 3
    for key in ("seed", "draws.count", "dataset.colour"):
        assert any(key in line for line in lines)


# Values that do not fit together


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("draws.split.test", 0.3, "'test': 0.3}: the shares sum to 1.05, but must sum to 1"),
        (
            "microscope.semiangles_mrad.4",
            51,
            "= 51: beyond the detector; with the aperture edge must be",
        ),
        ("microscope.aperture_edge_mrad", 10, "semiangles_mrad = 32.94: beyond the detector; with"),
        ("simulation.layers", 15, "dataset.layers = 20: must be at most simulation.layers = 15"),
        ("dataset.pixels", 250, "dataset.pixels = 250: must be a multiple of 16"),
        ("network.pooled_head", 5, "network.pooled_head = 5: must divide 16"),
        ("training.loss", "fisher", "set training.schedule: fast with fast.optimizer: adam"),
        (
            "training",
            {"loss": "fisher", "schedule": "fast", "fast": {"optimizer": "sgd"}},
            "set training.schedule: fast with fast.optimizer: adam",
        ),
        ("variants.1.layers", [1, 7], "variants.1.layers = [1, 7]: 7 not among the configured"),
        ("training.fast.averaged_epochs", 401, "must be at most training.fast.epochs = 400"),
        (
            "material.formula",
            "MoSe2",
            "MoSe2: rms_displacement_A has Mo, S; or take structure: MoSe2",
        ),
        ("material.formula", "Mo2S", "material: material 'Mo2S' is not of the form MX2"),
        (
            "material.zigzag_A",
            5.4755,
            "material.armchair_A = 5.4755: must be about 9.484 Å, √3 times",
        ),
        (
            "material.rms_displacement_A.Mo",
            0.45,
            "of a B factor of 0.45 Å² it is √(B / 8π²) = 0.075",
        ),
        ("material.chalcogen_height_A", 3.1, "must be less than half a layer, 3.07"),
        (
            "simulation.planewave.band_limit",
            "prismatic",
            "planewave: Prismatic's potential is that",
        ),
        ("simulation.prismatic.probe_region_A", 80, "16 × 28 probes need a cell each"),
        ("simulation.prismatic.box_A", 210, "leaves only 5 Å to the edges"),
        ("simulation.prismatic.probes", [5, 10], "too few at 32.94 mrad"),
        ("microscope.aperture_edge_mrad", 0.2, "an aperture edge of its own"),
        ("simulation.field_of_view_mrad", 140, "lets waves through up to 69.68 mrad"),
        ("simulation.pixels", 1400, "finer than Prismatic's own of 0.1044 mrad"),
    ],
)
def test_values_that_do_not_fit_together_are_named(config, key, value, message):
    change(config, key, value)
    assert message in the_complaint(config)


def test_an_uncertainty_is_read_from_a_hidden_layer(config):
    config["network"] |= {"uncertainty": True, "dense": []}
    assert "network.uncertainty = true: is read from" in the_complaint(config)
    change(config, "network.kind", "coarse-to-fine")
    checked(config)


def test_only_the_network_of_the_paper_has_the_loss_fisher(config):
    change(config, "training", {"loss": "fisher", "schedule": "fast"})
    checked(config)
    change(config, "network.kind", "coarse-to-fine")
    assert "training.loss = fisher: is for network.kind: paper; " in the_complaint(config)


@pytest.mark.parametrize(
    ("formula", "displacements"), [("SnS2", {"Sn": 0.1, "S": 0.1}), ("WTe2", {"W": 0.1, "Te": 0.1})]
)
def test_a_crystal_that_is_not_2h_is_refused(config, formula, displacements):
    change(config, "material.formula", formula)
    change(config, "material.rms_displacement_A", displacements)
    assert f"{formula}: its layers are not those of a 2H crystal" in the_complaint(config)


@pytest.mark.parametrize("key", ["principal_stretch", "tilt_mrad", "rotation_deg"])
def test_ranges_may_be_single_values_if_something_is_left_to_read(config, key):
    config["deformation"] |= {
        "principal_stretch": [1, 1],
        "tilt_mrad": [0, 0],
        "rotation_deg": [3, 3],
    }
    assert "deformation: nothing differs from one example to another" in the_complaint(config)
    change(config, f"deformation.{key}", [0.99, 1.01])
    checked(config)


def test_jobs_of_several_draws_have_full_batches(config):
    change(config, "execution.draws_per_job", 10)
    change(config, "draws.count", 1005)
    assert (
        "draws.count = 1005: must be a multiple of execution.draws_per_job = 10"
        in the_complaint(config)
    )
    change(config, "draws.count", 1010)
    checked(config)


def test_every_set_has_a_draw(config):
    change(config, "draws.count", 1)
    for name, line in zip(("validation", "test"), complaints(config), strict=True):
        assert f"draws.count = 1: too few for a {name} set with a share of 0.25" in line


def test_examples_show_only_what_was_simulated(config):
    # Half of 106.25 mrad and a shift of 10 of 256 pixels, turned by 10°.
    needed = 2 * 106.25 * (0.5 + 10 / 256) * (0.984808 + 0.173648)
    change(config, "simulation.field_of_view_mrad", 132)
    line = the_complaint(config)
    assert "simulation.field_of_view_mrad = 132" in line
    named = float(re.search(r"must be at least (\S+) mrad", line)[1])
    assert named == pytest.approx(needed, abs=1)
    change(config, "simulation.field_of_view_mrad", named + 0.1)
    checked(config)


def test_patterns_are_stored_at_least_as_finely_as_examples_are_sampled(config):
    # The finest pixel of an example is 93.75 mrad / 256.
    fewest = math.ceil(config["simulation"]["field_of_view_mrad"] / (93.75 / 256))
    change(config, "simulation.pixels", fewest - 1)
    line = the_complaint(config)
    assert f"simulation.pixels = {fewest - 1}" in line
    assert f"must be at least {fewest}" in line
    change(config, "simulation.pixels", fewest)
    checked(config)


def test_the_stored_field_lies_within_the_band_limit(config):
    # Prismatic keeps half of the Nyquist frequency of 0.15 Å: 1.667 1/Å, 69.6 mrad at 80 kV.
    change(config, "simulation.engine", "planewave")
    change(config, "simulation.planewave.band_limit", "prismatic")
    change(config, "simulation.planewave.slices_per_layer", 3)
    change(config, "simulation.thermal_motion", 2)
    checked(config)
    change(config, "simulation.field_of_view_mrad", 140)
    line = the_complaint(config)
    assert "simulation.field_of_view_mrad = 140" in line
    assert "must be at most 139.1 mrad" in line
    assert "'prismatic'" in line
    change(config, "simulation.planewave.band_limit", "converged")
    checked(config)


def crystals(study):
    """The most stretched and tilted crystals that plane waves simulate, with their tilts."""
    stretch, tilt = study.deformation.principal_stretch[1], study.deformation.tilt_mrad[1]
    yield Deformation(stretch, stretch), (tilt, tilt)
    for state in GALLERY.values():
        yield state.deformation, state.tilt_mrad


def unseen_mrad(study):
    """How far the field of view reaches beyond the waves of the worst crystal."""
    study = study.auxiliary()
    simulation, crystal = study.simulation, study.material.material()
    worst = []
    for deformation, tilt in crystals(study):
        reach = simulation.field_of_view_mrad / 2 + max(map(abs, tilt))
        numbers = simulation.planewave.settings().numbers(
            study.microscope.energy_keV,
            simulation.layers * crystal.layer_thickness_A,
            crystal.stacking_A,
            reach,
        )
        band = numbers.band((0.0, 0.0), deformation)
        worst.append(reach - 1e3 * numbers.wavelength_A * band.smallest_per_A)
    return max(worst)


@pytest.mark.parametrize("energy", [30, 80, 200, 300])
def test_converged_waves_hold_the_field_of_view_at_any_energy(config, energy):
    change(config, "microscope.energy_keV", energy)
    change(config, "simulation.engine", "planewave")
    assert unseen_mrad(checked(config)) <= 0
    change(config, "simulation.field_of_view_mrad", 180)
    assert unseen_mrad(checked(config)) <= 0


@pytest.mark.parametrize("energy", [200, 300])
def test_prismatic_needs_finer_pixels_at_high_energies_and_names_them(config, energy):
    change(config, "microscope.energy_keV", energy)
    line = the_complaint(config)
    assert "simulation.prismatic: the detector reaches 67.1 mrad" in line
    named = float(re.search(r"choose pixel_A of at most (\S+) Å", line)[1])
    change(config, "simulation.prismatic.pixel_A", named)
    checked(config)


@pytest.mark.parametrize("engine", ["prismatic", "planewave"])
@pytest.mark.parametrize("limit", [0.9, 1.6, 1.75])
def test_a_number_as_a_band_limit_holds_the_field_of_the_most_stretched_crystal(
    config, engine, limit
):
    change(config, "simulation.engine", engine)
    change(config, "simulation.planewave.band_limit", limit)
    line = the_complaint(config)
    assert "simulation.field_of_view_mrad = 134: must be at most " in line
    assert f"what the band limit '{limit}' lets through at the largest strains and tilts" in line
    # All that it names helps.
    fitting = float(re.search(r"must be at most (\S+) mrad", line)[1])
    given = Configuration.model_validate(config)
    assert unseen_mrad(given) > 0
    assert unseen_mrad(given.changed({"simulation": {"field_of_view_mrad": fitting}})) <= 0
    assert ("simulation.auxiliary_engine: same" in line) == (engine == "prismatic")
    if engine == "prismatic":
        checked(given.changed({"simulation": {"auxiliary_engine": "same"}}).plain())
    assert "simulation.planewave.band_limit: converged" in line
    change(config, "simulation.planewave.band_limit", "converged")
    assert unseen_mrad(checked(config)) <= 0


# Thermal motion


@pytest.mark.parametrize(
    ("engine", "given", "asked"),
    [
        ("prismatic", "auto", 10),
        ("prismatic", "none", "none"),
        ("prismatic", 1, 1),
        ("planewave", "auto", "full"),
        ("planewave", "full", "full"),
        ("planewave", "coherent", "coherent"),
        ("planewave", "none", "none"),
        ("planewave", 2, 2),
    ],
)
def test_an_engine_is_asked_for_the_thermal_motion_that_is_given(config, engine, given, asked):
    change(config, "simulation.engine", engine)
    change(config, "simulation.thermal_motion", given)
    study = checked(config)
    assert study.request(6.35, Deformation()).thermal == ThermalMotion(asked)
    assert study.simulation.used()["thermal_motion"] == asked


@pytest.mark.parametrize("motion", ["full", "coherent"])
def test_prismatic_has_no_mean_transmissions(config, motion):
    change(config, "simulation.thermal_motion", motion)
    line = the_complaint(config)
    assert f"Prismatic cannot compute thermal motion '{motion}', which needs mean" in line
    for remedy in (10, "none"):
        assert f"thermal_motion: {remedy}" in line
        change(config, "simulation.thermal_motion", remedy)
        checked(config)


@pytest.mark.parametrize("motion", ["auto", "full", "coherent"])
@pytest.mark.parametrize("band_limit", ["converged", "prismatic"])
def test_equal_slices_have_no_mean_transmissions(config, motion, band_limit):
    change(config, "simulation.engine", "planewave")
    change(config, "simulation.thermal_motion", motion)
    change(config, "simulation.planewave.slices_per_layer", 3)
    change(config, "simulation.planewave.band_limit", band_limit)
    line = the_complaint(config)
    asked = "full" if motion == "auto" else motion
    assert f"thermal motion '{asked}' needs whole atoms on their planes" in line
    assert "equal slices share atoms" in line
    for remedy in (10, "none"):
        assert f"thermal_motion: {remedy}" in line
        change(config, "simulation.thermal_motion", remedy)
        checked(config)


def test_frozen_phonons_of_plane_waves_need_two_configurations(config):
    change(config, "simulation.engine", "planewave")
    change(config, "simulation.thermal_motion", 1)
    assert "frozen phonons need at least 2 configurations" in the_complaint(config)


def test_a_supercell_holds_more_than_an_atom(config):
    change(config, "simulation.engine", "planewave")
    change(config, "simulation.planewave.supercell", [1, 5])
    assert "a supercell of 1 × 5 cells" in the_complaint(config)
    for motion in ("coherent", "none"):
        change(config, "simulation.thermal_motion", motion)
        checked(config)


def test_probes_are_split_between_no_more_configurations_than_there_are(config):
    change(config, "simulation.prismatic.probes_per_configuration", "split")
    checked(config)
    change(config, "simulation.prismatic.probes", [3, 3])
    assert "9 probes cannot be split between 10 configurations" in the_complaint(config)


def test_native_pixels_are_those_of_the_paper(config):
    change(config, "simulation.pixels", "native")
    kept = checked(config).detector()
    assert kept.pixels == (1336, 1336)
    assert kept.kx_mrad[669] == pytest.approx(0.10439, abs=1e-5)


def test_native_pixels_need_prismatic_and_one_box(config):
    change(config, "simulation.pixels", "native")
    change(config, "simulation.prismatic.box_A", "auto")
    assert "a box of a fixed size" in the_complaint(config)
    change(config, "simulation.engine", "planewave")
    assert "only Prismatic has native pixels" in the_complaint(config)


def test_a_material_has_its_own_lattice_constants(config):
    change(config, "material.formula", "WSe2")
    change(config, "material.rms_displacement_A", {"W": 0.065, "Se": 0.08})
    with pytest.raises(ConfigError, match=r"zigzag_A = 3.1613: that is another.*WSe2 has 3.282"):
        checked(config)


def test_memory_follows_from_the_box(config):
    # 12 bytes per point and slice, 5.1 GB, are potential and transmission.
    paper = memory_MB(checked(config), 32)
    assert 12_000 < paper < 20_000
    change(config, "simulation.prismatic.box_A", "auto")
    change(config, "simulation.prismatic.probes", "auto")
    assert memory_MB(checked(config), 1) < paper / 5


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({}, {"simulation.thermal_motion": 10, "simulation.planewave.supercell": [9, 6]}),
        ({"simulation.prismatic.box_A": "auto"}, {"simulation.prismatic.probe_region_A": 100}),
        ({"simulation.pixels": "native"}, {"simulation.field_of_view_mrad": 100}),
        (
            {"simulation.engine": "planewave"},
            {"simulation.thermal_motion": "full", "simulation.prismatic.slices_per_layer": 4},
        ),
        (
            {"simulation.engine": "planewave", "simulation.thermal_motion": 2},
            {"simulation.planewave.diffuse_waves": 40},
        ),
        *(
            (
                {"simulation.engine": "planewave", "simulation.thermal_motion": motion},
                {
                    "simulation.planewave.supercell": [3, 3],
                    "simulation.planewave.diffuse_waves": 40,
                    "simulation.planewave.diffuse_knots_mrad": [4, 9],
                },
            )
            for motion in ("coherent", "none")
        ),
    ],
)
def test_what_changes_no_pattern_runs_nothing_again(config, first, then):
    for key, value in first.items():
        change(config, key, value)
    before = checked(config).of_patterns()
    for key, value in then.items():
        change(config, key, value)
    assert checked(config).of_patterns() == before


@pytest.mark.parametrize(
    ("motion", "key", "value"),
    [
        ("full", "simulation.thermal_motion", "coherent"),
        ("full", "simulation.thermal_motion", 2),
        ("full", "simulation.planewave.supercell", [9, 6]),
        ("full", "simulation.planewave.diffuse_waves", 40),
        ("full", "simulation.planewave.diffuse_knots_mrad", [4, 9]),
        ("coherent", "simulation.thermal_motion", "none"),
        (2, "simulation.thermal_motion", 3),
        (2, "simulation.planewave.supercell", [9, 6]),
        (2, "simulation.planewave.diffuse_knots_mrad", [4, 9]),
    ],
)
def test_what_changes_patterns_of_plane_waves_simulates_them_again(config, motion, key, value):
    change(config, "simulation.engine", "planewave")
    change(config, "simulation.thermal_motion", motion)
    before = checked(config).of_patterns()
    change(config, key, value)
    assert checked(config).of_patterns() != before


# Training


def test_a_training_depends_on_its_own_schedule_alone(config):
    stepped = checked(config).training
    assert "fast" not in stepped.used()
    assert (stepped.total_epochs, stepped.examples_per_step) == (4000, 256)
    change(config, "training.schedule", "fast")
    cycle = checked(config).training
    assert not {"learning_rate_steps", "batch_size"} & set(cycle.used())
    assert (cycle.total_epochs, cycle.examples_per_step) == (400, 64)


def test_the_coarse_image_is_halved_as_often_as_the_blocks_want(config):
    change(config, "network.kind", "coarse-to-fine")
    change(config, "dataset.pixels", 272)
    said = (
        "must be a multiple of 64, since each of the 4 blocks of network.filters halves the image"
    )
    assert f"{said}, of which the first sees 4 × 4 pixels as one" in the_complaint(config)
    change(config, "dataset.pixels", 256)
    change(config, "network.pooled_head", 8)
    assert "network.pooled_head = 8: must divide 4" in the_complaint(config)


def test_training_examples_are_predicted_if_a_file_has_them(config):
    assert evaluated_splits(checked(config)) == ("train", "validation", "test")
    change(config, "training.data", "online")
    assert evaluated_splits(checked(config)) == ("validation", "test")


@pytest.mark.parametrize(
    ("warm_start", "layers", "neighbour_layers"),
    [
        ("none", 5, None),
        ("thinner", 5, 4),
        ("thinner", 10, 5),
        ("thinner", 1, None),
        ("thicker", 10, 15),
        ("thicker", 20, None),
    ],
)
def test_a_network_begins_with_that_of_the_next_thickness(
    paper, warm_start, layers, neighbour_layers
):
    among = networks(paper)
    network = NetworkSpec(12.65, layers, "strain-rotation-tilt", "linear")
    found = neighbour(network, among[::-1], warm_start)
    assert found == (neighbour_layers and replace(network, layers=neighbour_layers))


def test_a_neighbour_is_of_the_same_variant(paper):
    network = NetworkSpec(6.35, 5, "strain-rotation", "sqrt")
    assert neighbour(network, networks(paper), "thicker") is None


# Auxiliary simulations


def test_auxiliary_simulations_take_plane_waves_or_the_engine_of_the_draws(config):
    study = checked(config)
    assert study.simulation.engine == "prismatic"
    assert study.auxiliary().simulation.engine == "planewave"
    assert study.auxiliary().simulation.motion == study.for_bound().simulation.motion == "full"
    change(config, "simulation.auxiliary_engine", "same")
    same = checked(config)
    assert same.auxiliary() == same.for_bound() == same


@pytest.mark.parametrize(
    ("engine", "given", "auxiliary", "bound"),
    [
        ("prismatic", 5, "full", "full"),
        ("prismatic", "none", "none", "none"),
        ("planewave", "coherent", "coherent", "coherent"),
        ("planewave", "none", "none", "none"),
        # Speckle would look like information.
        ("planewave", 2, 2, "full"),
    ],
)
def test_the_bound_is_simulated_without_frozen_phonons_for_everything(
    config, engine, given, auxiliary, bound
):
    change(config, "simulation.engine", engine)
    change(config, "simulation.thermal_motion", given)
    study = checked(config)
    assert study.auxiliary().simulation.motion == auxiliary
    assert study.for_bound().simulation.motion == bound


def test_the_bound_of_equal_slices_is_that_of_static_atoms(config):
    change(config, "simulation.engine", "planewave")
    change(config, "simulation.thermal_motion", 2)
    change(config, "simulation.planewave.slices_per_layer", 3)
    assert checked(config).for_bound().simulation.motion == "none"


def test_auxiliary_simulations_have_the_native_pixels_of_the_draws(config):
    change(config, "simulation.pixels", "native")
    study = checked(config)
    assert study.auxiliary().detector() == study.detector()


# Files


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.yaml"):
        load([tmp_path / "absent.yaml"])


def test_files_that_do_not_fit_together_are_named(tmp_path):
    thin, thick = tmp_path / "thin.yaml", tmp_path / "thick.yaml"
    thin.write_text("simulation: {layers: 9}\n")
    thick.write_text("dataset: {layers: [9, 10]}\n")
    with pytest.raises(ConfigError, match="= 10: must be at most") as caught:
        load([thin, thick])
    assert f"the configuration ({thin}, {thick}) cannot be used" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2", r"is not valid YAML: [^<]*in \".*broken\.yaml\", line 1, column 4"),
        ("- 1\n", "must be a mapping"),
        ("", "must be a mapping"),
        (
            "simulation: {layers: 5}\nseed: 1\nsimulation: {pixels: 192}\n",
            "'simulation' is there twice, in lines 1 and 3",
        ),
        (
            "variants:\n- outputs: strain-rotation\n  outputs: strain-rotation-tilt\n",
            r"'variants\.0\.outputs' is there twice, in lines 2 and 3",
        ),
    ],
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, text, message):
    broken = tmp_path / "broken.yaml"
    broken.write_text(text)
    with pytest.raises(ConfigError, match=rf"broken\.yaml:? {message}"):
        load([broken])


def test_keys_of_yaml_anchors_may_be_given_again(tmp_path):
    overlay = tmp_path / "anchor.yaml"
    overlay.write_text(
        "draws: {split: &parts {train: 0.6, validation: 0.2, test: 0.2}, count: 10}\n"
        "dataset: {examples: {<<: {train: 9, test: 8}, train: 7}}\n"
    )
    examples = load([overlay]).dataset.examples
    assert (examples.train, examples.test) == (7, 8)


# What Snakemake gives


def test_nested_values_of_the_command_line_are_numbers_flags_and_lists(config):
    given = {
        "draws": {"count": "40", "shared_strain": "true", "split": {"train": "0.5"}},
        "microscope": {"semiangles_mrad": ["6.35", "12.65"]},
        "network": {"pooled_head": "null"},
    }
    study = of_workflow(config, [DEFAULT], given)
    assert study.draws.count == 40
    assert study.draws.shared_strain is True
    assert study.microscope.semiangles_mrad == (6.35, 12.65)
    assert study.network.pooled_head is None


def test_files_of_snakemake_have_no_key_twice(config, tmp_path):
    overlay = tmp_path / "twice.yaml"
    overlay.write_text("seed: 1\nresults: a\nseed: 2\n")
    with pytest.raises(ConfigError, match=r"twice\.yaml: 'seed' is there twice, in lines 1 and 3"):
        of_workflow(config, [DEFAULT, overlay], {})


@pytest.mark.parametrize(
    ("scans", "complaint"),
    [
        ({"x y": {"file": "a"}}, "scans.x y = {'file': 'a'}: must be a name of letters, digits"),
        ({"x": {"layers": 3}}, "scans.x: 'file' is missing"),
        ({"x": "a.mib"}, "scans.x = 'a.mib': must be a mapping of keys to values"),
        ({"x": {"file": "a", "fit": {"b": 1}}}, "scans.x.fit = {'b': 1}: must be text, a number"),
        ([1], "scans = [1]: must be a mapping of keys to values"),
    ],
)
def test_a_scan_is_a_name_a_file_and_plain_options(config, scans, complaint):
    config["scans"] = scans
    assert complaint in the_complaint(config)


def test_options_of_scans_are_kept_with_short_numbers(config):
    config["scans"] = {"b": {"file": "b", "reference": [0, 2.0], "turn": None}, "a": {"file": "a"}}
    study = checked(config)
    assert [*study.scans] == ["a", "b"]
    assert repr(study.scans["b"].options) == "{'reference': [0, 2]}"


@pytest.mark.parametrize("record", [None, [], {}, {"seed": 1}])
def test_what_is_no_record_is_refused(record):
    with pytest.raises(ConfigError):
        of_record(record)


def test_whole_numbers_are_the_same_with_and_without_a_decimal_point(config):
    before = checked(config).plain()
    change(config, "microscope.energy_keV", 80.0)
    change(config, "dataset.electrons", [1000000, 50000000])
    after = checked(config)
    assert repr(after.plain()) == repr(before)
    assert "80.0" not in repr(after.of_patterns())


# What a job imports


def test_reading_a_configuration_needs_no_engine_and_no_network():
    code = (
        "import sys, pacbed.study.configuration as c; c.Configuration().deformation.draw_ranges();"
        "print({'h5py', 'ase', 'scipy', 'keras', 'tensorflow', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"simulation.engine": "prismatic"}, "other physics.*simulation.engine: planewave"),
        (
            {"simulation.planewave.slices_per_layer": 3, "simulation.thermal_motion": 2},
            "other physics.*slices_per_layer: planes",
        ),
        ({"simulation.thermal_motion": "coherent"}, "thermal_motion: full"),
        ({"simulation.thermal_motion": 2}, "thermal_motion: full"),
        ({"execution.draws_per_job": 10}, "draws_per_job: 1"),
        ({"deformation.principal_stretch": [1, 1]}, "principal_stretch does not vary"),
        ({"simulation.planewave.strain_states": 5}, "at least 6 states"),
    ],
)
def test_series_that_does_not_fit_the_study_is_refused(config, changes, message):
    fitting = {"simulation.engine": "planewave", "simulation.planewave.strain_states": 50}
    for key, value in {**fitting, **changes}.items():
        change(config, key, value)
    with pytest.raises(ConfigError, match=rf"strain_states = \d+: .*{message}"):
        checked(config)


def test_series_holds_what_the_draws_of_a_study_need(config):
    for key, value in (("simulation.engine", "planewave"), ("microscope.energy_keV", 300)):
        change(config, key, value)
    change(config, "simulation.planewave.strain_states", 16)
    asked = checked(config).series()
    assert (asked.states, asked.degree, asked.energy_keV) == (16, 2, 300)
    assert asked.semiangle_mrad == 32.94
    assert asked.tilt_mrad == pytest.approx(50**0.5)
    assert asked.strain.stretch == (0.95, 1.05)


def test_strain_state_of_a_draw_is_the_simulation_of_its_patterns(config):
    change(config, "simulation.engine", "planewave")
    study = checked(config)
    asked = study.state_of_draw(3, (12.65,))
    one = draw(study.seed, 12.65, 3, study.deformation.draw_ranges())
    patterns = study.request(
        12.65, one.deformation, one.tilt_mrad, simulation_seed(study.seed, 12.65, 3)
    )
    (simulation,) = asked.simulations
    assert replace(simulation, detector=patterns.detector) == patterns
    assert asked.kept == study.dataset.layers
    assert asked.reach_mrad == 67 + max(map(abs, one.tilt_mrad))
    # Other displacements than in the states of the series.
    assert simulation.seed not in {study.series().requests(n)[0].seed for n in range(50)}
    # How patterns are stored does not matter.
    change(config, "simulation.pixels", 1280)
    assert checked(config).state_of_draw(3, (12.65,)) == asked


def test_semiangles_share_the_strain_state_of_a_draw_but_not_its_tilts(config):
    change(config, "simulation.engine", "planewave")
    change(config, "draws.shared_strain", True)
    angles = (6.35, 32.94)
    first, second = checked(config).state_of_draw(3, angles).simulations
    assert (first.aperture.semiangle_mrad, second.aperture.semiangle_mrad) == angles
    assert (first.deformation, first.seed) == (second.deformation, second.seed)
    assert first.tilt_mrad != second.tilt_mrad


def test_a_state_of_a_draw_survives_being_a_parameter_of_a_rule(config):
    change(config, "simulation.engine", "planewave")
    asked = checked(config).state_of_draw(3, (6.35, 12.65))
    stored = json.loads(json.dumps(plain(asked.to_dict())))
    assert StateRequest.from_dict(stored) == asked


# The camera of examples


def test_a_perfect_camera_leaves_examples_as_they_were(config):
    assert "camera" not in checked(config).dataset.used()
    change(config, "dataset.camera.ellipticity_direction_deg", [0, 90])
    assert "camera" not in checked(config).dataset.used()
    change(config, "dataset.camera.blur_px", [0, 1])
    study = checked(config)
    assert study.dataset.used()["camera"]["blur_px"] == [0, 1]
    assert study.augmentation().camera.blur_px == (0, 1)
    again = Configuration(dataset=study.dataset.used())
    assert again.dataset.camera == study.dataset.camera


def test_of_a_long_list_only_the_beginning_is_shown(config):
    change(config, "dataset.camera.mtf", [[n / 200, -1] for n in range(100)])
    assert "[0.06, -1] …: must be a file" in the_complaint(config)


def test_an_mtf_is_read_from_a_file_or_given(config, tmp_path):
    path = tmp_path / "mtf.csv"
    path.write_text("frequency,MTF\n0,1\n0.25,0.8\n0.5,0.4\n")
    points = [[0, 1], [0.25, 0.8], [0.5, 0.4]]
    for value in (str(path), points):
        change(config, "dataset.camera.mtf", value)
        study = checked(config)
        assert study.augmentation().mtf.points == tuple(map(tuple, points))
        # A file that says something else leads to other examples, one of another name does not.
        assert study.dataset.used()["camera"]["mtf"] == points
        assert study.dataset.of_pools()["camera"] == {"mtf": points, "mtf_bins": 1}
    change(config, "dataset.camera.mtf_bins", 2)
    assert checked(config).augmentation().mtf.width == 2
    change(config, "dataset.camera.mtf", str(tmp_path / "none.csv"))
    assert f"cannot read {tmp_path / 'none.csv'}" in the_complaint(config)
    change(config, "dataset.camera.mtf", [[0, 100], [0.5, 40]])
    assert "if values are in %, divide them by 100" in the_complaint(config)


def test_images_without_noise_do_not_depend_on_dose_noise_and_blur(config):
    pools = checked(config).dataset.of_pools()
    for key, value in (("noise", "poisson"), ("electrons", [1e5, 1e6]), ("camera.blur_px", [0, 1])):
        change(config, f"dataset.{key}", value)
    assert checked(config).dataset.of_pools() == pools
    change(config, "dataset.translation_px", 5)
    change(config, "dataset.camera.ellipticity", [0, 0.01])
    assert checked(config).dataset.of_pools()["camera"]["ellipticity"] == [0, 0.01]


def test_what_no_camera_can_have_is_refused(config):
    change(config, "dataset.camera.beam_stop_mrad", [0, 50])
    assert "must be less than 50 mrad" in the_complaint(config)
    # An ellipse shows more of the pattern.
    change(config, "dataset.camera.beam_stop_mrad", [0, 5])
    change(config, "dataset.camera.ellipticity", [0, 0.05])
    assert any("what rotation" in line for line in complaints(config))


def test_examples_are_fitted_with_what_the_fit_knows_of_a_camera():
    change = {"simulation": {"engine": "planewave", "planewave": {"strain_states": 50}}}
    change["dataset"] = {"camera": {"dead_pixels": [0, 0.01], "blur_px": [0, 1]}}
    study = load().changed(change)
    [line] = conflicts(study)
    assert line.startswith("dataset.camera.dead_pixels = [0, 0.01]: ")
    assert "fit.examples: 0" in line
    assert not list(conflicts(study.changed({"fit": {"examples": 0}})))


def test_a_dose_and_a_camera_length_are_converted_at_once(config):
    change(config, "dataset.electrons", {"per_A2": [50, 500], "area_A2": 20000})
    length = {"camera_length_mm": 140.8, "pixel_um": 55, "pixels": 256}
    change(config, "dataset.field_of_view_mrad", length)
    study = checked(config)
    assert study.dataset.electrons == (1e6, 1e7)
    assert study.dataset.field_of_view_mrad == pytest.approx(100)
    # What follows knows nothing of them.
    assert study.plain()["dataset"]["electrons"] == [1_000_000, 10_000_000]
    jsonschema.validate(config, SCHEMA)


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("dataset.electrons", {"per_A2": [50, 500]}, "mapping of per_A2, area_A2 to positive"),
        ("dataset.electrons", {"per_A2": [50, 500], "area_A2": -1}, "to positive numbers"),
        ("dataset.field_of_view_mrad", {"camera_length_m": 1}, "of camera_length_mm, pixel_um, pi"),
        ("dataset.electrons", {"per_A2": [1e-3, 500], "area_A2": 100}, "must be at least 1000"),
    ],
)
def test_other_units_that_are_not_whole_are_refused(config, key, value, said):
    change(config, key, value)
    assert said in the_complaint(config)


@pytest.mark.parametrize("text", ["simulation: &s\n  engine: *s\n", "[" * 2000])
def test_what_holds_itself_is_no_configuration(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(ConfigError, match="yaml is not valid YAML: something holds itself"):
        load([tmp_path / "a.yaml"])


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1"])
def test_another_encoding_is_named(tmp_path, encoding):
    path = tmp_path / "a.yaml"
    path.write_text("seed: 1  # Ångström\n", encoding=encoding)
    with pytest.raises(ConfigError, match="is not text in UTF-8"):
        load([path])
