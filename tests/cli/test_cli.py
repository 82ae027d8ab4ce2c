"""The command line: from a crystal to a picture, and mistakes told in one line."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pandas as pd
import pytest
import xarray
import zarr.storage

from pacbed import __version__
from pacbed.cli.main import main
from pacbed.patterns.store import read_patterns

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config" / "config.yaml"

TINY = ["--semiangle", "6.35", "--layers", "2", "--incident-step", "3", "--threads", "1"]


def simulate(output, *options):
    return main(["simulate", *TINY, *options, "--output", str(output)])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    path = tmp_path_factory.mktemp("cli") / "mos2.zarr.zip"
    assert simulate(path, "--fov", "60", "50", "--pixels", "48", "40", "--tilt", "2", "4.5") == 0
    return path


@pytest.fixture
def complaint(capsys):
    """Run a command that must fail; return its one line."""

    def run(*arguments):
        assert main([str(a) for a in arguments]) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        lines = captured.err.strip().splitlines()
        assert len(lines) == 1
        assert lines[0].startswith("error: ")
        return lines[0]

    return run


def failing(tmp_path, complaint, *options):
    output = tmp_path / "none.zarr.zip"
    line = complaint(
        "simulate", *TINY, "--fov", "60", "--pixels", "24", *options, "--output", output
    )
    assert list(tmp_path.iterdir()) == []
    return line


# pacbed simulate


def test_a_simulation_gives_a_pattern_for_every_layer_on_the_pixels_asked_for(store):
    found = xarray.open_zarr(zarr.storage.ZipStore(store, mode="r"))
    assert found["patterns"].dims == ("layer", "ky_mrad", "kx_mrad")
    assert found["patterns"].shape == (2, 40, 48)
    np.testing.assert_array_equal(found["layer"], [1, 2])
    np.testing.assert_allclose(found["kx_mrad"], (np.arange(48) - 24) * 60 / 48)
    np.testing.assert_allclose(found["ky_mrad"], (np.arange(40) - 20) * 50 / 40)


def test_most_electrons_of_two_layers_are_in_the_central_disc(store):
    found = read_patterns(store)
    radius = np.hypot(found.kx_mrad[None, :], found.ky_mrad[:, None])
    disc = found.patterns[:, radius < 7.5].sum(axis=1)
    assert np.all((disc > 0.7) & (disc < 1))
    assert disc[1] < disc[0]


def test_the_store_tells_what_was_asked_for(store):
    request = read_patterns(store).attributes["request"]
    assert request["material"]["formula"] == "MoS2"
    assert request["energy_keV"] == 80
    assert request["tilt_mrad"] == [2, 4.5]
    assert request["aperture"]["semiangle_mrad"] == 6.35


def test_one_number_makes_a_square_field(tmp_path):
    path = tmp_path / "square.zarr.zip"
    assert simulate(path, "--fov", "60", "--pixels", "24") == 0
    assert read_patterns(path).patterns.shape == (2, 24, 24)


def test_every_option_of_the_first_command_is_taken(tmp_path):
    path = tmp_path / "all.zarr.zip"
    command = (
        "simulate --engine planewave --material MoS2 --energy 80 --semiangle 18.13 "
        "--stretch 1.03 0.96 --theta 115 --tilt 2 4.5 --layers 1 --phonons 0 --no-debye-waller "
        "--band-limit prismatic --fov 60 --pixels 24 --aperture-edge 3 --seed 0 --incident-step 6"
    )
    assert main([*command.split(), "--output", str(path)]) == 0
    attributes = read_patterns(path).attributes
    request = attributes["request"]
    assert request["deformation"] == {"stretch_1": 1.03, "stretch_2": 0.96, "angle_deg": 115}
    assert request["thermal"] == {"phonon_configurations": 0, "debye_waller": False}
    assert request["aperture"]["edge_mrad"] == 3
    assert "prismatic" in str(attributes)


def test_several_semiangles_and_tilts_make_a_store_for_each_pair(tmp_path, capsys):
    path = tmp_path / "mos2.zarr.zip"
    field = ["--fov", "60", "--pixels", "24"]
    tilts = ["--tilt", "0", "0", "--tilt", "3", "-2.5"]
    assert simulate(path, "--semiangle", "6.35", "8", *tilts, *field) == 0
    assert {p.name for p in tmp_path.iterdir()} == {
        "mos2_6.35mrad_tilt+0+0.zarr.zip",
        "mos2_6.35mrad_tilt+3-2.5.zarr.zip",
        "mos2_8mrad_tilt+0+0.zarr.zip",
        "mos2_8mrad_tilt+3-2.5.zarr.zip",
    }
    tilted = read_patterns(tmp_path / "mos2_8mrad_tilt+3-2.5.zarr.zip")
    assert tilted.attributes["request"]["tilt_mrad"] == [3, -2.5]
    assert tilted.attributes["request"]["aperture"]["semiangle_mrad"] == 8
    alone = tmp_path / "alone.zarr.zip"
    assert simulate(alone, "--semiangle", "8", *tilts[3:], *field) == 0
    np.testing.assert_allclose(
        tilted.patterns, read_patterns(alone).patterns, atol=1e-4 * tilted.patterns.max()
    )


def test_a_pair_of_semiangle_and_tilt_is_asked_for_once(tmp_path, complaint):
    line = failing(tmp_path, complaint, "--semiangle", "6.35", "6.35")
    assert "asked for twice" in line


def test_frozen_phonons_fill_the_gaps_between_the_discs(tmp_path):
    def between_discs(*options):
        path = tmp_path / "one.zarr.zip"
        assert simulate(path, "--semiangle", "3", "--fov", "60", "--pixels", "60", *options) == 0
        store = read_patterns(path)
        radius = np.hypot(store.kx_mrad[None, :], store.ky_mrad[:, None])
        return store.patterns[1, (radius > 5) & (radius < 9)].sum(), store.attributes

    at_rest, _ = between_discs()
    moving, attributes = between_discs("--phonons", "2", "--supercell", "4", "3")
    assert at_rest < 1e-8
    assert 1e-5 < moving < 0.01
    assert attributes["configurations_per_wave"] == 2
    assert attributes["settings"]["supercell"] == [4, 3]
    assert len(attributes["phonon_noise"]) == 2
    assert attributes["seconds"] > 0
    assert attributes["peak_memory_MB"] > 50


def test_a_graphics_card_that_is_not_there_is_named(tmp_path, complaint):
    if importlib.util.find_spec("cupy"):
        pytest.skip("CuPy is installed")
    line = failing(tmp_path, complaint, "--device", "gpu")
    assert "device 'gpu' needs CuPy" in line
    assert "device 'cpu'" in line


def test_more_memory_than_the_machine_has_is_refused_with_what_to_change(
    tmp_path, complaint, monkeypatch
):
    monkeypatch.setattr("pacbed.engines.planewave.engine.memory_limit_bytes", lambda: 1_000_000)
    line = failing(tmp_path, complaint, "--phonons", "2")
    assert "GB of memory would be needed, but this machine has 0.0 GB" in line
    assert "incident_step_mrad" in line


def test_stretches_are_given_largest_first(tmp_path, complaint):
    line = failing(tmp_path, complaint, "--stretch", "0.97", "1.02")
    assert "λ1 = 0.97 is smaller than λ2 = 1.02" in line


def test_the_central_disc_lies_on_the_detector(tmp_path, complaint):
    line = failing(tmp_path, complaint, "--semiangle", "31")
    assert "semi-angle 31 mrad lies beyond the detector" in line
    assert "60 × 60 mrad" in line


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--material", "NbSe2"], "unknown material 'NbSe2'"),
        (["--layers", "0"], "at least one layer is needed, not 0"),
        (["--energy", "-80"], "beam energy must be positive, not -80"),
        (["--semiangle", "0"], "semi-angle must be positive, not 0"),
        (["--stretch", "1", "0"], "principal stretches must be positive"),
        (["--fov", "60", "50", "40"], "--fov takes one or two values, not 3"),
        (["--pixels", "24", "24", "24"], "--pixels takes one or two values, not 3"),
        (["--pixels", "1"], "at least 2 × 2 pixels"),
        (["--fov", "-60"], "field of view must be positive"),
        (["--phonons", "-1"], "phonon configurations must be 0 or more, not -1"),
        (["--phonons", "1"], "at least 2 configurations of each plane wave"),
        (["--phonons", "2", "--supercell", "1", "1"], "supercell of 1 × 1 cells is 3.2 Å × 5.5 Å"),
        (["--fov", "300"], "the detector reaches 150 mrad, but the band limit 'converged'"),
        (["--band-limit", "prismatic", "--slices", "planes"], "give their number per layer"),
        (["--incident-step", "0"], "incident step must lie within 0.1 to 10"),
        (["--aperture-edge", "-1"], "aperture edge must be 0 or more, not -1"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_one_line(tmp_path, complaint, options, message):
    assert message in failing(tmp_path, complaint, *options)


def test_a_folder_that_cannot_be_written_is_named(tmp_path, complaint):
    (tmp_path / "file").write_text("in the way")
    output = tmp_path / "file" / "mos2.zarr.zip"
    line = complaint("simulate", *TINY, "--fov", "60", "--pixels", "24", "--output", output)
    assert f"cannot write {output}" in line


# pacbed converge


@pytest.mark.parametrize("slices", [("2", "4"), ("planes", "∞")])
def test_converge_refines_every_setting_and_draws_and_tabulates_what_changes(
    tmp_path, capsys, slices
):
    figure = tmp_path / "convergence.png"
    command = (
        "converge --semiangle 3 --layers 2 --supercell 3 2 --band-limit 1.2 --incident-step 3 "
        "--fov 40"
    )
    assert main([*command.split(), "--slices", slices[0], "--output", str(figure)]) == 0
    printed = capsys.readouterr().out
    table = pd.read_csv(figure.with_suffix(".csv"))
    settings = {
        "band limit (1/Å)": ("1.2", "2.4"),
        "slices per layer": slices,
        "incident step (mrad)": ("3", "1.5"),
        "supercell": ("3 × 2", "6 × 4"),
        "configurations": ("2", "4"),
    }
    assert list(dict.fromkeys(table["setting"])) == list(settings)
    for name, values in settings.items():
        assert name in printed
        rows = table[table["setting"] == name]
        assert tuple(rows.iloc[0][["from", "to"]]) == values
        assert rows["layers"].tolist() == [1, 2]
        assert rows["relative_change"].between(1e-7, 0.2).all()
        assert rows["phonon_noise"].notna().all() == (name in ("supercell", "configurations"))
    assert figure.stat().st_size > 10_000


# pacbed show


def shown(path):
    image = matplotlib.image.imread(path)[..., :3].mean(axis=2)
    assert image.std() > 0.05, "the picture is blank"
    return image


def test_show_draws_beside_the_store_and_says_where(store, capsys):
    assert main(["show", str(store)]) == 0
    assert capsys.readouterr().out.strip() == str(store.with_name("mos2.png"))
    shown(store.with_name("mos2.png"))


def test_show_draws_a_panel_for_every_thickness_asked_for(store, tmp_path):
    for number, layers in enumerate((["1"], ["1", "2"])):
        path = tmp_path / f"{number}.png"
        assert main(["show", str(store), "--layers", *layers, "--output", str(path)]) == 0
    one, two = shown(tmp_path / "0.png"), shown(tmp_path / "1.png")
    assert two.shape[1] == pytest.approx(2 * one.shape[1], rel=0.02)


def test_show_narrows_the_field(store, tmp_path):
    for field in ("20", "50"):
        path = tmp_path / f"{field}.png"
        assert main(["show", str(store), "--fov", field, "--output", str(path)]) == 0
    assert shown(tmp_path / "20.png").mean() > 1.2 * shown(tmp_path / "50.png").mean()


@pytest.mark.parametrize("field", ["0", "-10", "200"])
def test_show_refuses_a_field_that_the_store_does_not_have(store, tmp_path, complaint, field):
    line = complaint("show", store, "--fov", field, "--output", tmp_path / "mos2.png")
    assert f"--fov must be between 0 and 50 mrad, not {field}" in line
    assert list(tmp_path.iterdir()) == []


def test_show_draws_pdf_too(store, tmp_path):
    assert main(["show", str(store), "--output", str(tmp_path / "mos2.pdf")]) == 0
    assert (tmp_path / "mos2.pdf").read_bytes().startswith(b"%PDF")


def test_show_names_a_thickness_that_is_not_there(store, complaint):
    line = complaint("show", store, "--layers", "1", "3")
    assert f"{store} has layers 1 to 2" in line
    assert "3" in line


def test_show_names_a_store_that_is_not_there(tmp_path, complaint):
    assert "absent.zarr.zip does not exist" in complaint("show", tmp_path / "absent.zarr.zip")


def test_show_names_a_truncated_store(store, tmp_path, complaint):
    cut = tmp_path / "cut.zarr.zip"
    cut.write_bytes(store.read_bytes()[:-100])
    assert f"{cut} is damaged or incomplete" in complaint("show", cut)
    assert list(tmp_path.iterdir()) == [cut]


def test_show_names_a_folder_that_is_no_store(tmp_path, complaint):
    assert str(tmp_path) in complaint("show", tmp_path)


def test_show_names_a_format_that_it_cannot_draw(store, tmp_path, complaint):
    line = complaint("show", store, "--output", tmp_path / "mos2.docx")
    assert "mos2.docx" in line
    assert list(tmp_path.iterdir()) == []


# pacbed network


def test_network_prints_the_layers_and_parameters_of_the_paper(capsys):
    assert main(["network", "--config", str(CONFIG)]) == 0
    printed = capsys.readouterr().out
    assert "35,055,846" in printed
    # The first convolution, the layer that holds nine tenths of the weights, and the output.
    for part in ("block1_conv1", "320", "33,554,944", "parameters", "774"):
        assert part in printed


def test_network_takes_overlays(tmp_path, capsys):
    overlay = tmp_path / "small.yaml"
    overlay.write_text("network: {filters: [8, 16, 32, 64], dense: [64, 32], pooled_head: 4}\n")
    assert main(["network", "--config", str(CONFIG), str(overlay)]) == 0
    convolutions = sum(
        (9 * a + 1) * b + (9 * b + 1) * b for a, b in ((1, 8), (8, 16), (16, 32), (32, 64))
    )
    assert f"{convolutions + 1025 * 64 + 65 * 32 + 33 * 6:,}" in capsys.readouterr().out


def test_network_without_a_configuration_says_which_it_looked_for(tmp_path, monkeypatch, complaint):
    monkeypatch.chdir(tmp_path)
    assert "cannot read config/config.yaml" in complaint("network")


# pacbed errors


@pytest.fixture
def table(tmp_path):
    rows = [
        ("strain_xx", "1", 0.001234, 0.0246),
        ("rotation_deg", "deg", 0.5, 5.0),
        ("tilt_x_mrad", "mrad", 0.25, 2.5),
    ]
    frame = pd.DataFrame(rows, columns=["parameter", "unit", "mae", "baseline_mae"])
    frame = frame.assign(
        semiangle_mrad=6.35, layers=10, outputs="strain-rotation-tilt", intensity="linear"
    )
    path = tmp_path / "errors.csv"
    pd.concat(
        [frame.assign(split="test"), frame.assign(split="train", mae=frame["mae"] / 10)]
    ).to_csv(path, index=False)
    return path


def test_errors_prints_the_test_set_with_the_baseline_beside_it(table, capsys):
    assert main(["errors", str(table)]) == 0
    printed = capsys.readouterr().out
    for part in ("6.35 mrad", "10", "strain_xx (%)", "rotation (°)", "tilt_x (mrad)"):
        assert part in printed
    for part in ("0.123 (2.46)", "0.5 (5)", "0.25 (2.5)"):
        assert part in printed


def test_errors_prints_another_set_on_request(table, capsys):
    assert main(["errors", str(table), "--split", "train"]) == 0
    assert "0.05 (5)" in capsys.readouterr().out


def test_errors_names_a_table_that_it_cannot_read(tmp_path, complaint):
    assert "absent.csv" in complaint("errors", tmp_path / "absent.csv")


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n"])
def test_errors_names_a_file_that_is_no_table_of_errors(tmp_path, complaint, text):
    path = tmp_path / "other.csv"
    path.write_text(text)
    assert "other.csv" in complaint("errors", path)


# The command itself


def command(*arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-m", "pacbed", *arguments],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )


def test_the_package_runs_as_a_module():
    done = command("--version")
    assert done.returncode == 0
    assert done.stdout.strip() == f"pacbed {__version__}"


def test_a_failing_command_has_a_failing_exit_status(tmp_path):
    done = command("show", str(tmp_path / "absent.zarr.zip"))
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [[], ["simulate"], ["simulat"], ["show", "--colour"], ["simulate", "--threads", "0"]],
)
def test_a_command_that_is_not_understood_explains_its_use(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: pacbed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "name", ["simulate", "show", "compare", "converge", "network", "errors", "doctor"]
)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as caught:
        main([name, "--help"])
    assert caught.value.code == 0
    assert f"pacbed {name}" in capsys.readouterr().out
