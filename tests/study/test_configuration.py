"""The configuration: the shipped one is the paper's, and what cannot be used is refused early."""

import copy
import math
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pacbed.exceptions import ConfigError
from pacbed.learning.specification import NetworkSpec
from pacbed.specimen.crystal import MATERIALS
from pacbed.study.configuration import (
    SCHEMA,
    detector,
    load,
    material,
    neighbour,
    networks,
    prismatic_memory_MB,
    scientific,
    training_batch,
    training_epochs,
    used_training,
    validate,
)

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = ROOT / "config" / "config.yaml"
DEMO = ROOT / "config" / "demo.yaml"
STRUCTURE = yaml.safe_load((ROOT / SCHEMA).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def paper():
    return load([DEFAULT])


@pytest.fixture
def config(paper):
    return copy.deepcopy(paper)


def value_of(config, key):
    for name in key.split("."):
        config = config[name]
    return config


def change(config, key, value):
    *sections, name = key.split(".")
    for section in sections:
        config = config[section]
    config[name] = value


def complaints(config):
    """The problems found in a configuration, one line each."""
    with pytest.raises(ConfigError) as caught:
        validate(config, ROOT / SCHEMA)
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
def test_the_shipped_configuration_is_the_protocol(paper, key, value):
    assert value_of(paper, key) == value


def test_the_learning_rate_is_stepped_up_and_down_again_in_4000_epochs(paper):
    steps = paper["training"]["learning_rate_steps"]
    rates = [step["rate"] for step in steps]
    top = rates.index(1e-3)
    assert sum(step["epochs"] for step in steps) == 4000
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
    assert len(networks(config)) == 40


def test_the_demo_has_two_semiangles_three_thicknesses_and_64_pixels():
    demo = load([DEFAULT, DEMO])
    assert len(demo["microscope"]["semiangles_mrad"]) >= 2
    assert len(demo["dataset"]["layers"]) >= 3
    assert demo["dataset"]["pixels"] == 64
    assert {6.35, 12.65} >= {n.semiangle_mrad for n in networks(demo)}


def test_an_overlay_changes_what_it_names_and_nothing_else(paper):
    demo, overlay = load([DEFAULT, DEMO]), yaml.safe_load(DEMO.read_text(encoding="utf-8"))
    assert demo["simulation"]["layers"] == overlay["simulation"]["layers"]
    assert demo["simulation"]["planewave"] == {
        **paper["simulation"]["planewave"],
        "phonon_configurations": 0,
    }
    assert demo["simulation"]["prismatic"] == paper["simulation"]["prismatic"]
    assert demo["material"] == paper["material"]


def test_another_material_may_be_laid_over_the_default(tmp_path):
    overlay = tmp_path / "wse2.yaml"
    overlay.write_text(yaml.safe_dump({"material": vars(MATERIALS["WSe2"])}))
    made = material(load([DEFAULT, overlay])["material"])
    assert made.elements == ("W", "Se")
    assert made.zigzag_A == MATERIALS["WSe2"].zigzag_A


# The schema


def objects(node, key="config"):
    """Every part of the schema that describes a mapping, with its name."""
    if isinstance(node, dict):
        if node.get("type") == "object":
            yield key, node
        for name, child in node.items():
            yield from objects(child, f"{key}.{name}")
    elif isinstance(node, list):
        for number, child in enumerate(node):
            yield from objects(child, f"{key}.{number}")


def described(node, key=""):
    """Every property of the schema, with the key that it describes."""
    for name, child in node.get("properties", {}).items():
        full = f"{key}.{name}" if key else name
        yield full, child
        yield from described(child, full)
        yield from described(child.get("items", {}), full)


def test_every_key_is_described():
    keys = dict(described(STRUCTURE))
    assert {"seed", "draws.split.test", "training.learning_rate_steps.rate"} <= set(keys)
    assert [key for key, node in keys.items() if not node.get("description", "").strip()] == []


def test_no_section_takes_keys_that_it_does_not_know():
    open_ended = [key for key, node in objects(STRUCTURE) if node["additionalProperties"]]
    assert open_ended == ["config.properties.material.properties.rms_displacement_A"]


def test_every_key_must_be_given():
    optional = [
        (key, set(node["properties"]) ^ set(node["required"]))
        for key, node in objects(STRUCTURE)
        if "properties" in node
    ]
    assert [(key, names) for key, names in optional if names] == []


def test_the_defaults_in_the_schema_are_those_of_the_shipped_configuration(paper):
    defaults = {key: node["default"] for key, node in described(STRUCTURE) if "default" in node}
    assert {key: value_of(paper, key) for key in defaults} == defaults


def test_every_value_of_the_shipped_configuration_has_a_default_in_the_schema(paper):
    without = {
        key
        for key, node in described(STRUCTURE)
        if "default" not in node and "properties" not in node
    }
    # Lists of mappings are given in the file; their items have no defaults of their own.
    assert {key.split(".")[0] for key in without} == {"training", "variants"}


# Keys, types and single values


@pytest.mark.parametrize(
    ("key", "suggestion"),
    [
        ("microscop", "did you mean 'microscope'?"),
        ("dataset.electron", "did you mean 'electrons'?"),
        ("simulation.planewave.slice_per_layer", "did you mean 'slices_per_layer'?"),
        ("draws.split.holdout", "known: train, validation, test"),
    ],
)
def test_an_unknown_key_is_named_with_what_was_probably_meant(config, key, suggestion):
    change(config, key, 7)
    assert the_complaint(config) == f"  - {key} = 7: unknown key; {suggestion}"


def test_an_unknown_key_in_a_list_is_named_with_its_place(config):
    config["variants"][1]["intensities"] = "sqrt"
    line = the_complaint(config)
    assert "variants.1.intensities = 'sqrt'" in line
    assert "did you mean 'intensity'?" in line


def test_a_missing_key_is_named(config):
    del config["dataset"]["noise"]
    assert the_complaint(config) == "  - dataset: 'noise' is a required property"


def test_a_missing_section_is_named(config):
    del config["network"]
    assert "'network' is a required property" in the_complaint(config)


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("draws.count", "many", "must be of type integer"),
        ("draws.count", 10.5, "must be of type integer"),
        ("draws.count", 0, "must be at least 1"),
        ("seed", -1, "must be at least 0"),
        ("microscope", [80], "must be of type object"),
        ("microscope.energy_keV", 0, "must be at least 1"),
        ("microscope.semiangles_mrad", [], "must have at least 1 items"),
        ("dataset.electrons", [1e6], "must have at least 2 items"),
        ("dataset.electrons", [1e6, 2e6, 3e6], "must have at most 2 items"),
        ("dataset.noise", "gaussian", "must be one of lognormal, poisson"),
        ("dataset.field_of_view_variation", 1, "must be less than 1"),
        ("simulation.debye_waller", "on", "must be of type boolean"),
        ("simulation.prismatic.phonon_configurations", -1, "must be at least 0"),
        ("simulation.planewave.phonon_configurations", 2.5, "must be of type integer"),
        ("network.pooled_head", "none", "must be of type integer or null"),
        ("training.momentum", 1.0, "must be less than 1"),
    ],
)
def test_a_value_of_the_wrong_kind_is_named_with_what_is_allowed(config, key, value, allowed):
    change(config, key, value)
    line = the_complaint(config)
    assert f"{key} = {value!r}" in line
    assert allowed in line


