"""Called as an interpreter, runs a script with a made-up Prismatic 2.0 in place of pyprismatic.

What it does is chosen by environment variables:

STAND_IN_RECORD
    Folder that gets one folder per run, with the input and ``call.json``.
STAND_IN_DOES
    A function ``does_...`` of this module, from run number STAND_IN_FROM (1) on.
STAND_IN_CORE
    File taken for the compiled part of the package.
"""

import json
import math
import os
import runpy
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

FIELDS = """
    interpolationFactorX interpolationFactorY filenameAtoms filenameOutput realspacePixelSizeX
    realspacePixelSizeY potBound numFP sliceThickness zSampling numSlices zStart tileX tileY tileZ
    E0 alphaBeamMax numGPUs numStreamsPerGPU numThreads batchSizeTargetCPU batchSizeTargetGPU
    earlyCPUStopCount probeDefocus C3 C5 aberrations_file probeSemiangle probeXtilt probeYtilt
    probes_file randomSeed algorithm potential3D includeThermalEffects includeOccupancy
    alsoDoCPUWork save2DOutput save3DOutput save4DOutput transferMode saveDPC_CoM
    savePotentialSlices crop4DOutput saveComplexOutputWave saveProbe importPotential
    importFile importPath maxFileSize
"""


SIMULATION = "4DSTEM_simulation/metadata/metadata_0/original/simulation_parameters"
POTENTIAL = "4DSTEM_simulation/data/realslices/ppotential_fp0000/data"


class Metadata:
    """As pyprismatic has it, but it minds names that it does not know."""

    fields = FIELDS.split()

    def __setattr__(self, name, value):
        if name not in self.fields:
            raise AttributeError(f"Prismatic has no {name}")
        super().__setattr__(name, value)

    def go(self):
        number = record(self)
        # What the real one leaves behind.
        Path("scratch_param.txt").write_text("parameters")
        (Path.home() / "prismatic_gui_params.txt").write_text("parameters")
        print("Prismatic stand-in", flush=True)
        first = int(os.environ.get("STAND_IN_FROM", 1))
        chosen = os.environ.get("STAND_IN_DOES", "write") if number >= first else "write"
        globals()[f"does_{chosen}"](self)


def record(metadata):
    folder = Path(os.environ["STAND_IN_RECORD"])
    number = len(list(folder.iterdir())) + 1
    call = folder / f"{number:03d}"
    call.mkdir()
    for name in ("parameters.json", metadata.filenameAtoms, metadata.probes_file):
        shutil.copy(name, call)
    about = {"pid": os.getpid(), "cwd": os.getcwd(), "home": os.environ["HOME"]}
    write_whole(call / "call.json", json.dumps(about))
    return number


def write_whole(path, text):
    new = path.with_suffix(".new")
    new.write_text(text)
    new.rename(path)


# What it can do


def does_write(metadata):
    probes = len(read_probes(metadata.probes_file))
    for probe in range(probes):
        print(f"Computing Probe Position #{probe}/{probes}")
    write(metadata)
    print("a last word, as an error", file=sys.stderr)


def does_print_across_itself(metadata):
    # As threads do.
    for said in ("#2/4", "#1/4", "#3/4", "#0/4", "#31/4", "#Computing Probe Position #2/4", "#/4"):
        print(f"Computing Probe Position {said}", flush=True)
    write(metadata)


def does_exit(metadata):
    print("reading atoms")
    print("std::bad_alloc of doom", file=sys.stderr, flush=True)
    sys.exit(1)


def does_sigkill(metadata):
    os.kill(os.getpid(), signal.SIGKILL)


def does_sigsegv(metadata):
    os.kill(os.getpid(), signal.SIGSEGV)


def does_hang(metadata):
    helper = subprocess.Popen(["sleep", "600"])
    last = max(Path(os.environ["STAND_IN_RECORD"]).iterdir())
    write_whole(last / "helper.pid", str(helper.pid))
    print("thinking", flush=True)
    time.sleep(600)


