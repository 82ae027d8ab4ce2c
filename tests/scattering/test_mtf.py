"""A measured MTF does to images what the blur does that it was measured of."""

import numpy as np
import pytest
from mtf_tables import gaussian_mtf
from scipy.ndimage import gaussian_filter

from pacbed.exceptions import PacbedError
from pacbed.scattering.mtf import MTF, read_mtf

IMAGE = gaussian_filter(np.random.default_rng(0).random((40, 56)) ** 8, 1.0)


def disc(pixels, radius, fine=16):
    """A disc, integrated over pixels."""
    axis = (np.arange(pixels * fine) + 0.5) / fine - pixels / 2 - 0.3
    inside = (np.hypot(axis[:, None], axis) < radius).astype(float)
    return inside.reshape(pixels, fine, pixels, fine).mean(axis=(1, 3))


def test_pixels_that_only_integrate_leave_images_as_they_are():
    np.testing.assert_allclose(MTF(gaussian_mtf(0.0)).blurred(IMAGE), IMAGE, rtol=1e-9)


@pytest.mark.parametrize(
    "points", [gaussian_mtf(1.2), gaussian_mtf(1.2)[5:], [(0, 1.1), (0.2, 0.8), (0.5, 0.2)]]
)
def test_no_electrons_are_lost_and_a_flat_image_stays_flat(points):
    mtf = MTF(points)
    assert mtf.blurred(IMAGE).sum() == pytest.approx(IMAGE.sum())
    np.testing.assert_allclose(mtf.blurred(np.ones((20, 30))), 1)


@pytest.mark.parametrize(("sigma_px", "error"), [(0.5, 0.03), (0.7, 0.02), (1.0, 0.01)])
def test_discs_are_blurred_as_before_they_were_integrated(sigma_px, error):
    """Part of the brightness of the disc by which a pixel is wrong."""
    fine, pixels, radius = 16, 48, 14.0
    axis = (np.arange(pixels * fine) + 0.5) / fine - pixels / 2 - 0.3
    sharp = (np.hypot(axis[:, None], axis) < radius).astype(float)
    exact = gaussian_filter(sharp, sigma_px * fine, mode="reflect")
    exact = exact.reshape(pixels, fine, pixels, fine).mean(axis=(1, 3))
    found = MTF(gaussian_mtf(sigma_px)).blurred(disc(pixels, radius, fine))
    assert np.abs(found - exact).max() < error
    assert found.min() >= 0


@pytest.mark.parametrize("width", [0, -1, float("nan"), float("inf")])
def test_pixels_of_no_width_are_refused(width):
    with pytest.raises(PacbedError, match="pixels of the camera wide"):
        MTF(gaussian_mtf(1.0), width)


def test_that_of_a_gaussian_blurs_as_a_gaussian():
    found = MTF(gaussian_mtf(1.1)).blurred(np.stack([IMAGE, 2 * IMAGE]))
    expected = gaussian_filter(IMAGE, 1.1, mode="reflect", truncate=8)
    np.testing.assert_allclose(found, [expected, 2 * expected], atol=2e-3 * expected.max())


def test_of_pixels_put_together_it_is_that_of_the_camera():
    sharp, mtf = disc(64, 20.0), MTF(gaussian_mtf(1.5))
    pairs = mtf.blurred(sharp).reshape(32, 2, 32, 2).sum(axis=(1, 3))
    together = sharp.reshape(32, 2, 32, 2).sum(axis=(1, 3))
    found = mtf.of_pixels(2).blurred(together)
    np.testing.assert_array_equal(found, mtf.blurred(together, (2, 2)))
    np.testing.assert_allclose(found, pairs, atol=0.03 * pairs.max())
    assert np.abs(together - pairs).max() > 0.2 * pairs.max()


def test_a_blurred_edge_has_the_mtf():
    """As it is measured: the Fourier transform of the derivative of an edge."""
    points, n, fine = gaussian_mtf(0.7), 512, 8
    edge = np.repeat((np.arange(n) >= n // 2).astype(float)[None], 2, axis=0)
    # One pixel wide steps, in pixels of an eighth.
    blurred = MTF(points).blurred(edge, (1 / fine, 1 / fine))
    spread = np.diff(blurred[0])
    f = np.fft.rfftfreq(len(spread)) * fine
    found = np.abs(np.fft.rfft(spread))
    seen = f <= 0.5
    expected = np.interp(f[seen], *np.transpose(points)) / np.sinc(f[seen])
    np.testing.assert_allclose(found[seen], expected, atol=0.01)


@pytest.mark.parametrize(
    "text",
    [
        "0,1\n0.25,0.8\n0.5,0.4\n",
        "\ufefffrequency; MTF\n\n0; 1\n0.25; 0.8\n0.5; 0.4\n",
        "data_\n\nloop_\n_rlnResolutionInversePixel #1\n_rlnMtfValue #2\n"
        "  0.000  1.0\n  0.250\t0.8\n  0.500  0.4\n\n",
    ],
)
def test_tables_of_several_programs_are_read(tmp_path, text):
    path = tmp_path / "mtf.txt"
    path.write_text(text, encoding="utf-8")
    assert read_mtf(path).points == ((0, 1), (0.25, 0.8), (0.5, 0.4))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0 100\n0.5 40\n", "if values are in %, divide them by 100"),
        ("0 1\n1 0.4\n", "if frequencies are fractions of the Nyquist frequency, halve them"),
        ("0 1\n9 0.4\n", "if frequencies are line pairs per mm, multiply them by the width"),
        ("0 100\n1 40\n", "halve them; if values are in %, divide them by 100"),
        ("0 1\n0.3 0.6\n0.2 0.7\n", "two or more pairs of cycles per pixel, ascending"),
        ("0 1\n0.3 -0.1\n", "an MTF must be"),
        ("0 1\n0.3 nan\n", "an MTF must be"),
        ("0.5 1\n", "two or more pairs"),
        ("0 1 0.01\n0.5 0.4 0.01\n", "line 1: '0 1 0.01' is not a frequency and a value"),
        ("0,000 1,000\n0,5 0,4\n", "line 1: '0,000 1,000' is not a frequency and a value"),
        ("0.1 0.2\n0.3 0.1\n", "near 1 at first"),
        ("0 1\n0,3 0,6\n", "'0,3 0,6' is not a frequency and a value; write decimal points"),
        ("frequency MTF\n", "an MTF must be"),
        ("", "an MTF must be"),
    ],
)
def test_what_is_no_mtf_is_said(tmp_path, text, said):
    path = tmp_path / "mtf.txt"
    path.write_text(text)
    with pytest.raises(PacbedError, match=said) as caught:
        read_mtf(path)
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(PacbedError, match=r"cannot read .*none\.txt: No such file"):
        read_mtf(tmp_path / "none.txt")
    (tmp_path / "image.png").write_bytes(b"\x89PNG\xff\xfe")
    with pytest.raises(PacbedError, match=r"image\.png is no text file in UTF-8"):
        read_mtf(tmp_path / "image.png")