def test_an_item_of_a_list_is_named_with_its_place(config):
    config["microscope"]["semiangles_mrad"][2] = -18.13
    assert (
        the_complaint(config) == "  - microscope.semiangles_mrad.2 = -18.13: must be greater than 0"
    )


def test_layers_that_are_neither_all_nor_a_list_are_refused(config):
    config["variants"][0]["layers"] = "every"
    assert (
        the_complaint(config)
        == "  - variants.0.layers = 'every': must be 'all' or a list of numbers"
    )


def test_a_number_that_yaml_takes_for_text_is_explained(tmp_path):
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text("microscope: {energy_keV: 8e1}\n")
    with pytest.raises(ConfigError, match=r"energy_keV = '8e1': .*write 1\.0e\+6"):
        load([DEFAULT, overlay])


def test_all_problems_are_told_at_once(config):
    change(config, "seed", "x")
    change(config, "draws.count", 0)
    change(config, "dataset.colour", "red")
    lines = complaints(config)
    assert len(lines) == 3
    for key in ("seed", "draws.count", "dataset.colour"):
        assert any(key in line for line in lines)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    "key", ["deformation.principal_stretch", "deformation.tilt_mrad", "dataset.electrons"]
)
def test_the_end_of_a_range_must_be_a_number(config, key, value):
    change(config, key, [value_of(config, key)[0], value])
    line = the_complaint(config)
    assert f"{key}.1 = {value}" in line
    assert "finite" in line


