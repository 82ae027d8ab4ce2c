"""The house stands: packages import only those below them, and every module works by itself."""

import json
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]

# Modules that may import Keras; what they do is imported only where networks are trained or used.
KERAS = (
    "pacbed.examples.augment_layer",
    "pacbed.learning",
    "pacbed.precision.nuisances",
    "pacbed.reading.by_network",
    "pacbed.reading.fit",
    "pacbed.reading.maps.calibrate",
    "pacbed.reading.maps.calibration",
    "pacbed.reading.maps.cut",
    "pacbed.reading.maps.found",
    "pacbed.reading.maps.maker",
    "pacbed.reading.maps.making",
    "pacbed.reading.maps.points",
    "pacbed.reading.predictions",
    "pacbed.reading.reading",
    "pacbed.reading.start",
    "pacbed.reading.thickness",
    "pacbed.scattering.image_model",
    "pacbed.scattering.xla",
    "pacbed.study.training_settings",
)

# Imports each module in a process of its own, forked from one that has imported what others have
# written and nothing of pacbed. Keras is hidden from the modules that must do without.
IMPORT_ALONE = """
import json, os, sys, traceback, importlib

def alone(name):
    child = os.fork()
    if child == 0:
        status = 1
        try:
            assert not any(module.split(".")[0] == "pacbed" for module in sys.modules)
            importlib.import_module(name)
            status = 0
        except BaseException:
            traceback.print_exc()
        sys.stderr.flush()
        os._exit(status)
    return os.waitpid(child, 0)[1] == 0

without, with_keras = json.loads(sys.argv[1])
import ase.build, h5py, matplotlib.pyplot, numpy, pandas, rich, scipy, seaborn, yaml, zarr
sys.modules.update(keras=None, tensorflow=None)
failed = [name for name in without if not alone(name)]
del sys.modules["keras"], sys.modules["tensorflow"]
import keras
failed += [name for name in with_keras if not alone(name)]
print(json.dumps(failed))
"""


@pytest.fixture(scope="module")
def imports():
    return grimp.build_graph("pacbed", cache_dir=None)


def test_a_package_imports_only_what_is_below_it():
    # In a process of its own: it leaves the terminal of this one in disorder.
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_there_are_few_enough_packages_to_know_them_all(imports):
    assert len(imports.find_children("pacbed")) <= 22


def test_every_module_imports_by_itself_and_simulating_needs_no_keras(imports):
    names = sorted(imports.modules - {"pacbed.__main__"})
    keras = [name for name in names if name.startswith(KERAS)]
    others = [name for name in names if name not in keras]
    assert len(others) > 50, "the modules were not found"
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALONE, json.dumps([others, keras])],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) == [], done.stderr
