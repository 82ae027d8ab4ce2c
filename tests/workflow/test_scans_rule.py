"""Maps of measured scans, as jobs of the workflow."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from test_cost import SLURM, overlays, rule
from workspace import LOCAL

from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.reading.maps.example_scan import small_ripple
from pacbed.reading.maps.store import read_map
from pacbed.reading.scans.writing import write_scan
from pacbed.scattering.fit import write_series
from pacbed.scattering.request import SeriesRequest
from pacbed.scattering.strain import StrainRange
from pacbed.specimen.crystal import MATERIALS

pytestmark = pytest.mark.xdist_group("scans of the workflow")

MAP = [
    f"results/maps/flake7.{ending}" for ending in ("zarr.zip", "calibration.json", "png", "html")
]
FLAKE = {"file": "flake7.npy", "layers": "1-10", "semiangle": 6.35, "reference": [0, 0, 2, 2]}


@pytest.fixture
def scanned(workspace):
    """A folder with a scan in which nothing has been done yet."""
    np.save(workspace.folder / "flake7.npy", np.ones((4, 4, 32, 32), np.uint16))
    return workspace


def test_each_scan_is_a_job(scanned):
    planned = scanned.plan("maps", change={"scans": {"flake7": FLAKE, "8": FLAKE}})
    assert planned.jobs == {"map": 2, "maps": 1}
    assert f"output: {', '.join(MAP)}" in planned.text
    assert "input: flake7.npy" in planned.text


def test_maps_are_a_part_of_the_whole_study(scanned):
    assert scanned.plan(change={"scans": {"flake7": FLAKE}}).jobs["map"] == 1


def test_a_scan_can_have_the_calibration_of_another(scanned):
    scans = {"flake7": FLAKE, "b": FLAKE | {"calibration": MAP[1]}}
    planned = scanned.plan("results/maps/b.zarr.zip", change={"scans": scans})
    assert planned.jobs == {"map": 2}


def test_mistakes_and_missing_files_are_named_before_anything_is_planned(scanned):
    scans = {"flake7": FLAKE | {"windw": 3}, "b": FLAKE | {"turn": 45}}
    wrong = scanned.plan("maps", change={"scans": scans})
    assert "scans.flake7: Unknown option: --windw. Did you mean --window?" in wrong.text
    assert 'scans.b: Invalid value "45" for --turn' in wrong.text
    scans = {"flake7": FLAKE, **{name: FLAKE | {"file": f"{name}.mib"} for name in "ab"}}
    missing = scanned.plan(change={"scans": scans})
    for name in "ab":
        assert f"scans.{name}: there is no file {name}.mib" in missing.text
    for outcome in (wrong, missing):
        assert outcome.status == 1
        assert "Traceback" not in outcome.text
        assert "Building DAG" not in outcome.text


def test_a_budget_has_maps(scanned, plan):
    options = overlays(scanned, scans={"flake7": FLAKE})
    status, budget, _, _ = plan(scanned.folder, SLURM, *options)
    assert status == 0
    found = rule(budget, "map")
    assert found["to_run"] == 1
    assert found["core_h"]["likely"] > 0
    assert found["ceiling_core_h"] == 8 * 8


@pytest.fixture(scope="module")
def ripple(made_once):
    """Folder with a small scan, and a coarse series for it."""

    def make(folder):
        folder.mkdir(exist_ok=True)
        request = SeriesRequest(
            MATERIALS["MoS2"], 80, 5, StrainRange((0.97, 1.03)), 6.61, 5.0, 60.0, 15, 2
        )
        coarse = PlaneWaveSettings(supercell=(3, 2), diffuse_waves=16, incident_step_mrad=2.5)
        write_series(folder / "series.zarr.zip", request, PlaneWaveEngine(coarse, 2))
        write_scan(folder / "ripple.hspy", small_ripple().simulate())

    return made_once("scan of the workflow", make)


def killed(process, when: Path) -> None:
    """Kill a run and its jobs as soon as a file is there."""
    for _ in range(6000):
        if when.exists() or process.poll() is not None:
            break
        time.sleep(0.1)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in children:
        try:
            os.kill(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    text, _ = process.communicate()
    assert when.exists(), text


def test_a_map_that_was_killed_continues_and_is_made_once(workspace, ripple):
    scan = {"file": str(ripple / "ripple.hspy"), "layers": [3, 5], "mirrored": False}
    scan |= {"series": str(ripple / "series.zarr.zip"), "reference": [0, 0, 2, 6]}
    change = {"scans": {"flake7": scan}}
    parts = workspace.folder / "results/maps/flake7.zarr.zip.parts"
    killed(workspace.start(*LOCAL, "--cores", "2", "maps", change=change), parts / "seeds.npz")
    # Written by the killed job, which may not have ended with it.
    assert (workspace.folder / MAP[1]).exists()
    calibrated = (parts / "calibration.json").stat().st_mtime

    log = workspace.folder / "results/logs/maps/flake7.log"
    outcome = workspace.run("maps", change=change)
    assert outcome.status == 0, outcome.text + log.read_text()
    assert outcome.jobs == {"map": 1, "maps": 1}
    assert "joint fit" not in log.read_text()
    assert (workspace.folder / MAP[1]).stat().st_mtime > calibrated
    for name in MAP:
        assert (workspace.folder / name).stat().st_size > 100
    assert not parts.exists()

    truth, made = small_ripple().truth_map(), read_map(workspace.folder / MAP[0])
    known = (truth.values["flags"] == 0) & (truth.values["layers"] > 0)
    right = made.values["layers"] == truth.values["layers"]
    assert right[known].mean() > 0.9
    assert workspace.plan("maps", change=change).nothing_to_do
    # Another option makes it again; the file that is there does not stop that.
    scan["window"] = 2
    assert workspace.plan("maps", change=change).jobs == {"map": 1, "maps": 1}