# Values that do not fit together


@pytest.mark.parametrize(
    "key",
    [
        "deformation.principal_stretch",
        "deformation.principal_angle_deg",
        "deformation.tilt_mrad",
        "deformation.rotation_deg",
        "dataset.electrons",
        "dataset.image_mean",
    ],
)
def test_ranges_have_their_lower_end_first(config, key):
    low, high = value_of(config, key)
    change(config, key, [high, low])
    line = the_complaint(config)
    assert f"{key} = [{high}, {low}]" in line
    assert "lower end must come first" in line


@pytest.mark.parametrize(("key", "high"), [("dataset.electrons", 1e6), ("dataset.image_mean", 1)])
def test_dose_and_image_mean_are_positive(config, key, high):
    change(config, key, [0, high])
    assert re.search(rf"{key}.0 = 0: must be (at least|greater than) ", the_complaint(config))


@pytest.mark.parametrize("given", [[-5, 5], [95, 105], [-0.05, 0.05]])
def test_stretches_are_not_strains_or_percentages(config, given):
    change(config, "deformation.principal_stretch", given)
    line = the_complaint(config)
    assert f"deformation.principal_stretch = [{given[0]}, {given[1]}]" in line
    assert "must" in line


def test_a_range_may_be_a_single_value(config):
    change(config, "deformation.tilt_mrad", [0, 0])
    change(config, "deformation.principal_stretch", [1, 1])
    validate(config, ROOT / SCHEMA)


def test_the_shares_of_the_sets_sum_to_one(config):
    change(config, "draws.split.test", 0.3)
    line = the_complaint(config)
    assert "draws.split" in line
    assert "'test': 0.3" in line
    assert "sum to 1.05, but must sum to 1" in line


def test_jobs_of_several_draws_have_full_batches(config):
    change(config, "execution.draws_per_job", 10)
    change(config, "draws.count", 1005)
    (line,) = complaints(config)
    assert "draws.count = 1005: must be a multiple of execution.draws_per_job = 10" in line
    change(config, "draws.count", 1010)
    validate(config, ROOT / SCHEMA)


@pytest.mark.parametrize(
    ("count", "share", "missing"), [(2, 0.25, ("validation", "test")), (10, 0.01, ("test",))]
)
def test_every_set_has_a_draw(config, count, share, missing):
    change(config, "draws.count", count)
    change(config, "draws.split", {"train": 0.75 - share, "validation": 0.25, "test": share})
    lines = complaints(config)
    assert any(
        f"draws.count = {count}: too few for a {name} set with a share of" in line
        for name in missing
        for line in lines
    )


def test_the_central_disc_lies_on_the_example(config):
    change(config, "microscope.semiangles_mrad", [6.35, 51])
    line = the_complaint(config)
    assert "microscope.semiangles_mrad = 51" in line
    assert "must be less than 50 mrad" in line


def test_a_soft_edge_of_the_aperture_lies_on_the_example_too(config):
    change(config, "microscope.aperture_edge_mrad", 10)
    line = the_complaint(config)
    assert "microscope.semiangles_mrad = 32.94: beyond the detector; with the aperture edge" in line


@pytest.mark.parametrize("angle", [12.3456789, 0.00001234])
def test_a_semiangle_that_cannot_name_a_folder_is_refused(config, angle):
    change(config, "microscope.semiangles_mrad", [6.35, angle])
    assert f"microscope.semiangles_mrad = {angle}: at most six digits" in the_complaint(config)


def test_examples_show_only_what_was_simulated(config):
    # Half of 106.25 mrad and a shift of 10 of 256 pixels, turned by 10°.
    needed = 2 * 106.25 * (0.5 + 10 / 256) * (0.984808 + 0.173648)
    change(config, "simulation.field_of_view_mrad", 132)
    line = the_complaint(config)
    assert "simulation.field_of_view_mrad = 132" in line
    named = float(re.search(r"must be at least (\S+) mrad", line)[1])
    assert named == pytest.approx(needed, abs=1)
    change(config, "simulation.field_of_view_mrad", named + 0.1)
    validate(config, ROOT / SCHEMA)


def test_patterns_are_stored_at_least_as_finely_as_examples_are_sampled(config):
    # The finest pixel of an example is 93.75 mrad / 256.
    fewest = math.ceil(config["simulation"]["field_of_view_mrad"] / (93.75 / 256))
    change(config, "simulation.pixels", fewest - 1)
    line = the_complaint(config)
    assert f"simulation.pixels = {fewest - 1}" in line
    assert f"must be at least {fewest}" in line
    change(config, "simulation.pixels", fewest)
    validate(config, ROOT / SCHEMA)


