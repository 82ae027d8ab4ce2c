"""The plane-wave engine against patterns computed with Prismatic 2.0 (see tests/data/README.md).

Every figure is a relative L1 difference over the whole stored pattern, both patterns scaled to the
same sum.
"""

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from samples import difference

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.engines.planewave.settings import PRISMATIC_PIXEL_A, PlaneWaveSettings
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.microscope import Aperture, Detector

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("patterns of Prismatic")

DATA = Path(__file__).parents[1] / "data"
LAYERS = [1, 2, 5, 10, 20]

# With the nominal edge of the aperture; a fifth above what notes give for a prototype.
LIMITS = {
    "static_shear_33": (0.005, 0.009, 0.010, 0.013, 0.018),
    "static_shear_tilt_25_large": (0.004, 0.009, 0.019, 0.011, 0.023),
    "static_strain_tilt_18_large": (0.006, 0.012, 0.033, 0.013, 0.047),
    "static_strain_tilt_25": (0.012, 0.017, 0.024, 0.013, 0.027),
    "static_unstrained_18": (0.016, 0.021, 0.034, 0.022, 0.051),
    "static_unstrained_18_fine": (0.013, 0.013, 0.011, 0.010, 0.012),
}


@dataclass
class Reference:
    patterns: np.ndarray
    request: SimulationRequest
    settings: PlaneWaveSettings


def load(case, profile="erf"):
    with np.load(DATA / f"prismatic2_{case}.npz") as file:
        assert file["layers"].tolist() == LAYERS
        meta = json.loads(str(file["meta"]))
        kx, ky = file["kx_mrad"], file["ky_mrad"]
        patterns, edge = file["patterns"].astype(float), float(file["edge_mrad"])
    field = len(kx) * (kx[1] - kx[0]), len(ky) * (ky[1] - ky[0])
    detector = Detector(field, (len(kx), len(ky)))
    np.testing.assert_allclose(detector.kx_mrad, kx, atol=1e-6)
    np.testing.assert_allclose(detector.ky_mrad, ky, atol=1e-6)
    (xx, xy), (_, yy) = meta["F"] - np.eye(2)
    crystal = MATERIALS["MoS2"]
    assert meta["rms_A"] in (None, crystal.rms_displacement_A)
    request = SimulationRequest(
        material=crystal,
        deformation=Deformation.from_strain(xx, yy, xy),
        tilt_mrad=tuple(meta["tilt_mrad"]),
        layers=max(LAYERS),
        energy_keV=meta["energy_keV"],
        aperture=Aperture(meta["semiangle_mrad"], edge, profile),
        detector=detector,
        thermal=ThermalMotion(2 if meta["phonon_configurations"] else "none"),
    )
    np.testing.assert_allclose(request.deformation.gradient, meta["F"], atol=1e-12)
    # Finer sampling moves Prismatic's band limit, half of the Nyquist frequency, outwards, and
    # brings its potential close to the exact one.
    pixel = meta["pixel_A"]
    band_limit = "prismatic" if pixel == PRISMATIC_PIXEL_A else 1 / (4 * pixel)
    settings = PlaneWaveSettings(band_limit, meta["slices_per_layer"], incident_step_mrad=1.5)
    return Reference(patterns, request, settings)


def simulate(reference, incident_step_mrad=1.5, supercell=(8, 5), **changes):
    request = replace(reference.request, **changes)
    settings = replace(
        reference.settings, incident_step_mrad=incident_step_mrad, supercell=supercell
    )
    patterns = PlaneWaveEngine(settings, threads=2).simulate(request).patterns
    return [patterns[n - 1] for n in LAYERS if n <= request.layers]


PROFILES = ("erf", "linear")


@cache
def of_both_profiles(case):
    """Patterns for both edges of the aperture, of the same waves."""
    references = [load(case, profile) for profile in PROFILES]
    engine = PlaneWaveEngine(references[0].settings, threads=2)
    made = engine.simulate_together([one.request for one in references])
    return {
        profile: [one.patterns[n - 1] for n in LAYERS]
        for profile, one in zip(PROFILES, made, strict=True)
    }


def apart(pattern, reference, where=...):
    return difference(
        (pattern / pattern.sum(dtype=float))[where], (reference / reference.sum())[where]
    )


