"""The bound: right where it is known, reached by a fit, and as computed by others."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import pytest
from scipy.stats import lognorm

from pacbed.engines import SimulationRequest, ThermalMotion
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.examples.augment import average_over_pixels, record, resample
from pacbed.examples.labels import PARAMETERS
from pacbed.exceptions import PacbedError, RequestError
from pacbed.precision import bound as bounds
from pacbed.precision import bound_table
from pacbed.precision.steps import State, Steps, differences
from pacbed.scattering.image import Camera
from pacbed.specimen.crystal import MATERIALS
from pacbed.specimen.deformation import Deformation, DrawRanges
from pacbed.specimen.microscope import Aperture, Detector
from pacbed.study.draws import draw
from pacbed.study.model import Configuration

# What they share takes longer than they do: all in one process.
pytestmark = pytest.mark.xdist_group("bounds")

PAPER = replace(Configuration().augmentation(), noise="poisson")
SETTINGS = replace(PAPER, pixels=64, translation_px=2.5)
RANGES = DrawRanges(stretch=(0.95, 1.05), angle_deg=(0, 180), tilt_mrad=(-5, 5))
PRIOR = bounds.prior_covariance(RANGES, SETTINGS)


def simulate(
    states,
    semiangle,
    layers,
    field=110.0,
    pixels=128,
    edge=0.0,
    motion="coherent",
    settings=None,
):
    """Patterns of named states, of their discs alone; those of one crystal together."""
    detector = Detector((field, field), (pixels, pixels))
    crystals = {}
    for name, state in states.items():
        crystals.setdefault(state.deformation, []).append(name)
    patterns = {}
    for deformation, names in crystals.items():
        requests = [
            SimulationRequest(
                MATERIALS["MoS2"],
                deformation,
                states[name].tilt_mrad,
                layers,
                80.0,
                Aperture(semiangle, edge),
                detector,
                ThermalMotion(motion),
            )
            for name in names
        ]
        made = PlaneWaveEngine(settings).simulate_together(requests)
        patterns.update({n: r.patterns for n, r in zip(names, made, strict=True)})
    return patterns


def table(
    patterns,
    layers,
    semiangle=6.35,
    pixel=110 / 128,
    settings=SETTINGS,
    ranges=RANGES,
    steps=bounds.STEPS,
    **options,
):
    """Bounds of some thicknesses, from patterns of all."""
    chosen = {name: stack[[n - 1 for n in layers]] for name, stack in patterns.items()}
    covariance = bounds.prior_covariance(ranges, settings)
    sample = bound_table.Sample.of_patterns(semiangle, chosen, (pixel, pixel), settings, steps)
    return bound_table.bound_table([sample], layers, settings, covariance, 80.0, **options)


@pytest.fixture(scope="module")
def simulated():
    return simulate(differences(Deformation(), (0.0, 0.0)), 6.35, 3)


@pytest.fixture(scope="module")
def computed(simulated):
    return table(simulated, [1, 3])


def spots(width_mrad, pixel=110 / 128, pixels=128):
    """Patterns of one Gaussian spot, which neither strain nor tilt moves."""
    axis = (np.arange(pixels) - pixels // 2) * pixel
    one = np.exp(-(axis[None, :] ** 2 + axis[:, None] ** 2) / (2 * width_mrad**2))
    pattern = (one / one.sum()).astype(np.float32)
    return dict.fromkeys(differences(Deformation(), (0.0, 0.0)), pattern)


# States


def test_there_are_two_states_for_each_strain_and_tilt_and_one_in_their_middle():
    base, tilt = Deformation(1.03, 0.98, 30), (2.0, -3.0)
    states = differences(base, tilt, Steps(1e-3, 0.3))
    assert len(states) == 11
    assert states["centre"] == State(base, tilt)
    index = {"strain_xx": (0, 0), "strain_yy": (1, 1), "strain_xy": (0, 1)}
    for parameter, place in index.items():
        for word, sign in (("minus", -1), ("plus", 1)):
            state = states[f"{parameter}_{word}"]
            expected = base.strain.copy()
            expected[place] += sign * 1e-3
            expected[place[::-1]] = expected[place]
            np.testing.assert_allclose(state.deformation.strain, expected, atol=1e-12)
            assert state.tilt_mrad == tilt


def test_tilted_states_are_of_the_same_crystal_so_that_they_are_simulated_together():
    base = Deformation(1.03, 0.98, 30)
    states = differences(base, (2.0, -3.0), Steps(1e-3, 0.3))
    assert states["tilt_x_mrad_plus"] == State(base, (2.3, -3.0), discs_only=True)
    assert states["tilt_y_mrad_minus"] == State(base, (2.0, -3.3), discs_only=True)
    assert len({state.deformation for state in states.values()}) == 7


@pytest.mark.parametrize("step", [0, -1e-3, math.nan])
def test_a_step_must_be_positive(step):
    with pytest.raises(RequestError, match="strain is"):
        Steps(strain=step)


# Derivatives and information


def test_a_missing_state_is_named():
    patterns = spots(5)
    del patterns["strain_xy_plus"]
    with pytest.raises(PacbedError, match="strain_xy_plus"):
        bounds.linearise(patterns, (110 / 128,) * 2, SETTINGS)


def test_the_dose_scales_the_image_of_an_example():
    patterns, pixel = spots(5), (110 / 128,) * 2
    seen = bounds.linearise(patterns, pixel, SETTINGS)
    averaged = average_over_pixels(patterns["centre"], pixel, SETTINGS.pixel_mrad)
    image = resample(averaged, pixel, Camera(64, 100))
    np.testing.assert_array_equal(seen.slopes[bounds.UNKNOWN.index("log_dose")], image)


def test_a_gaussian_spot_can_be_located_to_its_width_over_the_root_of_the_electrons():
    width = 8.0
    seen = bounds.linearise(spots(width), (110 / 128,) * 2, SETTINGS)
    sigma = bounds.standard_deviations(bounds.fisher_information(seen, 1e4))
    expected = width / SETTINGS.pixel_mrad / 100
    for shift in ("shift_x_px", "shift_y_px"):
        assert sigma[bounds.UNKNOWN.index(shift)] == pytest.approx(expected, rel=0.02)


def test_the_number_of_electrons_is_known_to_its_root_and_what_does_not_show_by_its_range():
    seen = bounds.linearise(spots(8.0), (110 / 128,) * 2, SETTINGS)
    information = bounds.fisher_information(seen, 1e4)
    sigma = bounds.standard_deviations(information)
    assert sigma[bounds.UNKNOWN.index("log_dose")] == pytest.approx(0.01, rel=0.02)
    known = bounds.standard_deviations_with_prior(information, PRIOR)
    for n, parameter in enumerate(bounds.UNKNOWN[:6]):
        if parameter != "rotation_deg":
            assert sigma[n] == math.inf
            assert known[n] == pytest.approx(math.sqrt(PRIOR[n, n]), rel=1e-6)


def test_pixels_that_stay_dark_tell_nothing_and_an_unknown_noise_is_refused():
    nothing = bounds.Linearised(np.zeros((10, 4, 4)), np.zeros((10, 4, 4)))
    for noise in ("poisson", "lognormal"):
        assert not bounds.fisher_information(nothing, 1e6, noise).any()
    with pytest.raises(RequestError, match="'gaussian'"):
        bounds.fisher_information(nothing, 1e6, "gaussian")


def test_standard_deviations_are_roots_of_the_diagonal_of_the_inverse():
    random = np.random.default_rng(1)
    root = random.normal(size=(4, 9)) * np.array([1, 1e3, 1e-3, 30])[:, None]
    information = root @ root.T
    expected = np.sqrt(np.diag(np.linalg.inv(information)))
    np.testing.assert_allclose(bounds.standard_deviations(information), expected, rtol=1e-8)


def test_two_parameters_that_do_the_same_cannot_be_told_apart_but_a_third_can():
    slopes = np.array([[1.0, 2.0, 0.5, 0.0], [2.0, 4.0, 1.0, 0.0], [0.0, 0.0, 1.0, 2.0]])
    sigma = bounds.standard_deviations(slopes @ slopes.T)
    assert sigma[0] == sigma[1] == math.inf
    # What the third has in common with the others is lost.
    one, two = slopes[0], slopes[2]
    left = two @ two - (one @ two) ** 2 / (one @ one)
    assert sigma[2] == pytest.approx(1 / math.sqrt(left))


def test_what_is_known_before_adds_to_the_information():
    random = np.random.default_rng(2)
    root = random.normal(size=(10, 30)) / np.sqrt(np.diag(PRIOR))[:, None]
    information = root @ root.T
    expected = np.sqrt(np.diag(np.linalg.inv(information + np.linalg.inv(PRIOR))))
    found = bounds.standard_deviations_with_prior(information, PRIOR)
    np.testing.assert_allclose(found, expected, rtol=1e-8)


def test_what_does_not_vary_is_known():
    still = bounds.prior_covariance(replace(RANGES, tilt_mrad=(0, 0)), SETTINGS)
    sigma = bounds.standard_deviations_with_prior(np.eye(10), still)
    assert sigma[4] == sigma[5] == 0
    assert (np.delete(sigma, [4, 5]) > 0).all()


@pytest.mark.parametrize("angles", [(0, 180), (0, 60), (20, 20)])
def test_the_prior_is_the_spread_of_draws_and_transformations(angles):
    ranges = replace(RANGES, angle_deg=angles)
    draws = [draw(1, 6.35, n, ranges) for n in range(4000)]
    strains = np.array([d.deformation.strain[[0, 1, 0], [0, 1, 1]] for d in draws])
    found = bounds.prior_covariance(ranges, SETTINGS)
    scale = 0.1**2 / 24
    np.testing.assert_allclose(found[:3, :3], np.cov(strains.T), atol=0.06 * scale)
    tilts = np.array([d.tilt_mrad for d in draws])
    np.testing.assert_allclose(np.diag(found)[4:6], tilts.var(axis=0), rtol=0.06)
    drawn = SETTINGS.transformations(np.random.default_rng(3).random((4000, 6)))
    rotation, field, x, y, electrons, _ = drawn.T
    spread = [rotation.var(), x.var(), y.var(), (field / 100).var(), np.log(electrons).var()]
    np.testing.assert_allclose(np.diag(found)[[3, 6, 7, 8, 9]], spread, rtol=0.06)


@pytest.mark.parametrize("electrons", [0.02, 0.5, 20.0])
def test_the_information_of_lognormal_noise_is_the_variance_of_its_score(electrons):
    def log_density(signal, mean):
        variance = math.log1p(1 / mean)
        return lognorm.logpdf(signal, math.sqrt(variance), scale=mean * math.exp(-variance / 2))

    signal = record(np.full(200_000, electrons), "lognormal", np.random.default_rng(4)).astype(
        float
    )
    step = 1e-4 * electrons
    rise = log_density(signal, electrons + step) - log_density(signal, electrons - step)
    found = bounds.lognormal_information(np.array([electrons]))[0]
    assert found == pytest.approx((rise / (2 * step)).var(), rel=0.02)


def test_lognormal_noise_tells_more_than_counts_where_there_are_few_electrons():
    many, few = np.array([1e5]), np.array([1e-3])
    counted, told = bounds.poisson_information, bounds.lognormal_information
    assert told(many) == pytest.approx(counted(many), rel=1e-4)
    assert told(few)[0] > 100 * counted(few)[0]


# The table


def test_a_table_has_a_row_for_every_thickness_parameter_and_dose(computed):
    assert len(computed) == 2 * len(PARAMETERS) * 11
    assert computed["electrons"].min() == pytest.approx(1e6)
    assert computed["electrons"].max() == pytest.approx(5e7)
    assert set(computed["state"]) == {"undeformed"}
    assert dict(zip(computed["parameter"], computed["unit"], strict=True))["tilt_x_mrad"] == "mrad"


def test_bounds_are_finite_and_fall_with_the_root_of_the_electrons(computed):
    chosen = computed[(computed["layers"] == 3) & (computed["parameter"] == "strain_xx")]
    product = chosen["sigma"] * np.sqrt(chosen["electrons"])
    np.testing.assert_allclose(product, product.iloc[0], rtol=1e-12)
    assert np.isfinite(computed[list(bound_table.COLUMNS)]).all().all()


def test_nothing_that_is_known_besides_makes_reading_harder(computed):
    for known in ("sigma_prior", "sigma_known_scale"):
        assert (computed[known] <= computed["sigma"] * (1 + 1e-6)).all()


def test_the_bound_of_the_data_is_for_their_noise(simulated, computed):
    np.testing.assert_array_equal(computed["sigma_data"], computed["sigma_prior"])
    noisy = table(simulated, [1, 3], settings=replace(SETTINGS, noise="lognormal"))
    np.testing.assert_allclose(noisy["sigma_prior"], computed["sigma_prior"])
    assert (noisy["sigma_data"] <= noisy["sigma_prior"] * (1 + 1e-6)).all()
    # What lognormal noise tells, and the ranges too.
    assert (noisy["sigma_data"] <= noisy["sigma_lognormal"] * (1 + 1e-6)).all()
    thin = noisy[(noisy["layers"] == 1) & (noisy["parameter"] == "strain_xx")]
    assert (thin["sigma_data"] < thin["sigma_prior"]).all()
    assert thin["sigma_data"].iloc[0] < 0.5 * thin["sigma_prior"].iloc[0]


def test_what_does_not_vary_has_no_bound_with_known_ranges_but_one_of_the_pattern(simulated):
    still = replace(SETTINGS, rotation_deg=(0, 0))
    # At an angle of 180° the sine, and with it the shear, is zero but for rounding.
    ranges = DrawRanges(stretch=(0.95, 1.05), angle_deg=(180, 180), tilt_mrad=(-5, 5))
    found = table(simulated, [3], settings=still, ranges=ranges).groupby("parameter")
    varies = found[["sigma_prior", "sigma_data"]].count().any(axis=1)
    assert set(varies.index[~varies]) == {"strain_xy", "rotation_deg"}
    assert (found["sigma"].count() == 11).all()
    assert bound_table.mean_bounds(table(simulated, [3], settings=still))["prior_mae"].count() == 5


def test_the_tilt_of_a_monolayer_is_better_guessed_than_read(computed):
    chosen = computed[(computed["layers"] == 1) & (computed["electrons"] < 1.1e6)]
    row = chosen.set_index("parameter").loc["tilt_x_mrad"]
    assert row["sigma"] > 5
    assert row["sigma_prior"] == pytest.approx(10 / math.sqrt(12), rel=0.1)


def test_scale_is_what_the_normal_strains_are_mistaken_for_and_shear_is_not(computed):
    rows = computed[(computed["layers"] == 3) & (computed["electrons"] < 1.1e6)]
    rows = rows.set_index("parameter")
    gain = rows["sigma"] / rows["sigma_known_scale"]
    assert gain["strain_xx"] > 1.1
    assert gain["strain_xy"] == pytest.approx(1, abs=0.01)


def test_steps_of_half_and_twice_the_width_give_the_same_bound():
    found = []
    for factor in (0.5, 1, 2):
        steps = Steps(*(factor * value for value in vars(bounds.STEPS).values()))
        states = differences(Deformation(), (0.0, 0.0), steps)
        one = table(simulate(states, 6.35, 3), [3], points=2, steps=steps)
        found.append(one["sigma"].to_numpy())
    # Nearest for rotation, which is a difference of the resampling.
    np.testing.assert_allclose(found[0], found[1], rtol=0.1)
    np.testing.assert_allclose(found[2], found[1], rtol=0.1)


# What follows from the table


def rows(sigma_at_1e6, state="undeformed", layers=5, parameter="strain_xx", column=1.0):
    doses = np.geomspace(1e6, 1e8, 5)
    sigma = sigma_at_1e6 / np.sqrt(doses / 1e6)
    return pd.DataFrame(
        {
            "semiangle_mrad": 6.35,
            "layers": layers,
            "state": state,
            "parameter": parameter,
            "unit": "1",
            "electrons": doses,
            "sigma": sigma,
            "sigma_prior": column * sigma,
            "sigma_data": sigma / 2,
            "sigma_lognormal": sigma,
            "sigma_known_scale": sigma,
            "probe_nm": bound_table.probe_nm(6.35, 80),
        }
    )


@pytest.mark.parametrize("electrons", [1e5, 1e6, 3e6, 1e8, 1e10])
def test_a_bound_is_looked_up_between_and_beyond_its_doses(electrons):
    found = bound_table.bound_of(rows(1e-3), electrons)
    assert found == pytest.approx(math.sqrt(2 / math.pi) * 1e-3 * math.sqrt(1e6 / electrons))


def test_a_bound_of_examples_is_the_mean_over_their_doses_and_the_deformed_states():
    both = pd.concat([rows(1e-3, state="00012"), rows(3e-3, state="00015"), rows(8e-3)])
    found = bound_table.bound_of(both, np.array([1e6, 4e6]))
    assert found == pytest.approx(math.sqrt(2 / math.pi) * 2e-3 * 0.75)


def test_a_bound_of_another_column_and_of_what_cannot_be_read():
    found = bound_table.bound_of(rows(1e-3, column=0.5), 1e6, "sigma_prior")
    assert found == pytest.approx(math.sqrt(2 / math.pi) * 5e-4)
    assert bound_table.bound_of(rows(math.inf), 1e6) == math.inf
    assert math.isnan(bound_table.bound_of(rows(1e-3, column=math.nan), 1e6, "sigma_prior"))


def test_means_are_tabulated_for_every_column_and_strains_in_percent_too():
    tilt = rows(4.0, parameter="tilt_x_mrad", column=0.5).assign(unit="mrad")
    found = bound_table.mean_bounds(pd.concat([rows(1e-3, column=0.5), tilt, rows(2e-3, layers=1)]))
    assert len(found) == 3
    by = found.set_index(["layers", "parameter"])
    strain, thin = by.loc[5, "strain_xx"], by.loc[1, "strain_xx"]
    # The mean over log-uniform doses is that of an integral.
    mean_of_root = (1 - math.sqrt(1e6 / 1e8)) * 2 / math.log(1e8 / 1e6)
    expected = math.sqrt(2 / math.pi) * 1e-3 * mean_of_root
    assert strain["mae"] == pytest.approx(expected, rel=1e-3)
    assert thin["mae"] == pytest.approx(2 * strain["mae"])
    for name in ("prior_mae", "data_mae"):
        assert strain[name] == pytest.approx(strain["mae"] / 2)
    for name in ("lognormal_mae", "known_scale_mae"):
        assert strain[name] == pytest.approx(strain["mae"])
    assert strain["data_mae_percent"] == pytest.approx(100 * strain["data_mae"])
    assert math.isnan(by.loc[5, "tilt_x_mrad"]["mae_percent"])
    assert strain["probe_nm"] == bound_table.probe_nm(6.35, 80)


def test_the_worst_strain_says_how_many_electrons_are_needed():
    both = pd.concat([rows(1e-3), rows(2e-3, parameter="strain_xy")])
    found = bound_table.required_doses(both, 1e-3).iloc[0]
    assert found["parameter"] == "strain_xy"
    assert found["electrons"] == pytest.approx(4e6)
    assert not found["beyond"]
    assert bound_table.required_doses(both, 1e-5).iloc[0]["beyond"]
    assert bound_table.required_doses(both, 1e-1).iloc[0]["beyond"]


def test_a_probe_at_80_kv_and_6_mrad_is_a_third_of_a_nanometre():
    assert bound_table.probe_nm(6.35, 80) == pytest.approx(0.514 * 0.00417572 / 6.35e-3, rel=1e-5)


# Files


def test_what_is_no_table_of_bounds_is_refused(tmp_path):
    rows(1e-3).drop(columns="sigma_prior").to_parquet(tmp_path / "other.parquet")
    with pytest.raises(PacbedError, match="has no sigma_prior"):
        bound_table.read_bounds(tmp_path / "other.parquet")
    rows(1e-3).head(0).to_parquet(tmp_path / "empty.parquet")
    with pytest.raises(PacbedError, match="holds no bounds"):
        bound_table.read_bounds(tmp_path / "empty.parquet")


# Against others


@pytest.mark.parametrize(
    ("semiangle", "pixel", "before"),
    [
        (6.35, 0.21, {5: 0.0042, 10: 0.0036, 20: 0.0049}),
        # In pixels of 0.21 mrad, 10 layers are 26 % above.
        (18.13, 0.105, {5: 0.022, 10: 0.013}),
    ],
)
def test_bounds_agree_with_an_independent_computation(semiangle, pixel, before):
    # MAE of strain_xx in %, 256 pixels over 100 mrad, 1e6 to 5e7 electrons: from another plane-wave
    # program, before this one was written (docs/bound.md).
    states = differences(Deformation(), (0.0, 0.0))
    pixels = 2 * math.ceil(51.25 / pixel)
    # More waves and a larger supercell change these bounds by 0.2 %.
    coarse = PlaneWaveSettings(supercell=(3, 2), diffuse_waves=16)
    patterns = simulate(
        states,
        semiangle,
        max(before),
        field=pixels * pixel,
        pixels=pixels,
        motion="full",
        settings=coarse,
    )
    found = table(patterns, list(before), semiangle, pixel, PAPER, points=2)
    means = bound_table.mean_bounds(found[found["parameter"] == "strain_xx"])
    for layers, percent in before.items():
        [mae] = means.loc[means["layers"] == layers, "mae"]
        assert 100 * mae == pytest.approx(percent, rel=0.25), f"{layers} layers"


# A fit that reaches the bound

BACKGROUND = 2e-7
"""Of the electrons, in every pixel of the pattern: nowhere is it quite dark."""


EDGE = 1.5
"""Width of the edge of the aperture in mrad, with which patterns are smooth functions of strain."""


class Emulator:
    """Patterns near an undeformed crystal, to second order in strain and tilt."""

    UNITS = np.array([1e-3, 1e-3, 1e-3, 0.3, 0.3])

    def __init__(self, semiangle, layers):
        units, pairs = np.eye(5), list(combinations(range(5), 2))
        steps = {"middle": np.zeros(5)}
        steps |= {f"+{n}": units[n] for n in range(5)} | {f"-{n}": -units[n] for n in range(5)}
        steps |= {f"+{m}+{n}": units[m] + units[n] for m, n in pairs}
        states = {key: state(self.UNITS * step) for key, step in steps.items()}
        made = simulate(states, semiangle, layers, edge=EDGE)
        at = {key: averaged(stack[layers - 1]) for key, stack in made.items()}
        self.middle = at["middle"]
        self.first = np.array([(at[f"+{n}"] - at[f"-{n}"]) / 2 for n in range(5)])
        self.second = np.empty((5, 5, *self.middle.shape))
        for n in range(5):
            self.second[n, n] = at[f"+{n}"] + at[f"-{n}"] - 2 * self.middle
        for m, n in pairs:
            straight = self.middle + self.first[m] + self.first[n]
            bent = (self.second[m, m] + self.second[n, n]) / 2
            self.second[m, n] = self.second[n, m] = at[f"+{m}+{n}"] - straight - bent

    def around(self, strain_and_tilt):
        """Return the averaged pattern and its derivatives with respect to strain and tilt."""
        u = strain_and_tilt / self.UNITS
        curved = np.tensordot(u, self.second, 1)
        pattern = self.middle + np.tensordot(u, self.first + curved / 2, 1)
        return pattern, (self.first + curved) / self.UNITS[:, None, None]


def state(strain_and_tilt):
    xx, yy, xy, x, y = strain_and_tilt
    return State(Deformation.from_strain(xx, yy, xy), (x, y))


def averaged(pattern):
    return average_over_pixels(pattern + np.float32(BACKGROUND), (110 / 128,) * 2, 100 / 64)


def seen(pattern, rotation=0.0, x=0.0, y=0.0, scale=0.0):
    camera = Camera(64, 100 * (1 + scale), rotation, (x, y))
    return resample(pattern, (110 / 128,) * 2, camera).astype(float)


def model(emulator, unknown):
    """Return the expected electrons of an example and their derivatives."""
    strain_and_tilt, place = unknown[[0, 1, 2, 4, 5]], unknown[[3, 6, 7, 8]]
    dose = math.exp(unknown[9])
    pattern, slopes = emulator.around(strain_and_tilt)
    image = seen(pattern, *place)
    steps = np.diag([0.1, 0.25, 0.25, 2e-3])
    moved = [
        (seen(pattern, *(place + step)) - seen(pattern, *(place - step))) / (2 * step.sum())
        for step in steps
    ]
    strains = [seen(slope, *place) for slope in slopes]
    ordered = [*strains[:3], moved[0], *strains[3:], *moved[1:], image]
    return dose * image, dose * np.array(ordered)


def fit(emulator, counts, start):
    """Return the most likely parameters, by Fisher scoring."""
    unknown = start.copy()
    for _ in range(4):
        expected, slopes = model(emulator, unknown)
        flat = slopes.reshape(10, -1)
        weighted = flat / expected.ravel()
        score = weighted @ (counts - expected).ravel()
        unknown += np.linalg.solve(weighted @ flat.T, score)
    return unknown


def test_a_maximum_likelihood_fit_of_counts_reaches_the_bound():
    electrons, layers = 1e7, 4
    # No state that the emulator has seen.
    truth = np.array([3e-4, -4e-4, 2e-4, 0, 0.17, -0.11, 0, 0, 0, math.log(electrons)])
    emulator = Emulator(6.35, layers)
    there = state(truth[[0, 1, 2, 4, 5]])
    states = differences(there.deformation, there.tilt_mrad)
    made = simulate(states, 6.35, layers, edge=EDGE)
    lit = {name: stack[layers - 1] + np.float32(BACKGROUND) for name, stack in made.items()}
    near = bounds.linearise(lit, (110 / 128,) * 2, SETTINGS)
    bound = bounds.standard_deviations(bounds.fisher_information(near, electrons))

    expected = electrons * seen(averaged(made["centre"][layers - 1]), *truth[[3, 6, 7, 8]])
    random = np.random.default_rng(5)
    start = truth + 3 * bound * random.uniform(-1, 1, 10)
    fits = np.array([fit(emulator, random.poisson(expected), start) for _ in range(300)])
    error = np.sqrt(np.square(fits - truth).mean(axis=0))
    np.testing.assert_allclose(error[:6], bound[:6], rtol=0.1)
