"""Measured patterns: what is mended, what is refused, and where the central disc is."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from pacbed.exceptions import PacbedError
from pacbed.reading.pattern_files import read_file, read_mask
from pacbed.reading.patterns import Pattern, clean, filled, noise_per_count
from pacbed.reading.window import centred, find_centres, find_radius_px, window

RADIUS, SPACING, PIXEL = 9.0, 22.0, 0.7


def discs(shape=(128, 128), centre=(66.0, 61.0), electrons=2000.0, seed=0, gain=1.0):
    """A central disc, six around it and six more, on a smooth background."""
    y, x = np.indices(shape)
    expected = np.full(shape, 5.0)
    rings = [(0.0, 1.0, 1)] + [(SPACING * s, b, 6) for s, b in ((1, 0.3), (3**0.5, 0.1))]
    for ring, (radius, bright, count) in enumerate(rings):
        for n in range(count):
            angle = np.radians(60 * n + 30 * (ring == 2) + 7)
            at = centre[0] + radius * np.cos(angle), centre[1] + radius * np.sin(angle)
            edge = np.clip(RADIUS + 0.5 - np.hypot(x - at[0], y - at[1]), 0, 1)
            expected += bright * electrons * edge
    return gain * np.random.default_rng(seed).poisson(expected).astype(float)


def pattern(image, name="a.npy"):
    return Pattern(name, image, np.ones(image.shape, bool))


HIDDEN = replace(pattern(discs()), mask=np.zeros((128, 128), bool))


def write(path, values):
    np.save(path, values)
    return path


def test_one_pattern_and_a_stack(tmp_path):
    one = read_file(write(tmp_path / "a.npy", discs().astype(np.uint16)))
    assert [p.name for p in one] == [str(tmp_path / "a.npy")]
    assert one[0].image.dtype == float
    path = write(tmp_path / "b.npy", np.stack([discs(), discs(seed=1), discs(seed=2)]))
    assert [p.name for p in read_file(path)] == [f"{path}[{n}]" for n in range(3)]
    [last] = read_file(path, [2])
    assert np.array_equal(last.image, discs(seed=2))
    with pytest.raises(PacbedError, match=r"patterns 0 to 2, not 3"):
        read_file(path, [3])


def test_an_archive_of_one_array(tmp_path):
    np.savez(tmp_path / "a.npz", pattern=discs())
    assert len(read_file(tmp_path / "a.npz")) == 1
    np.savez(tmp_path / "b.npz", one=discs(), other=discs())
    with pytest.raises(PacbedError, match=r"2 arrays \(one, other\)"):
        read_file(tmp_path / "b.npz")


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_pages_of_a_tiff_are_patterns(tmp_path, kind):
    images = [discs(seed=seed).astype(kind) for seed in range(2)]
    first, second = map(Image.fromarray, images)
    first.save(tmp_path / "a.tif", save_all=True, append_images=[second])
    found = read_file(tmp_path / "a.tif")
    for one, image in zip(found, images, strict=True):
        assert np.array_equal(one.image, image)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (discs() * 1j, "complex numbers"),
        (np.full((64, 64), "a"), "a real number for each pixel"),
        (np.ones((2, 3, 64, 64)), "has the shape"),
        (np.ones(64), "has the shape"),
        (np.ones((8, 64)), "8 × 64 pixels: at least 24"),
        (np.ones((0, 64, 64)), "has 0 patterns"),
    ],
)
def test_what_is_no_pattern_is_refused(tmp_path, values, message):
    with pytest.raises(PacbedError, match=message):
        read_file(write(tmp_path / "a.npy", values))


def test_pickled_objects_are_never_loaded(tmp_path):
    class Bomb:
        def __reduce__(self):
            return warnings.warn, ("loaded",)

    np.save(tmp_path / "a.npy", np.array([Bomb()]), allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=np.array([Bomb()]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in ("a.npy", "a.npz"):
            with pytest.raises(PacbedError, match="holds pickled objects"):
                read_file(tmp_path / name)


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.tif", "a.zarr.zip"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"no such file ever was")
    with pytest.raises(PacbedError, match=name):
        read_file(tmp_path / name)
    with pytest.raises(PacbedError, match="does not exist"):
        read_file(tmp_path / f"no{name}")


def test_a_truncated_array_and_another_format_are_named(tmp_path):
    path = write(tmp_path / "a.npy", discs())
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(PacbedError, match=r"cannot read .*a\.npy"):
        read_file(path)
    with pytest.raises(PacbedError, match=r"patterns come as \.npy"):
        read_file(tmp_path / "a.dm4")


def test_a_good_pattern_stays_as_it_is():
    cleaned = clean(pattern(discs()))
    assert cleaned.notes == ()
    assert cleaned.mask.all()
    assert np.array_equal(cleaned.image, discs())


def test_few_electrons_are_no_defects():
    image = np.random.default_rng(0).poisson(0.02 + discs(electrons=2.0) / 50)
    assert clean(pattern(image.astype(float))).mask.all()


def test_defects_are_masked_and_counted():
    image = discs()
    image[10, 20] = np.nan
    image[30, 40] = np.inf
    image[30, 50] = -1e200
    image[50, 100] = 5e4  # a hot pixel
    image[100, 30:32] = 3e4  # two of them
    image[62, 66] = 30.0  # a weak one
    image[58:60, 64:67] = 0  # six dead ones
    cleaned = clean(pattern(image))
    assert cleaned.notes == (
        "3 pixels are not finite and were masked",
        "4 pixels differ from all their neighbours and were masked",
        "6 pixels are zero in a bright place and were masked",
    )
    assert (~cleaned.mask).sum() == 13
    assert np.isfinite(cleaned.image).all()


def test_saturated_pixels_are_masked():
    cleaned = clean(pattern(np.minimum(discs(), 2000)))
    assert 80 < (~cleaned.mask).sum() < 200
    assert "are saturated" in cleaned.notes[0]


def test_a_beam_stop_is_masked():
    image = discs()
    image[55:66, :60] = 0
    cleaned = clean(pattern(image))
    assert not cleaned.mask[55:66, :60].any()
    assert cleaned.mask.sum() >= image.size - 11 * 60 - 20


@pytest.mark.parametrize("part", [np.s_[20:, 12:], np.s_[:-20], np.s_[:, :-9]])
def test_rows_and_columns_of_zeros_at_the_edges_are_masked(part):
    shown = np.zeros((128, 128), bool)
    shown[part] = True
    found = clean(pattern(discs() * shown))
    assert np.array_equal(found.mask, shown)
    [note] = found.notes
    assert note.endswith("pixels are in rows and columns of zeros at the edges and were masked")


def test_an_image_of_two_values_is_saturated():
    with pytest.raises(PacbedError, match="only 3% of the pixels can be used"):
        clean(pattern((discs() > 1).astype(float)))


def test_an_image_may_have_wide_margins():
    assert clean(pattern(np.pad(discs(), 200))).mask.sum() == 128**2


def test_a_background_without_electrons_is_no_beam_stop():
    image = np.where(discs() < 20, 0, discs())
    assert clean(pattern(image)).mask.all()


def test_negative_pixels_count_and_are_said():
    cleaned = clean(pattern(discs() - 5))
    assert cleaned.mask.all()
    assert "pixels are negative" in cleaned.notes[0]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((64, 64)), "is empty"),
        (np.full((64, 64), np.nan), "is empty"),
        (-discs(), "is empty"),
        (np.full((64, 64), 7.0), "all pixels are 7"),
    ],
)
def test_an_image_without_a_pattern_is_refused(image, message):
    with pytest.raises(PacbedError, match=message):
        clean(pattern(image))


def test_a_mask_says_which_pixels_count(tmp_path):
    counted = np.ones((128, 128))
    counted[:50] = 0
    mask = read_mask(write(tmp_path / "mask.npy", counted))
    assert np.array_equal(clean(pattern(discs()), mask).mask, counted > 0)
    with pytest.raises(PacbedError, match="128 × 128 pixels, the mask 64 × 128"):
        clean(pattern(discs()), mask[:64])
    with pytest.raises(PacbedError, match="is no mask"):
        read_mask(write(tmp_path / "none.npy", np.zeros((128, 128))))


def test_a_mirrored_image_is_turned_round():
    cleaned = clean(pattern(discs()[:, ::-1]), mirrored=True)
    assert np.array_equal(cleaned.image, discs())


@pytest.mark.parametrize("gain", [0.01, 1.0, 300.0])
def test_the_gain_shows_in_the_noise(gain):
    image = discs(gain=gain)
    assert noise_per_count(image, image > -1) == pytest.approx(gain, rel=0.4)


@pytest.mark.parametrize("centre", [(64, 64), (34, 80), (92, 40)])
def test_the_central_disc_is_found_far_from_the_middle(centre):
    found = find_centres(pattern(discs(centre=centre)), RADIUS, SPACING)
    assert np.hypot(*(found[0] - centre)) < 1


@pytest.mark.parametrize("centre", [(66.0, 61.0), (50.0, 75.0)])
def test_the_central_disc_is_found_behind_a_beam_stop(centre):
    image = discs(centre=centre)
    y, x = np.indices(image.shape)
    image[np.hypot(x - centre[0], y - centre[1]) < 13] = 0
    likeliest = find_centres(clean(pattern(image)), RADIUS, SPACING)[0]
    assert likeliest == pytest.approx(centre, abs=1)


@pytest.mark.parametrize("finer", [1, 4, 8])
def test_the_radius_of_the_discs_is_found(finer):
    image = np.kron(discs(), np.ones((finer, finer)))
    assert find_radius_px(pattern(image)) == pytest.approx(finer * RADIUS, rel=0.03)


def test_noise_has_no_disc():
    noise = np.random.default_rng(1).poisson(20, (128, 128)).astype(float)
    with pytest.raises(PacbedError, match="no disc with a radius of 9 pixels is seen"):
        find_centres(pattern(noise), RADIUS, SPACING)


def cut(one, pixel=PIXEL, reach=30.0, centre=None):
    return window(one, pixel, RADIUS * PIXEL, SPACING * PIXEL, reach, centre)


def test_a_window_shows_what_is_known():
    one = cut(pattern(discs(centre=(50.0, 70.0))))
    size = 2 * 43 + 1
    assert one.image.shape == (size, size)
    assert one.in_pattern(one.centres[0]) == pytest.approx((50, 70), abs=1)
    corners = one.mask[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert not corners.any()
    assert one.mask.mean() > 0.7


def test_a_wrong_scale_is_said():
    assert cut(pattern(discs())).pattern.notes == ()
    [note] = cut(pattern(discs()), pixel=1.4 * PIXEL).pattern.notes
    assert "pixels, not 6.43: check" in note


def test_many_pixels_are_put_together():
    image = np.kron(discs(), np.ones((6, 6)))
    fine = pattern(image)
    one = window(fine, PIXEL / 6, RADIUS * PIXEL, SPACING * PIXEL, 60.0, (396 + 2.5, 366 + 2.5))
    assert one.bins == 2
    assert max(one.image.shape) <= 512
    assert one.pixel_mrad == pytest.approx(PIXEL / 3)
    assert one.in_pattern(one.centres[0]) == pytest.approx((398.5, 368.5))
    ny, nx = one.image.shape
    x, y = one.corner
    together = image[y : y + 2 * ny, x : x + 2 * nx].reshape(ny, 2, nx, 2).sum(axis=(1, 3))
    assert np.array_equal(one.image[one.mask], together[one.mask])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pixel": 5 * PIXEL}, "have a radius of 1.8 pixels"),
        ({"one": pattern(discs()[40:80, 50:90])}, "neighbouring discs, 15.4 mrad apart"),
        ({"centre": (200.0, 3.0)}, "lies outside of its pixels"),
        ({"one": HIDDEN, "centre": (66.0, 61.0)}, "only 0 pixels can be used, less than one disc"),
    ],
)
def test_what_cannot_be_compared_is_refused(change, message):
    with pytest.raises(PacbedError, match=message):
        cut(**{"one": pattern(discs()), **change})


def test_the_centre_of_a_square_is_its_middle_pixel():
    shown = centred(cut(pattern(discs(centre=(60.0, 66.0)))))
    half = len(shown) // 2
    assert shown.shape == (2 * half, 2 * half)
    assert find_centres(pattern(shown), RADIUS, SPACING)[0] == pytest.approx((half, half), abs=1)


def test_masked_pixels_are_as_their_neighbours():
    image = np.arange(12.0).reshape(3, 4)
    mask = image != 5
    assert filled(image, mask)[1, 1] in (1, 4, 6, 9)