def test_the_stored_field_lies_within_the_band_limit(config):
    # Prismatic keeps half of the Nyquist frequency of 0.15 Å: 1.667 1/Å, 69.6 mrad at 80 kV.
    change(config, "simulation.engine", "planewave")
    change(config, "simulation.planewave.band_limit", "prismatic")
    change(config, "simulation.planewave.slices_per_layer", 3)
    validate(config, ROOT / SCHEMA)
    change(config, "simulation.field_of_view_mrad", 140)
    line = the_complaint(config)
    assert "simulation.field_of_view_mrad = 140" in line
    assert "must be at most 139.2 mrad" in line
    assert "prismatic" in line


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("band_limit", "sharp", "must be 'converged', 'prismatic' or a number in 1/Å, not 'sharp'"),
        ("band_limit", 20, "must lie within 0.5 to 10 1/Å, not 20"),
        ("band_limit", "prismatic", "give their number per layer (3 in the paper)"),
        ("slices_per_layer", "many", "must be a number or 'planes', not 'many'"),
        ("slices_per_layer", 0, "at least one slice per layer"),
    ],
)
def test_settings_of_the_planewave_engine_fit_together(config, key, value, message):
    change(config, f"simulation.planewave.{key}", value)
    line = the_complaint(config)
    assert line.startswith("  - simulation.planewave: ")
    assert message in line


def test_one_phonon_configuration_is_too_few(config):
    change(config, "simulation.engine", "planewave")
    change(config, "simulation.planewave.phonon_configurations", 1)
    line = the_complaint(config)
    assert "simulation.planewave.phonon_configurations = 1" in line
    assert "at least 2 configurations" in line


def test_a_supercell_holds_more_than_an_atom(config):
    change(config, "simulation.engine", "planewave")
    change(config, "simulation.planewave.supercell", [1, 5])
    assert "a supercell of 1 × 5 cells" in the_complaint(config)
    change(config, "simulation.planewave.phonon_configurations", 0)
    validate(config, ROOT / SCHEMA)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("simulation.prismatic.box_A", "large", "must be a number from 10 to 2000 or 'auto'"),
        ("simulation.prismatic.box_A", 5, "must be a number from 10 to 2000 or 'auto'"),
        ("simulation.prismatic.probes", 16, "must be two whole numbers, 1 or more or 'auto'"),
        ("simulation.prismatic.probe_region_A", 80, "16 × 28 probes need a cell each"),
        ("simulation.prismatic.box_A", 210, "leaves only 5 Å to the edges"),
        ("simulation.prismatic.probes", [5, 10], "too few at 32.94 mrad"),
        ("simulation.prismatic.phonon_configurations", 0, "has no Debye-Waller factor"),
        ("microscope.aperture_edge_mrad", 0.2, "an aperture edge of its own"),
        ("simulation.field_of_view_mrad", 140, "lets waves through up to 69.68 mrad"),
        ("simulation.pixels", 1400, "finer than Prismatic's own of 0.1044 mrad"),
        ("simulation.pixels", "raw", "must be a whole number from 8 or 'native'"),
    ],
)
def test_prismatic_is_asked_only_for_what_it_can_do(config, key, value, message):
    change(config, key, value)
    assert message in the_complaint(config)


def test_probes_are_split_between_no_more_configurations_than_there_are(config):
    change(config, "simulation.prismatic.probes_per_configuration", "split")
    validate(config, ROOT / SCHEMA)
    change(config, "simulation.prismatic.probes", [3, 3])
    assert "9 probes cannot be split between 10 configurations" in the_complaint(config)


def test_native_pixels_are_those_of_the_paper(config):
    change(config, "simulation.pixels", "native")
    validate(config, ROOT / SCHEMA)
    kept = detector(config["simulation"], 80)
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
        validate(config, ROOT / SCHEMA)


