"""The crystal in Prismatic's box, its thermal displacements, and where the probes stand."""

import math
from dataclasses import replace

import numpy as np
import pytest
from samples import MOS2, SHEARED, STRETCHED, WAVELENGTH_A, requested
from scipy.spatial import KDTree

from pacbed.engines.prismatic import PrismaticSettings
from pacbed.engines.prismatic.settings import Grid
from pacbed.engines.prismatic.specimen import box, probe_counts, probe_positions, shares, specimen
from pacbed.exceptions import RequestError
from pacbed.specimen.microscope import Detector

LAYER_A = MOS2.layer_thickness_A
SEMIANGLES_mrad = [6.35, 12.65, 18.13, 25.44, 32.94]
OBLIQUE = (0.02, -0.03, 0.05)


def deformed(vectors, strain):
    """In-plane vectors (rows) in the deformed crystal."""
    xx, yy, xy = strain
    return np.asarray(vectors) @ np.array([[1 + xx, xy], [xy, 1 + yy]])  # symmetric


def cell(strain):
    return deformed(np.diag([3.1613, 5.4755]), strain)


# Atoms


@pytest.mark.parametrize("strain", [(0.0, 0.0, 0.0), STRETCHED, OBLIQUE])
def test_box_is_as_dense_as_the_crystal(strain):
    found = specimen(requested(strain=strain, layers=2), (260.0, 240.0))
    cells = 260 * 240 / abs(np.linalg.det(cell(strain)))
    assert len(found.numbers) == pytest.approx(6 * 2 * cells, rel=0.006)
    assert (found.numbers == 16).sum() == pytest.approx(2 * (found.numbers == 42).sum(), rel=0.01)


@pytest.mark.parametrize("strain", [(0.0, 0.0, 0.0), STRETCHED, OBLIQUE])
def test_all_atoms_lie_inside_the_box(strain):
    found = specimen(requested(strain=strain, layers=2), (50.0, 40.0))
    rounding = 1.001e-3
    assert found.edges_A == pytest.approx([50, 40, 2 * LAYER_A])
    assert found.positions_A[:, 2].min() == pytest.approx(LAYER_A / 2 - 1.5875)
    assert (found.positions_A >= -rounding).all()
    assert (found.positions_A < found.edges_A).all()


@pytest.mark.parametrize("cells", [(8, 5), (7, 4)])
@pytest.mark.parametrize("strain", [(0.0, 0.0, 0.0), STRETCHED, (0.0137, -0.0271, 0.0)])
def test_box_of_whole_cells_is_periodic(strain, cells):
    edges = tuple(np.array(cells) * np.diag(cell(strain)))
    found = specimen(requested(strain=strain, layers=3), edges)
    assert len(found.numbers) == 6 * cells[0] * cells[1] * 3

    positions = found.positions_A.copy()
    positions[:, :2] %= edges
    positions[:, :2][np.isclose(positions[:, :2], edges)] = 0
    no_neighbour_below = 100
    apart, _ = KDTree(positions, boxsize=[*edges, no_neighbour_below]).query(positions, k=2)
    assert apart[:, 1].min() > 1.5


@pytest.mark.parametrize("strain", [(0.0, 0.0, 0.0), STRETCHED, SHEARED, OBLIQUE])
def test_neighbours_of_an_atom_are_those_of_the_deformed_crystal(strain):
    found = specimen(requested(strain=strain), (60.0, 60.0))
    metal = found.positions_A[found.numbers == 42][:, :2]
    tree = KDTree(metal)
    central = metal[tree.query([30, 30])[1]]
    neighbours = metal[tree.query(central, k=7)[1][1:]] - central

    along, across = [3.1613, 0], [3.1613 / 2, 5.4755 / 2]
    half = np.array([along, across, np.subtract(across, along)])
    expected = deformed(np.concatenate([half, -half]), strain)
    distances = np.linalg.norm(neighbours[:, None] - expected[None], axis=-1)
    assert sorted(distances.argmin(axis=1)) == list(range(6))
    assert distances.min(axis=1).max() < 1e-9


