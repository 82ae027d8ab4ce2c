"""Prismatic 2.0 itself, as this package runs it, against patterns that others computed with it and
against the plane-wave engine.

Every figure is a relative L1 difference, both patterns scaled to the same sum. Where Prismatic is
not there, nothing of this runs.
"""

import json
import math
import os
from dataclasses import replace

import numpy as np
import pytest
from samples import detector, requested
from test_against_prismatic import DATA, LAYERS, apart, load

from pacbed.engines import ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.prismatic import Execution, PrismaticSettings
from pacbed.engines.prismatic.engine import PrismaticEngine
from pacbed.engines.prismatic.process import installation
from pacbed.engines.prismatic.settings import Grid
from pacbed.exceptions import RequestError
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, wavelength_A

PERIODIC = ["static_strain_tilt_25", "static_unstrained_18", "static_strain_tilt_18_large"]


@pytest.fixture(scope="module", autouse=True)
def execution():
    python = os.environ.get("PACBED_PRISMATIC_PYTHON")
    try:
        installation(python)
    except RequestError:
        pytest.skip("needs Prismatic 2.0")
    return Execution(python)


def asked(case, motion="none"):
    """The request of a reference with the aperture that Prismatic has, and its patterns."""
    reference = load(case)
    request = replace(
        reference.request,
        aperture=Aperture(reference.request.aperture.semiangle_mrad),
        thermal=ThermalMotion(motion),
    )
    return request, reference.patterns


def whole_cells(case, request):
    """Edges of the box of a reference, in which the crystal is periodic."""
    with np.load(DATA / f"prismatic2_{case}.npz") as file:
        cells = json.loads(str(file["meta"]))["unit_cells"]
    edges = cells * np.diag(request.material.in_plane_cell_A(request.deformation))
    return tuple(edges.tolist())


def differences(execution, request, references, **settings):
    engine = PrismaticEngine(
        PrismaticSettings(interpolation_factor=1, **settings), threads=2, execution=execution
    )
    patterns = engine.simulate(request).patterns
    return np.array([apart(patterns[n - 1], r) for n, r in zip(LAYERS, references, strict=True)])


@pytest.mark.parametrize("case", PERIODIC)
def test_patterns_are_those_that_others_computed_with_prismatic(execution, case):
    request, references = asked(case)
    box = whole_cells(case, request)
    found = differences(
        execution, request, references, box_A=box, probe_region_A=1000, probes=(4, 7)
    )
    assert (found < 0.002).all(), found.round(5)


def test_patterns_of_a_crystal_that_does_not_fit_the_box_are_those_that_others_computed(execution):
    # Prismatic is not translation invariant on a grid that the lattice does not fit: probes in
    # other cells change its own patterns by 0.4 %.
    request, references = asked("static_shear_33")
    found = differences(execution, request, references, box_A=70, probe_region_A=40, probes="auto")
    assert (found < 0.006).all(), found.round(5)


def test_patterns_of_a_shaking_crystal_are_those_that_others_computed(execution):
    # Other displacements of the same size: what is left is the noise of twelve configurations.
    case = "phonon_strain_tilt_13"
    request, references = asked(case, motion=12)
    box = whole_cells(case, request)
    found = differences(
        execution, request, references, box_A=box, probe_region_A=1000, probes=(4, 8)
    )
    assert (found < (0.004, 0.006, 0.012, 0.024, 0.03)).all(), found.round(4)


def test_both_engines_agree_on_a_sheared_tilted_shaking_crystal(execution):
    box_A, semiangle_mrad = 51.0, 18.13
    native_mrad = 1e3 * wavelength_A(80) / box_A
    request = replace(
        requested(semiangle_mrad, tilt=(-2.0, 3.0), layers=20, motion=3),
        deformation=Deformation(1.04, 0.97, 30.0),
        detector=detector(81 * native_mrad, 81),
    )
    boxed = PrismaticSettings(interpolation_factor=1, box_A=box_A, probe_region_A=24, probes="auto")
    theirs = PrismaticEngine(boxed, threads=2, execution=execution).simulate(request).patterns
    # The plane-wave engine has configurations for each of its waves: a few make many.
    soft = replace(
        request,
        aperture=Aperture(semiangle_mrad, native_mrad, "linear"),
        thermal=ThermalMotion(2),
    )
    waves = PlaneWaveSettings("prismatic", 3, incident_step_mrad=2.5)
    ours = PlaneWaveEngine(waves, threads=2).simulate(soft).patterns

    found = np.array([apart(ours[n - 1], theirs[n - 1].astype(float)) for n in LAYERS])

    assert (found < (0.012, 0.016, 0.033, 0.036, 0.07)).all(), found.round(4)


def test_probes_in_portions_give_the_same_pattern(execution):
    # After the first portion Prismatic imports the potential that it wrote.
    settings = PrismaticSettings(slices_per_layer=1, box_A=40, probe_region_A=22, probes=(4, 3))
    request = requested(12.65, tilt=(4.0, -3.0), layers=2, field=100, pixels=56)
    grid = Grid(settings.box_A, settings.pixel_A, settings.interpolation_factor)
    potential, pattern = (4 * 2 * math.prod(n) for n in (grid.points, grid.output_points))
    lines = []

    def simulate(room=None):
        run = replace(execution, scratch_GB=room)
        engine = PrismaticEngine(settings, threads=2, execution=run, log=lines.append)
        return engine.simulate(request).patterns

    at_once = simulate()
    assert not any("precalculated" in line for line in lines)
    in_portions = simulate((2 * potential + 3.5 * pattern) / 1e9)
    assert any("precalculated" in line for line in lines)
    assert apart(in_portions, at_once.astype(float)) < 1e-5