def does_write_nothing(metadata):
    pass


# Files


def read_edges(path):
    return [float(edge) for edge in Path(path).read_text().splitlines()[1].split()]


def read_atoms(path):
    import numpy as np

    lines = Path(path).read_text().splitlines()
    return np.array([[float(word) for word in line.split()] for line in lines[2:-1]])


def read_probes(path):
    lines = Path(path).read_text().splitlines()
    return [[float(word) for word in line.split()] for line in lines[1:-1]]


def frequencies(metadata, edges):
    """Of the half of the grid that Prismatic keeps."""
    import numpy as np

    found = []
    for edge, axis in zip(edges, "XY", strict=False):
        multiple = 4 * getattr(metadata, f"interpolationFactor{axis}")
        pixel = getattr(metadata, f"realspacePixelSize{axis}")
        n = multiple * math.floor(float(np.float32(edge) / np.float32(pixel)) / multiple + 0.5) // 2
        found.append((np.arange(n) - n // 2) / edge)
    return found


def made_up_patterns(atoms, probes, axes, layers):
    """A spot each, where it lies depends on all atoms and on the probe; (layer, probe, x, y)."""
    import numpy as np

    qx, qy = (axis / axis.max() for axis in axes)
    phase = np.sin(7 * atoms[:, 1:4]).sum(axis=0)
    patterns = []
    for layer in range(1, layers + 1):
        for x, y in probes:
            at_x, at_y = 0.3 * math.sin(x + phase[0] + layer), 0.3 * math.cos(y + phase[1])
            spot = np.exp(-100 * ((qx[:, None] - at_x) ** 2 + 2 * (qy[None] - at_y) ** 2))
            patterns.append(0.98**layer * spot / spot.sum())
    shape = layers, len(probes), len(qx), len(qy)
    return np.array(patterns, dtype=np.float32).reshape(shape)


def write(metadata):
    import h5py
    import numpy as np

    edges, atoms = read_edges(metadata.filenameAtoms), read_atoms(metadata.filenameAtoms)
    if getattr(metadata, "importPotential", False):
        with h5py.File(metadata.importFile, "r") as file:
            assert "datacubes" not in file["4DSTEM_simulation/data"]
            edges = file[SIMULATION].attrs["c"].tolist()
            atoms = file[POTENTIAL][:]
    probes = read_probes(metadata.probes_file)
    axes = frequencies(metadata, edges)
    slices = math.ceil(np.float32(edges[2]) / np.float32(metadata.sliceThickness))
    layers = math.ceil(slices / metadata.numSlices)
    patterns = made_up_patterns(atoms, probes, axes, layers)
    with h5py.File(metadata.filenameOutput, "w") as file:
        file.create_group(SIMULATION).attrs["c"] = edges
        if getattr(metadata, "savePotentialSlices", False):
            file[POTENTIAL] = atoms  # that depends on all that a potential depends on
        for layer, data in enumerate(patterns):
            name = f"4DSTEM_simulation/data/datacubes/CBED_array_depth{layer:04d}"
            cube = file.create_group(name)
            depth = (layer + 1) * metadata.numSlices * metadata.sliceThickness
            cube.attrs["output_depth"] = np.float32(depth)
            cube["data"] = data[:, None]
            for name, axis in zip(("dim3", "dim4"), axes, strict=True):
                cube[name] = axis.astype(np.float32)


def main():
    core, package = ModuleType("pyprismatic.core"), ModuleType("pyprismatic")
    core.__file__ = os.environ.get("STAND_IN_CORE", __file__)
    package.__file__ = __file__
    package.core, package.Metadata = core, Metadata
    sys.modules.update({"pyprismatic": package, "pyprismatic.core": core})
    sys.argv = [argument for argument in sys.argv[1:] if argument != "-u"]
    runpy.run_path(sys.argv[0], run_name="__main__")


if __name__ == "__main__":
    main()
