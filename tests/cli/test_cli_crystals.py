"""Commands with crystals by name and from structure files."""

import ase.build
import numpy as np
import pytest

from pacbed.cli import main
from pacbed.patterns.store import read_patterns
from pacbed.scattering.series import ScatteringSeries

TINY = ["--fov", "50", "--pixels", "25", "--threads", "1"]
COARSE = ["--band-limit", "1.5", "--incident-step", "4"]
STATIC = ["--phonons", "0"]


def simulate(output, *options):
    words = ["simulate", "--semiangle", "4", *TINY, *COARSE, *STATIC]
    return main([*words, *options, "--output", output])


def test_a_crystal_with_a_name_is_simulated_and_drawn(tmp_path, capsys):
    store, picture = tmp_path / "hbn.zarr.zip", tmp_path / "hbn.png"
    assert simulate(store, "--material", "hBN", "--layers", "2") == 0
    found = read_patterns(store)
    assert found.patterns.shape == (2, 25, 25)
    assert found.attributes["request"]["material"]["polytype"] == "hBN"

    assert main(["show", store, "--cell", "--output", picture]) == 0
    assert picture.stat().st_size > 10_000
    assert "hBN: cell 2.5040 × 2.5040 Å" in capsys.readouterr().out


def test_a_crystal_of_a_configuration_is_drawn(tmp_path, capsys, complaint):
    overlay, picture = tmp_path / "own.yaml", tmp_path / "own.png"
    overlay.write_text("material: {structure: graphene}\n")
    assert main(["show", "--cell", "--config", overlay, "--output", picture]) == 0
    assert "graphene: cell 2.46" in capsys.readouterr().out
    assert picture.stat().st_size > 10_000
    said = complaint("show", "--cell", "--config", overlay, "--material", "MoS2")
    assert "give the crystal with --material or with --config, not with both" in said


def test_a_structure_file_is_simulated_once_its_displacements_are_given(tmp_path, wse2, complaint):
    store = tmp_path / "wse2.zarr.zip"
    words = ["simulate", "--material", wse2, "--layers", "1", "--output", store]
    said = complaint(*words).splitlines()[-1]
    assert "--displacement W=0.065 Se=0.08" in said
    assert "described in the configuration" not in said
    given = ["--displacement", "W=0.065", "Se=0.08"]
    assert simulate(store, "--material", wse2, "--layers", "1", *given) == 0
    # As the crystal that is known by name.
    known = tmp_path / "known.zarr.zip"
    assert simulate(known, "--material", "WSe2", "--layers", "1") == 0
    found, expected = (read_patterns(s).patterns.astype(float) for s in (store, known))
    # Its layer is turned by 180°: the pattern is that of the other, turned.
    turned = expected[:, ::-1, ::-1]
    apart = min(np.abs(found - e).sum() for e in (expected, turned)) / expected.sum()
    assert apart < 5e-3


def test_a_stack_has_its_own_number_of_layers(tmp_path, complaint, capsys):
    path, store = tmp_path / "layer.vasp", tmp_path / "layer.zarr.zip"
    ase.build.graphene(vacuum=8).write(path)
    options = ["--material", path, "--stack", "--displacement", "C=0.055"]
    assert simulate(store, *options) == 0
    assert read_patterns(store).layers.tolist() == [1]
    capsys.readouterr()
    said = complaint("simulate", *options, "--layers", "2", "--output", tmp_path / "no.zarr.zip")
    assert "C is a stack of 1 layer, which does not repeat" in said


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--stacking-axis", "b"], "--stacking-axis belongs to a crystal that is named with"),
        (["--material", "hBN", "--period", "3"], "hBN is known by name, with its layers"),
        (["--material", "hBN", "--displacement", "B"], "write an element or site and its root"),
        (["--material", "hBN", "--displacement", "B=0.5"], "of a B factor of 0.5 Å²"),
        (["--material", "hBN", "--displacement", "B=0"], "B does not move"),
        (["--material", "none.cif"], "there is no file none.cif"),
        (["--material", "SnS2"], "SnS2 is known as 1T-SnS2"),
    ],
)
def test_mistakes_are_named(tmp_path, complaint, options, said):
    assert said in complaint("simulate", *options, "--output", tmp_path / "none.zarr.zip")


def test_show_needs_a_store_or_a_crystal(complaint):
    assert "name a store of patterns, or draw a crystal" in complaint("show")
    assert "--cell draws the crystal of a store" in complaint("show", "--cell")


def test_a_scattering_series_of_a_named_crystal_makes_its_patterns(tmp_path, complaint, capsys):
    series, store = tmp_path / "t.series.zarr.zip", tmp_path / "t.zarr.zip"
    ranges = ["--layers", "2", "--stretch", "0.99", "1.01", "--semiangle", "3", "--tilt", "1"]
    more = ["--fov", "40", "--states", "6", "--energy", "80", "--threads", "1"]
    words = ["scatter", "--material", "1T-TaS2", *ranges, *more, *COARSE, *STATIC]
    assert main([*words, "--output", series]) == 0
    assert ScatteringSeries(series).request.material.name == "1T-TaS2"

    of_series = ["--semiangle", "2.5", "--fov", "30", "--pixels", "25", "--stretch", "1.005", "1"]
    assert main(["simulate", "--series", series, *of_series, "--output", store]) == 0
    direct = tmp_path / "direct.zarr.zip"
    words = ["simulate", "--material", "1T-TaS2", *of_series, "--layers", "2", "--threads", "1"]
    assert main([*words, *COARSE, *STATIC, "--output", direct]) == 0
    found, expected = (read_patterns(s).patterns.astype(float) for s in (store, direct))
    assert np.abs(found - expected).sum() < 0.01 * expected.sum()
    capsys.readouterr()
    said = complaint("simulate", "--series", series, "--material", "hBN", "--output", store)
    assert "is of 1T-TaS2, not of hBN" in said


def test_a_structure_is_not_overwritten_by_the_log(wse2, tmp_path, complaint):
    before = wse2.read_bytes()
    words = ["--material", wse2, "--log", wse2, "--output", tmp_path / "a.zarr.zip"]
    assert "would be overwritten" in complaint(
        "simulate", *words, "--displacement", "W=0.1", "Se=0.1"
    )
    assert wse2.read_bytes() == before