def test_memory_follows_from_the_box(config):
    # 12 bytes per point and slice, 5.1 GB, are potential and transmission.
    paper = prismatic_memory_MB(config, 32)
    assert 12_000 < paper < 20_000
    change(config, "simulation.prismatic.box_A", "auto")
    change(config, "simulation.prismatic.probes", "auto")
    assert prismatic_memory_MB(config, 1) < paper / 5


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({}, {"simulation.debye_waller": False}),
        ({"simulation.prismatic.box_A": "auto"}, {"simulation.prismatic.probe_region_A": 100}),
        ({"simulation.pixels": "native"}, {"simulation.field_of_view_mrad": 100}),
        (
            {
                "simulation.engine": "planewave",
                "simulation.planewave.phonon_configurations": 0,
            },
            {"simulation.planewave.supercell": [3, 3]},
        ),
    ],
)
def test_what_changes_no_pattern_runs_nothing_again(config, first, then):
    for key, value in first.items():
        change(config, key, value)
    before = copy.deepcopy(scientific(config["simulation"]))
    for key, value in then.items():
        change(config, key, value)
    assert scientific(config["simulation"]) == before


def test_what_is_not_used_does_not_belong_to_a_simulation(config):
    kept = scientific(config["simulation"])
    assert "prismatic" in kept
    assert "planewave" not in kept


def test_thicknesses_lie_within_the_simulated_crystal(config):
    change(config, "simulation.layers", 15)
    assert (
        the_complaint(config) == "  - dataset.layers = 20: must be at most simulation.layers = 15"
    )


def test_every_block_of_the_network_can_halve_the_image(config):
    change(config, "dataset.pixels", 250)
    line = the_complaint(config)
    assert "dataset.pixels = 250" in line
    assert "must be a multiple of 16" in line


def test_a_pooled_head_divides_the_last_feature_maps(config):
    change(config, "network.pooled_head", 5)
    line = the_complaint(config)
    assert "network.pooled_head = 5" in line
    assert "must divide 16" in line


def test_a_pooled_head_of_four_fits(config):
    change(config, "network.pooled_head", 4)
    validate(config, ROOT / SCHEMA)


@pytest.mark.parametrize(
    ("name", "given", "absent"), [("layers", [1, 7], "7"), ("semiangles_mrad", [6.35, 9.5], "9.5")]
)
def test_variants_name_only_what_is_configured(config, name, given, absent):
    config["variants"][1][name] = given
    line = the_complaint(config)
    assert f"variants.1.{name} = {given}: {absent} not among the configured" in line


def test_every_element_has_a_thermal_displacement(config):
    change(config, "material.formula", "MoSe2")
    line = the_complaint(config)
    assert "material" in line
    assert "no thermal displacement for Se in MoSe2" in line


@pytest.mark.parametrize("formula", ["MoS", "S2Mo", "Mo2S", "bronze"])
def test_a_material_is_of_the_form_mx2(config, formula):
    change(config, "material.formula", formula)
    line = the_complaint(config)
    assert "material" in line
    assert f"'{formula}'" in line


def test_the_chalcogen_planes_of_two_layers_do_not_meet(config):
    change(config, "material.chalcogen_height_A", 3.1)
    line = the_complaint(config)
    assert "material.chalcogen_height_A = 3.1" in line
    assert "3.07" in line


@pytest.mark.parametrize("folder", ["", "my results", "{semiangle}", "/"])
def test_the_folder_for_results_is_a_plain_path(config, folder):
    change(config, "results", folder)
    assert f"results = {folder!r}" in the_complaint(config)


# Training


def test_no_more_epochs_are_averaged_than_there_are(config):
    config["training"]["fast"] |= {"epochs": 5, "averaged_epochs": 6}
    assert the_complaint(config) == (
        "  - training.fast.averaged_epochs = 6: must be at most training.fast.epochs = 5"
    )


def test_a_training_depends_on_its_own_schedule_alone(config):
    section = config["training"]
    paper = used_training(section)
    assert "fast" not in paper
    assert (training_epochs(section), training_batch(section)) == (4000, 256)
    section["schedule"] = "fast"
    fast = used_training(section)
    assert not {"learning_rate_steps", "batch_size"} & set(fast)
    assert training_epochs(section) == section["fast"]["epochs"]
    assert training_batch(section) == section["fast"]["batch_size"]


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


# Files


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read .*absent\.yaml"):
        load([DEFAULT, tmp_path / "absent.yaml"])


@pytest.mark.parametrize(
    ("text", "message"), [("a: [1, 2", "is not valid YAML"), ("- 1\n", "must be a mapping")]
)
def test_a_file_that_is_no_configuration_is_named(tmp_path, text, message):
    broken = tmp_path / "broken.yaml"
    broken.write_text(text)
    with pytest.raises(ConfigError, match=rf"broken\.yaml {message}"):
        load([DEFAULT, broken])
