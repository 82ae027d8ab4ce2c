"""How single atoms scatter: form factors of sliced atoms, transmission of whole ones.

A multislice calculation with equal slices needs, for every slice, the potential of each atom
integrated over the part of z that the slice covers. In reciprocal space this is a form factor
f(q; z1, z2). Two versions exist: the analytic one of Kirkland's parametrisation, and the one that
results when, as Prismatic 2.0 does, the potential of an atom is tabulated on a coarse real-space
grid. A calculation with one slice on every atomic plane needs what a whole atom does to the wave.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib.resources import files

import numpy as np
import scipy
from scipy import constants
from scipy.special import erf, j0, k0

from pacbed.engines.planewave.waves import Band
from pacbed.exceptions import RequestError
from pacbed.specimen.crystal import element_of

FormFactor = Callable[[str, np.ndarray, np.ndarray, float, float], np.ndarray]
"""(element, qx, qy in 1/Å, z1, z2 in Å from the nucleus) -> form factor in Å, shape of qx."""

# h²/(2π m₀ e) turns a Fourier component in Å into the integral of a potential in V Å³ (47.878).
VOLT_A3_PER_A = constants.h**2 / (2 * math.pi * constants.m_e * constants.e) * 1e20


@dataclass(frozen=True)
class Kirkland:
    """Coefficients of f(q) = Σ aᵢ/(q² + bᵢ) + Σ cᵢ exp(-dᵢ q²), f in Å, q in 1/Å."""

    a: np.ndarray
    b: np.ndarray
    c: np.ndarray
    d: np.ndarray

    def scattering_factor(self, q: np.ndarray) -> np.ndarray:
        """Return the electron scattering factor in Å at spatial frequencies q in 1/Å."""
        q2 = np.square(q)[..., None]
        lorentzians = self.a / (q2 + self.b)
        gaussians = self.c * np.exp(-self.d * q2)
        return np.asarray((lorentzians + gaussians).sum(-1))

    def sliced(self, q: np.ndarray, z1: float, z2: float) -> np.ndarray:
        """Return the part of the scattering factor due to the potential between z1 and z2.

        The Fourier transform over x and y of a Lorentzian term falls off as exp(-s|z|) with
        s = 2π √(q² + b), that of a Gaussian one as exp(-π² z²/d): both integrate in closed form.
        Over all z this is :meth:`scattering_factor`.
        """
        q2 = np.square(q)[..., None]
        decay = 2 * math.pi * np.sqrt(q2 + self.b)

        def below(z: float) -> np.ndarray:
            tail = 0.5 * np.exp(-decay * abs(z))
            return tail if z < 0 else 1 - tail

        width = math.pi / np.sqrt(self.d)
        lorentzians = self.a / (q2 + self.b) * (below(z2) - below(z1))
        gaussians = self.c * np.exp(-self.d * q2) * 0.5 * (erf(width * z2) - erf(width * z1))
        return np.asarray((lorentzians + gaussians).sum(-1))

    def potential(self, r: np.ndarray) -> np.ndarray:
        """Return the potential of the atom in V at distances r > 0 in Å.

        Kirkland, Advanced Computing in Electron Microscopy (2010), eq. C.19.
        """
        r = r[..., None]
        yukawa = math.pi * self.a / r * np.exp(-2 * math.pi * r * np.sqrt(self.b))
        gauss = self.c * (math.pi / self.d) ** 1.5 * np.exp(-((math.pi * r) ** 2) / self.d)
        return np.asarray(VOLT_A3_PER_A * (yukawa + gauss).sum(-1))

    def projected(self, r: np.ndarray) -> np.ndarray:
        """Return the two-dimensional Fourier transform of the scattering factor at r > 0, in 1/Å.

        The potential integrated along the beam, in units of h²/(2π m₀ e); Kirkland, eq. C.20.
        """
        r = r[..., None]
        lorentzians = 2 * math.pi * self.a * k0(2 * math.pi * r * np.sqrt(self.b))
        gaussians = math.pi * self.c / self.d * np.exp(-((math.pi * r) ** 2) / self.d)
        return np.asarray((lorentzians + gaussians).sum(-1))

    def potential_slope(self, r: np.ndarray) -> np.ndarray:
        """Return the derivative of :meth:`potential` in V/Å at distances r > 0 in Å."""
        r = r[..., None]
        decay = 2 * math.pi * np.sqrt(self.b)
        yukawa = -math.pi * self.a * (1 / r**2 + decay / r) * np.exp(-decay * r)
        gauss = -2 * math.pi**2 * r * self.c / self.d * (math.pi / self.d) ** 1.5
        gauss = gauss * np.exp(-((math.pi * r) ** 2) / self.d)
        return np.asarray(VOLT_A3_PER_A * (yukawa + gauss).sum(-1))


@lru_cache
def _table() -> dict[str, Kirkland]:
    text = files("pacbed.engines.planewave").joinpath("kirkland.csv").read_text()
    rows = [line.split(",") for line in text.splitlines() if not line.startswith(("#", "Z,"))]
    result = {}
    for _, symbol, *numbers in rows:
        values = np.array(numbers, float)
        result[symbol] = Kirkland(values[0:6:2], values[1:6:2], values[6::2], values[7::2])
    return result


def kirkland(kind: str) -> Kirkland:
    """Return Kirkland's parametrisation of a neutral atom of an element, or of a kind of atom.

    Raises
    ------
    RequestError
        If the element is not tabulated (H to Lr are).
    """
    element = element_of(kind)
    try:
        return _table()[element]
    except KeyError:
        raise RequestError(f"no scattering factor for element '{element}'") from None


def analytic_form_factor(
    element: str, qx: np.ndarray, qy: np.ndarray, z1: float, z2: float
) -> np.ndarray:
    """Return the exact form factor of an atom between two depths (a :data:`FormFactor`)."""
    return kirkland(element).sliced(np.hypot(qx, qy), z1, z2)


class SampledFormFactor:
    """Form factor of a potential tabulated on a grid, as Prismatic 2.0 tabulates it.

    Prismatic samples the three-dimensional potential of an atom at the points of a grid, in plane
    at the pixel size, along z at a sixteenth of a slice. It keeps what exceeds the value at the
    bounding radius, dampens it between 0.75 and 0.95 of the Nyquist frequency, and cuts a disc.
    Point sampling of so sharp a peak folds high frequencies back: at 0.15 Å the form factor
    differs by tens of per cent beyond 1 1/Å. This is most of the difference between Prismatic at
    the paper's sampling and a converged calculation.

    Parameters
    ----------
    pixel_A
        In-plane sampling in Å.
    slice_A
        Slice thickness in Å.
    bound_A
        Radius up to which the potential is tabulated, in Å (``potBound``).
    """

    Z_SAMPLES_PER_SLICE = 16
    BAND = (0.75, 0.95)

    def __init__(self, pixel_A: float, slice_A: float, bound_A: float = 3.0) -> None:
        self.pixel_A, self.slice_A, self.bound_A = pixel_A, slice_A, bound_A
        self._tables: dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}

    def __call__(
        self, element: str, qx: np.ndarray, qy: np.ndarray, z1: float, z2: float
    ) -> np.ndarray:
        """Return the form factor (see :data:`FormFactor`)."""
        x, z, kernel = self._table(element)
        inside = (z >= z1) & (z < z2)
        if not inside.any():
            return np.zeros(qx.shape)
        projected = kernel[:, :, inside].sum(-1)
        phase_x = np.exp(-2j * math.pi * np.multiply.outer(qx, x))
        phase_y = np.exp(-2j * math.pi * np.multiply.outer(qy, x))
        return np.einsum("...a,ab,...b->...", phase_x, projected, phase_y, optimize=True).real

    def _table(self, element: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if element not in self._tables:
            self._tables[element] = self._tabulate(kirkland(element))
        return self._tables[element]

    def _tabulate(self, atom: Kirkland) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        reach = math.ceil(self.bound_A / self.pixel_A)
        x = np.arange(-reach, reach + 1) * self.pixel_A
        dz = self.slice_A / self.Z_SAMPLES_PER_SLICE
        depth = math.ceil(self.bound_A / dz)
        z = (np.arange(-depth, depth) + 0.5) * dz
        radius = np.sqrt(x[:, None, None] ** 2 + x[None, :, None] ** 2 + z**2)
        cut = atom.potential(np.array(min(x[-1], z[-1])))
        potential = np.maximum(atom.potential(radius) - cut, 0)

        frequency = np.fft.fftfreq(len(x))
        q = 2 * np.hypot(frequency[:, None], frequency[None, :])
        low, high = self.BAND
        window = np.sin(0.5 * math.pi * np.clip((high - q) / (high - low), 0, 1)) ** 2
        centred = np.fft.ifftshift(potential, axes=(0, 1))
        smooth = np.fft.ifft2(np.fft.fft2(centred, axes=(0, 1)) * window[..., None], axes=(0, 1))
        edge = x[-1] + 0.5 * self.pixel_A
        disc = np.hypot(x[:, None], x[None, :]) <= edge
        kernel = np.fft.fftshift(smooth.real, axes=(0, 1)) * disc[..., None]
        return x, z, kernel * (self.pixel_A**2 * dz / VOLT_A3_PER_A)


# Closer grids, larger or smaller radii or higher frequencies do not change t below 10 1/Å.
_RADII_A = np.concatenate(
    [
        np.geomspace(1e-6, 0.01, 200)[:-1],
        np.linspace(0.01, 0.5, 600)[:-1],
        np.linspace(0.5, 6, 1200),
    ]
)
_FREQUENCIES_PER_A = np.linspace(0, 25.0, 2500)
# Products of tails are smooth.
_OVERLAP_STEP_A = 0.06


class AtomTransmission:
    """What a whole atom does to the wave, t(r) = exp(iχ(r)) - 1, in reciprocal space.

    To leading order at high energy χ is σv, with v the potential projected along the beam and σ the
    interaction constant (Molière, Glauber). The next order is the bending of the wave on its way
    through the atom, λ/4π ∫∫ (z₁ - z₂) σ∇V(z₁)·σ∇V(z₂) over z₁ > z₂ (second term of the Magnus
    expansion; cf. Wallace, Ann. Phys. 78 (1973) 190). It takes the place of slices thinner than the
    core of an atom.

    A band-limited calculation that expands exp(iσv) of a band-limited v misrepresents the core.
    Band-limiting t itself keeps what the core scatters into the band right and takes what it
    scatters out of the band as lost.

    Parameters
    ----------
    wavelength_A
        Wavelength in Å.
    phase_A
        Phase per unit of scattering factor, λγ, in Å (σ h²/(2π m₀ e) = λγ).
    band
        Spatial frequencies of t that are kept.
    rms_displacement_A
        Per kind of atom, for the mean of t over thermal displacements; none for atoms at definite
        places.

    Notes
    -----
    The mean of t over normal displacements is t exp(-2π²u²q²): the transmission is damped, not the
    potential. Displacements of different atoms are independent (Einstein model) and the wave meets
    each atom once, so that the mean exit wave follows from mean transmissions.
    """

    def __init__(
        self,
        wavelength_A: float,
        phase_A: float,
        band: Band,
        rms_displacement_A: Mapping[str, float] | None = None,
    ) -> None:
        self.wavelength_A, self.phase_A, self.band = wavelength_A, phase_A, band
        self.rms_displacement_A = rms_displacement_A or {}

    def __call__(self, element: str, qx: np.ndarray, qy: np.ndarray) -> np.ndarray:
        """Return the Fourier transform of t in Å², complex, at frequencies in 1/Å."""
        inside = self.band.contains(qx, qy)
        spline = scipy.interpolate.CubicSpline(_FREQUENCIES_PER_A, self._spectrum(element))
        return np.where(inside, spline(np.where(inside, np.hypot(qx, qy), 0)), 0)

    def overlap(
        self,
        atoms: Sequence[tuple[str, np.ndarray]],
        cell_A: np.ndarray,
        shape: tuple[int, int],
    ) -> np.ndarray:
        """Return what the product of the transmissions of a plane has beyond their sum.

        Π(1 + t) - 1 - Σt over all atoms of a plane, periodic images included: where the tails of
        neighbours overlap, the sum alone would make electrons.

        Parameters
        ----------
        atoms
            Kinds of atoms, each with the positions of those of one cell as fractions, shape
            (atoms, 2).
        cell_A
            In-plane cell vectors as rows, shape (2, 2), Å.
        shape
            Points of the cell at which to return it.

        Returns
        -------
        numpy.ndarray
            Complex, of that shape, limited to the frequencies of the transmission.
        """
        fine = [
            n * math.ceil(e / (_OVERLAP_STEP_A * n))
            for n, e in zip(shape, np.linalg.norm(cell_A, axis=1), strict=True)
        ]
        points = np.stack(np.meshgrid(*(np.arange(n) / n for n in fine), indexing="ij"), axis=-1)
        heights = abs(np.linalg.det(cell_A)) / np.linalg.norm(cell_A[::-1], axis=1)
        reach = [math.ceil(_RADII_A[-1] / h) for h in heights]
        product, total = np.ones(points.shape[:2], complex), np.zeros(points.shape[:2], complex)
        for kind, sites in atoms:
            spectrum = self._spectrum(kind) * _window(_FREQUENCIES_PER_A)
            one = scipy.interpolate.CubicSpline(
                _RADII_A, _bessel() @ (_ring(_FREQUENCIES_PER_A) * spectrum)
            )
            for site in sites:
                for image in np.ndindex(*(2 * n + 1 for n in reach)):
                    vector = (points - site - np.subtract(image, reach)) @ cell_A
                    radius = np.hypot(vector[..., 0], vector[..., 1])
                    near = radius < _RADII_A[-1]
                    t = one(np.maximum(radius[near], _RADII_A[0]))
                    product[near] *= 1 + t
                    total[near] += t
        index = [np.fft.fftfreq(n, 1 / n).astype(int) for n in shape]
        limited = (np.fft.fft2(product - 1 - total) / product.size)[np.ix_(*index)]
        g = np.stack(np.meshgrid(*index, indexing="ij"), -1) @ np.linalg.inv(cell_A).T
        limited[~self.band.contains(g[..., 0], g[..., 1])] = 0
        return np.asarray(np.fft.ifft2(limited) * limited.size)

    def _spectrum(self, element: str) -> np.ndarray:
        """Return the mean transform of t at the frequencies of the Hankel transform."""
        displacement = self.rms_displacement_A.get(element, 0.0)
        damping = np.exp(-2 * (math.pi * displacement * _FREQUENCIES_PER_A) ** 2)
        return np.asarray(_spectrum(element, self.wavelength_A, self.phase_A) * damping)


@lru_cache
def _spectrum(element: str, wavelength_A: float, phase_A: float) -> np.ndarray:
    """Return the transform of t of an atom at a definite place."""
    r, q, atom = _RADII_A, _FREQUENCIES_PER_A, kirkland(element)
    # In real space the core is right down to the nucleus.
    phase = phase_A * atom.projected(r)
    # σv falls off slowly with r, but its transform is known.
    bending = _bending(element, wavelength_A, phase_A)
    remainder = np.exp(1j * (phase + bending)) - 1 - 1j * phase
    transformed = (_bessel().T * _ring(r)) @ remainder
    return np.asarray(transformed + 1j * phase_A * atom.scattering_factor(q))


def _bending(element: str, wavelength_A: float, phase_A: float) -> np.ndarray:
    """Return the second-order phase at the radii of the Hankel transform."""
    sigma = phase_A / VOLT_A3_PER_A
    r = np.geomspace(_RADII_A[0], _RADII_A[-1], 300)[:, None]
    z = np.concatenate([[0.0], np.geomspace(_RADII_A[0], _RADII_A[-1], 2000)])
    distance = np.hypot(r, z)
    slope = sigma * kirkland(element).potential_slope(distance) * r / distance
    # ∫∫ (z₁ - z₂) s(z₁) s(z₂) over z₁ > z₂ is ∫ M(z) (M(∞) - M(z)) dz, M the integral of s up
    # to z. The atom is symmetric: twice the half with z > 0.
    above = scipy.integrate.cumulative_trapezoid(slope, z, initial=0)
    half = above[:, -1:]
    double = 2 * scipy.integrate.trapezoid((half + above) * (half - above), z)
    phase = wavelength_A / (4 * math.pi) * double
    return np.asarray(np.interp(_RADII_A, r[:, 0], phase))


def _ring(x: np.ndarray) -> np.ndarray:
    """Weights of an integral over a plane in polar coordinates (trapezoidal rule)."""
    return 2 * math.pi * x * np.gradient(x)


def _window(frequency: np.ndarray) -> np.ndarray:
    """Return a gentle end of a spectrum, so that what belongs to it does not ring."""
    return np.asarray(np.exp(-((1.25 * frequency / frequency[-1]) ** 8)))


@cache
def _bessel() -> np.ndarray:
    """Kernel of the Hankel transform between the two grids."""
    return np.asarray(j0(2 * math.pi * np.outer(_RADII_A, _FREQUENCIES_PER_A)))