def dark_field(request):
    """Pixels that the undiffracted beam does not reach."""
    kx, ky = request.detector.kx_mrad, request.detector.ky_mrad
    return np.hypot(kx[None, :], ky[:, None]) > request.aperture.outer_mrad


# With the edge that Prismatic really has, for all cases.
PERMILLES = (0.0015, 0.002, 0.005, 0.007, 0.011)


@pytest.mark.parametrize("case", LIMITS)
@pytest.mark.parametrize("profile", PROFILES)
def test_patterns_agree_with_prismatic(case, profile):
    patterns, expected = of_both_profiles(case)[profile], load(case, profile).patterns
    found = [apart(*pair) for pair in zip(patterns, expected, strict=True)]
    limits = LIMITS[case] if profile == "erf" else PERMILLES
    assert (np.array(found) < limits).all(), np.round(found, 4)


@pytest.mark.parametrize(
    "case",
    ["static_shear_tilt_25_large", "static_strain_tilt_18_large", "static_unstrained_18_fine"],
)
def test_dark_field_agrees_to_a_per_cent(case):
    # In the whole pattern the bright disc hides what is wrong around it.
    reference = load(case, profile="linear")
    where = dark_field(reference.request)

    # Of at most ten layers.
    patterns = of_both_profiles(case)["linear"][:4]
    found = [apart(*pair, where) for pair in zip(patterns, reference.patterns[:4], strict=True)]

    assert max(found) < 0.011, np.round(found, 4)


def test_monolayer_is_the_same_way_up_as_prismatics():
    # A monolayer has no twofold axis: bonds that point to -y instead of +y change the sign of what
    # is odd in ky, two per cent of the dark field.
    reference = load("static_unstrained_18_fine", profile="linear")
    where = dark_field(reference.request)

    ours, theirs = simulate(reference, layers=1)[0], reference.patterns[0]
    odd = [(pattern - pattern[::-1])[where].astype(float) for pattern in (ours, theirs)]

    assert np.corrcoef(odd)[0, 1] > 0.99


@pytest.mark.parametrize("axis", [0, 1])
def test_opposite_tilt_disagrees_with_prismatic(axis):
    reference = load("static_strain_tilt_18_large")
    tilt = list(reference.request.tilt_mrad)
    tilt[axis] *= -1

    tilted_the_other_way = simulate(reference, tilt_mrad=tuple(tilt), layers=10)[3]

    assert apart(tilted_the_other_way, reference.patterns[3]) > 0.2


def test_opposite_shear_disagrees_with_prismatic():
    reference = load("static_shear_tilt_25_large", profile="linear")
    strain = reference.request.deformation.strain
    mirrored = Deformation.from_strain(strain[0, 0], strain[1, 1], -strain[0, 1])

    sheared_the_other_way = simulate(reference, deformation=mirrored, layers=1)[0]

    where = dark_field(reference.request)
    assert apart(sheared_the_other_way, reference.patterns[0], where) > 0.06


# Frozen phonons


PHONONS = "phonon_strain_tilt_13"


def test_patterns_of_a_shaking_crystal_agree_with_prismatic():
    reference = load(PHONONS)
    patterns = simulate(reference, incident_step_mrad=3.0, supercell=(6, 4))
    found = [apart(*pair) for pair in zip(patterns, reference.patterns, strict=True)]
    limits = (0.010, 0.011, 0.015, 0.022, 0.027)
    assert (np.array(found) < limits).all(), np.round(found, 4)


def test_static_atoms_do_not_agree_with_a_shaking_crystal():
    reference = load(PHONONS)
    static = simulate(reference, thermal=ThermalMotion("none"))
    found = [apart(*pair) for pair in zip(static, reference.patterns, strict=True)]
    assert (np.array(found)[2:] > (0.05, 0.05, 0.2)).all(), np.round(found, 4)


def test_opposite_tilt_disagrees_with_a_shaking_crystal():
    reference = load(PHONONS)
    x, y = reference.request.tilt_mrad
    coarse = {"incident_step_mrad": 4.0, "supercell": (3, 2), "layers": 10}
    right, wrong_x, wrong_y = (
        apart(simulate(reference, tilt_mrad=tilt, **coarse)[3], reference.patterns[3])
        for tilt in [(x, y), (-x, y), (x, -y)]
    )
    assert right < 0.05
    assert min(wrong_x, wrong_y) > 0.2