@pytest.mark.parametrize(
    ("layer", "metal", "chalcogen"), [(1, (0, 1 / 3), (0, 0)), (2, (0, 0), (0, 1 / 3))]
)
def test_layers_are_stacked_from_the_top_as_in_the_crystal(layer, metal, chalcogen):
    found = specimen(requested(strain=OBLIQUE, layers=3), (40.0, 40.0))
    height = (3 - layer + 0.5) * LAYER_A
    sites = [(42, metal, 0), (16, chalcogen, 1.5875), (16, chalcogen, -1.5875)]
    for number, site, above in sites:
        expected = [*(np.array(site) @ cell(OBLIQUE) + 20), height + above]
        nearest = np.linalg.norm(found.positions_A - expected, axis=1).argmin()
        assert found.positions_A[nearest] == pytest.approx(expected, abs=1e-9)
        assert found.numbers[nearest] == number


# Thermal displacements


@pytest.fixture(scope="module")
def many_atoms():
    return specimen(requested(layers=4), (100.0, 100.0))


def test_displacements_have_the_spread_of_each_element_along_every_axis(many_atoms):
    moved = many_atoms.displaced(7, 0).positions_A - many_atoms.positions_A
    for number, rms_A in [(42, 0.07535), (16, 0.08856)]:
        of_element = moved[many_atoms.numbers == number]
        assert of_element.std(axis=0) == pytest.approx(np.full(3, rms_A), rel=0.04)
        assert abs(of_element.mean(axis=0)).max() < 4 * rms_A / math.sqrt(len(of_element))
        assert abs(np.corrcoef(of_element.T) - np.eye(3)).max() < 0.06


def test_displacements_depend_on_seed_and_configuration_alone(many_atoms):
    again = specimen(requested(layers=4), (100.0, 100.0)).displaced(7, 0).positions_A
    one = many_atoms.displaced(7, 0).positions_A
    assert one.tobytes() == again.tobytes()
    for other in [(7, 1), (8, 0)]:
        another = many_atoms.displaced(*other).positions_A
        moved = [(p - many_atoms.positions_A).ravel() for p in (one, another)]
        assert abs(np.corrcoef(*moved)[0, 1]) < 0.03


# Probes


def placed(request, settings=None):
    settings = settings or PrismaticSettings()
    edges, region = box(request, settings)
    return probe_positions(request, settings, edges, region)


@pytest.mark.parametrize("strain", [(0.0, 0.0, 0.0), STRETCHED, OBLIQUE])
def test_probes_form_the_full_grid_each_in_a_cell_of_its_own(strain):
    indices = (placed(requested(strain=strain)) - 200) @ np.linalg.inv(cell(strain)) * [16, 28]
    whole = np.round(indices).astype(int)
    np.testing.assert_allclose(indices, whole, rtol=0, atol=1e-6)

    cells, relative = np.divmod(whole, [16, 28])
    assert len(whole) == len(set(map(tuple, relative))) == len(set(map(tuple, cells))) == 16 * 28

    corners = cells[:, None] + np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
    assert abs(corners @ cell(strain)).max() < 100.0011


def test_fewer_cells_than_probes_are_refused_with_both_numbers():
    # From the centre, four cells of 3.16 Å and two of 5.48 Å fit into 15 Å.
    settings = PrismaticSettings(probe_region_A=30)
    complaint = "16 × 28 probes need a cell each, but only 32 cells fit into the central 30 Å × 30"
    with pytest.raises(RequestError, match=complaint):
        placed(requested(), settings)
    # As many probes as cells are placed.
    assert placed(requested(), replace(settings, probes=(4, 8))).shape == (32, 2)


@pytest.mark.parametrize(
    ("semiangle", "layers", "fits", "too_large"),
    # λ/(π² α 0.05), where 5 % of the probe are left, and 70 mrad through the thickness.
    [(6.35, 1, 172.4, 172.5), (6.35, 20, 156.0, 156.2), (32.94, 20, 177.6, 177.8)],
)
def test_probes_keep_away_from_where_the_crystal_is_cropped(semiangle, layers, fits, too_large):
    request = requested(semiangle, layers=layers, strain=SHEARED, field=100)
    box(request, PrismaticSettings(box_A=200, probe_region_A=fits))
    with pytest.raises(RequestError, match=r"to the edges.*probe_region_A of at most 1[57]\d\.\d"):
        box(request, PrismaticSettings(box_A=200, probe_region_A=too_large))
    with pytest.raises(RequestError, match="leaves nothing to the edges"):
        box(request, PrismaticSettings(box_A=120))


def test_a_box_of_whole_cells_has_no_edge():
    # Where the lattice goes on across it, probes may stand anywhere.
    whole = (16 * 3.1613, 9 * 5.4755)
    assert box(requested(), PrismaticSettings(box_A=whole, probe_region_A=1000))[0] == whole


AUTO = PrismaticSettings(probes="auto")


@pytest.mark.parametrize("semiangle", SEMIANGLES_mrad)
def test_automatic_probes_are_as_many_as_are_needed_and_at_most_one_more(semiangle):
    needed = 2e-3 * semiangle / WAVELENGTH_A * np.array([3.1613, 5.4755])
    found = np.array(probe_counts(requested(semiangle, field=80.0), AUTO))
    assert (found > needed).all()
    assert (found <= np.floor(needed) + 2).all()


@pytest.mark.parametrize("strain", [STRETCHED, SHEARED, OBLIQUE, (0.0, 0.0, -0.15)])
@pytest.mark.parametrize("semiangle", SEMIANGLES_mrad)
def test_no_two_directions_differ_by_a_vector_of_the_automatic_grid(semiangle, strain):
    counts = probe_counts(requested(semiangle, strain, field=80.0), AUTO)
    indices = np.stack(np.meshgrid(range(-9, 10), range(-9, 10)), -1).reshape(-1, 2)
    indices = indices[(indices != 0).any(axis=1)]
    lengths = np.linalg.norm((indices * counts) @ np.linalg.inv(cell(strain)).T, axis=1)
    assert lengths.min() > 2e-3 * semiangle / WAVELENGTH_A


@pytest.mark.parametrize(("probes", "configurations"), [(448, 10), (60, 7), (5, 5), (9, 1)])
def test_shares_hold_every_probe_once_and_are_even(probes, configurations):
    found = shares(probes, configurations, requested())
    assert len(found) == configurations
    assert sorted(np.concatenate(found)) == list(range(probes))
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_shares_depend_on_the_seed_alone():
    one, longer, other = (
        np.stack(shares(60, 4, requested(seed=seed, layers=layers)))
        for seed, layers in ((1, 1), (1, 9), (2, 1))
    )
    assert np.array_equal(one, longer)
    assert not np.array_equal(one, other)


# Box


def automatic(**request):
    """Edge of the automatic box, in Å."""
    settings = PrismaticSettings(box_A="auto", probes=(4, 6), interpolation_factor=1)
    return box(requested(field=80.0, **request), settings)[0][0]


def test_automatic_box_grows_with_thickness_and_as_the_semiangle_shrinks():
    thicker = [automatic(semiangle=18.13, layers=layers) for layers in (1, 20, 40)]
    # By what electrons scattered to 70 mrad go sideways, on both sides.
    assert thicker == sorted(thicker)
    assert thicker[2] - thicker[0] == pytest.approx(2 * 39 * LAYER_A * 0.07, abs=5)
    smaller = [automatic(semiangle=semiangle) for semiangle in reversed(SEMIANGLES_mrad)]
    assert smaller == sorted(smaller)
    assert smaller[-1] > 2 * smaller[0]


@pytest.mark.parametrize("semiangle", SEMIANGLES_mrad)
@pytest.mark.parametrize("probes", ["auto", (16, 28)])
def test_automatic_box_has_a_fast_grid_and_room_for_all_probes(semiangle, probes):
    settings = PrismaticSettings(box_A="auto", probes=probes, interpolation_factor=1)
    request = requested(semiangle, OBLIQUE, field=80.0, layers=5)
    edges, region = box(request, settings)

    points = Grid(edges, settings.pixel_A, 1).points[0]
    assert edges == pytest.approx((points * 0.15, points * 0.15))
    assert 2**12 * 3**8 * 5**6 * 7**5 % points == 0  # no other prime factors

    found = probe_positions(request, settings, edges, region)
    assert len(found) == math.prod(probe_counts(request, settings))
    assert (np.abs(found - edges[0] / 2) <= region / 2 + 0.001).all()


@pytest.mark.parametrize("detector", [((80.0, 80.0), (401, 101)), ((80.0, 90.0), (101, 601))])
def test_pixel_of_an_automatic_box_is_not_larger_than_that_of_the_detector(detector):
    request = replace(requested(32.94, field=80.0), detector=Detector(*detector))
    edges, _ = box(request, PrismaticSettings(box_A="auto", probes="auto"))
    finest = min(field / pixels for field, pixels in zip(*detector, strict=True))
    assert 0.9 * finest < 1e3 * WAVELENGTH_A / edges[0] <= finest
