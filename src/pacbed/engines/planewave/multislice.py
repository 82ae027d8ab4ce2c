"""Propagation of plane waves through a slab, by definite transmissions or frozen phonons."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import ase
import numpy as np

from pacbed.engines.arrays import Arrays, serial_linear_algebra
from pacbed.engines.planewave.atoms import AtomTransmission, FormFactor
from pacbed.engines.planewave.library import Recorder
from pacbed.engines.planewave.waves import ReciprocalGrid
from pacbed.engines.request import Progress
from pacbed.exceptions import EngineError
from pacbed.seeding import stream
from pacbed.specimen.crystal import Crystal

# Beyond this distance the potential of an atom is negligible.
POTENTIAL_REACH_A = 6.0
# Fraction of the electrons that rounding may add.
_SUM_TOLERANCE = 1e-4
# Plane waves propagated together on a processor: definite transmissions, of static atoms or means,
# are the same for all; those of phonons are made on the way, for few enough to stay near the
# processor.
_WAVES_WITHOUT, _WAVES_WITH_PHONONS = 32, 2


@dataclass(frozen=True)
class AtomicPlane:
    """The atoms of one kind at one depth.

    Parameters
    ----------
    element
        Kind of atom: chemical symbol, with a number where it has a thermal motion of its own.
    depth_A
        Distance from the entrance surface in Å.
    base
        In-plane positions of the atoms of one cell as fractions of it, shape (atoms, 2).
    cells
        Cells of the supercell along the two cell vectors.
    """

    element: str
    depth_A: float
    base: np.ndarray
    cells: tuple[int, int]

    @property
    def sites(self) -> np.ndarray:
        """Positions as fractions of the supercell, shape (atoms, 2)."""
        cells = np.stack(np.meshgrid(*map(np.arange, self.cells), indexing="ij"), -1)
        return ((self.base + cells.reshape(-1, 1, 2)) / self.cells).reshape(-1, 2)


def atomic_planes(atoms: ase.Atoms, supercell: tuple[int, int]) -> list[AtomicPlane]:
    """Sort the atoms of a supercell into planes, in the order in which the beam meets them.

    Parameters
    ----------
    atoms
        One in-plane cell of the slab; the beam enters at the largest z.
    supercell
        Cells along the two cell vectors.
    """
    depth = np.round(atoms.cell.array[2, 2] - atoms.positions[:, 2], 6)
    symbols = np.array(atoms.arrays.get("kinds", atoms.get_chemical_symbols()))
    fractions = np.round(atoms.get_scaled_positions()[:, :2] % 1, 9)
    planes = []
    for d in np.unique(depth):
        for element in np.unique(symbols[depth == d]):
            base = fractions[(depth == d) & (symbols == element)]
            planes.append(AtomicPlane(str(element), float(d), base, supercell))
    return planes


@dataclass(frozen=True)
class FrozenPhonons:
    """Independent thermal displacements of all atoms (Einstein model).

    Displacements along the beam are left out: they change the phase of a wave scattered to 1 1/Å by
    a hundredth of a radian.

    Parameters
    ----------
    material
        For the root-mean-square displacement of each element.
    configurations
        Number of configurations of each plane wave.
    seed
        Seed of the displacements.
    shared
        Whether all waves have the same, to study interpolation between waves.
    """

    material: Crystal
    configurations: int
    seed: int
    shared: bool = False

    def displacements_A(self, addresses: np.ndarray, planes: list[AtomicPlane]) -> np.ndarray:
        """Return in-plane displacements in Å, (addresses or 1, configurations, atoms, 2).

        The atoms are those of all planes, one after another.

        They depend on the seed, the address - the direction of a wave, to a millionth of a mrad,
        or the number of a batch - and the number of the configuration alone.
        """
        if self.shared:
            addresses = np.zeros((1, 2))
        of_plane = [len(p.sites) for p in planes]
        shape = (sum(of_plane), 2)
        drawn = np.array(
            [
                [
                    stream(self.seed, "phonons", *map(float, address), number).standard_normal(
                        shape
                    )
                    for number in range(self.configurations)
                ]
                for address in addresses
            ]
        )
        rms = np.repeat([self.material.rms_A(p.element) for p in planes], of_plane)
        return drawn * rms[:, None]


@dataclass(frozen=True)
class Slice:
    """One step of the calculation: what transmits the wave, and how far it then travels.

    Parameters
    ----------
    contents
        Numbers of the planes that contribute, each with the number of its table.
    thickness_A
        Distance to the next slice in Å.
    ends_layer
        Whether a pattern is kept after it.
    overlap
        Number of what overlapping tails add to the transmission; None for nothing.
    """

    contents: tuple[tuple[int, int], ...]
    thickness_A: float
    ends_layer: bool
    overlap: int | None = None


class Slicing:
    """Slices of a slab and what each kind of atom contributes to them, in reciprocal space.

    A table holds real numbers for each point of a transmission function: those of a potential, or
    the real and imaginary part of a transmission. They appear twice in a row, so that they multiply
    the real and imaginary part of a structure factor.
    """

    def __init__(
        self,
        slices: list[Slice],
        tables: list[np.ndarray],
        overlaps: Sequence[np.ndarray] | None = None,
    ) -> None:
        self.slices, self.tables = slices, tables
        self.linear, self.overlaps = overlaps is not None, overlaps or []

    @classmethod
    def on_planes(
        cls,
        planes: list[AtomicPlane],
        layer_ends_A: Sequence[float],
        grid: ReciprocalGrid,
        transmission: AtomTransmission,
        mean: AtomTransmission,
    ) -> Slicing:
        """Put one slice on every atomic plane, with whole atoms in it: T = 1 + Σ t + overlaps.

        Where the tails of neighbours overlap, the product Π (1 + t) differs a little from the sum.
        The difference is that of the mean transmissions (`mean`), whatever the displacements.
        Planes of several kinds of atoms at the same depth share a slice.
        """
        gx, gy = grid.transmission_points_per_A()
        elements = list(dict.fromkeys(p.element for p in planes))
        tables = []
        for element in elements:
            amplitude = transmission(element, gx, gy) / grid.area_A2
            tables.append(np.stack([amplitude.real, amplitude.imag]).repeat(2, axis=-1))
        cells = planes[0].cells
        shape = grid.fft_shape[0] // cells[0], grid.fft_shape[1] // cells[1]
        cell_A = grid.cell_A / np.array(cells)[:, None]
        depth = [plane.depth_A for plane in planes]
        together = [tuple(group) for _, group in groupby(range(len(planes)), depth.__getitem__)]
        kinds = [tuple((planes[i].element, planes[i].base.tobytes()) for i in g) for g in together]
        overlaps = {
            kind: np.tile(
                mean.overlap([(planes[i].element, planes[i].base) for i in group], cell_A, shape),
                cells,
            )
            for kind, group in dict(zip(kinds, together, strict=True)).items()
        }
        depths = [depth[group[0]] for group in together] + [layer_ends_A[-1]]
        # An atom of the last layer may lie on its end.
        layer_of = np.searchsorted(layer_ends_A[:-1], depths[:-1], side="right").tolist()
        layer_of.append(len(layer_ends_A))
        slices = [
            Slice(
                tuple((i, elements.index(planes[i].element)) for i in group),
                round(depths[number + 1] - depths[number], 6),
                layer_of[number + 1] > layer_of[number],
                list(overlaps).index(kinds[number]),
            )
            for number, group in enumerate(together)
        ]
        return cls(slices, tables, list(overlaps.values()))

    @classmethod
    def equal(
        cls,
        planes: list[AtomicPlane],
        layer_ends_A: Sequence[float],
        slices_per_layer: int,
        grid: ReciprocalGrid,
        form_factor: FormFactor,
        phase_A: float,
    ) -> Slicing:
        """Cut each layer into equal slices; atoms contribute what lies in each, T = exp(iσV).

        What the potential of the outermost atoms leaves outside the slab is added to its first and
        last slice.
        """
        gx, gy = grid.transmission_points_per_A()
        layers = np.diff([0.0, *layer_ends_A])
        if np.allclose(layers, layers[0], rtol=0, atol=1e-6):  # to rounding, and to share tables
            layers[:] = layers[0]
        thicknesses = (layers / slices_per_layer).repeat(slices_per_layer).tolist()
        count = len(thicknesses)
        tables: list[np.ndarray] = []
        numbers: dict[tuple[str, float, float], int] = {}
        slices = []
        for index in range(count):
            thickness = thicknesses[index]
            layer, part = divmod(index, slices_per_layer)
            top = float(layers[:layer].sum()) + part * thickness
            bottom = top + thickness
            contents = []
            for number, plane in enumerate(planes):
                if not top - POTENTIAL_REACH_A < plane.depth_A < bottom + POTENTIAL_REACH_A:
                    continue
                z1 = -math.inf if index == 0 else round(top - plane.depth_A, 6)
                z2 = math.inf if index == count - 1 else round(bottom - plane.depth_A, 6)
                key = (plane.element, z1, z2)
                if key not in numbers:
                    numbers[key] = len(tables)
                    potential = form_factor(plane.element, gx, gy, z1, z2)
                    tables.append((potential * (phase_A / grid.area_A2))[None].repeat(2, axis=-1))
                contents.append((number, numbers[key]))
            contents = [(n, t) for n, t in contents if tables[t].any()]
            slices.append(Slice(tuple(contents), thickness, (index + 1) % slices_per_layer == 0))
        return cls(slices, tables)


def waves_together(configurations: int) -> int:
    """Return how many waves a processor propagates together."""
    return _WAVES_WITH_PHONONS if configurations > 1 else _WAVES_WITHOUT


def bytes_per_wave(
    grid: ReciprocalGrid, configurations: int, atoms: int, bytes_per_number: int
) -> int:
    """Estimate the working memory of one wave and its configurations.

    Wave, transmission, their transforms and the temporary arrays of these, and the positions of the
    atoms of the supercell.
    """
    n1, n2 = grid.fft_shape
    return configurations * (8 * n1 * n2 * bytes_per_number + 32 * atoms)


def in_batches(
    work: Callable[[slice], None],
    count: int,
    size: int,
    threads: int,
    progress: Progress | None = None,
) -> None:
    """Work on parts of a numbered whole by several threads.

    Within a thread, matrix products and transforms are serial.

    Parameters
    ----------
    work
        Called with each part.
    count, size
        How many there are, and how many in a part.
    threads
        Parts under way at the same time.
    progress
        Called with the number done and `count`.
    """
    done = 0
    with serial_linear_algebra(), ThreadPoolExecutor(max_workers=threads) as pool:
        parts = [slice(n, min(n + size, count)) for n in range(0, count, size)]
        futures = {pool.submit(work, part): part for part in parts}
        try:
            for future in as_completed(futures):
                future.result()
                done += futures[future].stop - futures[future].start
                if progress:
                    progress(done, count)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def check_electrons(within_band: np.ndarray) -> None:
    """Check that no wave has more electrons after any layer than before the crystal.

    Parameters
    ----------
    within_band
        Fractions of waves that are left.

    Raises
    ------
    EngineError
        If one has, beyond rounding.
    """
    if (largest := float(within_band.max())) > 1 + _SUM_TOLERANCE:
        raise EngineError(
            f"a wave has {largest:.6f} electrons after the crystal for every one before: the "
            "band limit and grid of this calculation make electrons. Report it, with the "
            "command that you gave"
        )


class Multislice:
    """Plane waves on their way through a slab.

    Parameters
    ----------
    grid
        Reciprocal lattice of the supercell.
    planes
        Its atoms.
    slicing
        What they contribute to the slices.
    passes
        Tells which spatial frequencies (kx, ky in 1/Å) are propagated.
    wavelength_A
        Wavelength in Å.
    phonons
        Thermal displacements; None for static atoms or mean transmissions.
    on
        Array functions of the device.
    double
        Compute in double precision.
    """

    def __init__(
        self,
        grid: ReciprocalGrid,
        planes: list[AtomicPlane],
        slicing: Slicing,
        passes: Callable[[np.ndarray, np.ndarray], np.ndarray],
        wavelength_A: float,
        phonons: FrozenPhonons | None,
        on: Arrays,
        double: bool = False,
    ) -> None:
        self.grid, self.planes, self.phonons, self.on = grid, planes, phonons, on
        self._slices, self._linear, self._passes = slicing.slices, slicing.linear, passes
        self._wavelength_A = wavelength_A
        self._real = np.dtype(np.float64 if double else np.float32)
        self._complex = np.dtype(np.complex128 if double else np.complex64)
        xp = on.xp
        # (parts, waves, configurations, h, k)
        self._tables = [xp.asarray(t[:, None, None], dtype=self._real) for t in slicing.tables]
        self._overlaps = [xp.asarray(o, dtype=self._complex) for o in slicing.overlaps]
        self._parts = len(slicing.tables[0])
        self._definite: list[Any] = []
        first = np.cumsum([0, *(len(p.sites) for p in planes)])
        self._of_plane = [slice(*map(int, first[n : n + 2])) for n in range(len(planes))]

    @property
    def atoms(self) -> int:
        """Number of atoms of the supercell."""
        return sum(len(p.sites) for p in self.planes)

    @property
    def configurations(self) -> int:
        """Configurations of each wave; 1 for static atoms or mean transmissions."""
        return self.phonons.configurations if self.phonons else 1

    def _default_batch(self) -> int:
        """Return how many waves to propagate together: on a card, as many as its memory holds."""
        if (free := self.on.free_memory_bytes()) is None:
            return waves_together(self.configurations)
        each = bytes_per_wave(self.grid, self.configurations, self.atoms, self._complex.itemsize)
        return max(1, min(256, free // (2 * each)))

    def propagate(
        self,
        recorder: Recorder,
        threads: int = 1,
        batch: int | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Send every incident wave of a recorder through the slab.

        Parameters
        ----------
        recorder
            Holds the incident waves and collects what leaves the layers.
        threads
            Batches under way at the same time. Results do not depend on it.
        batch
            Waves propagated together; by default what suits the device. Results do not depend on
            it.
        progress
            Called with the number of waves done and their total.
        """
        directions = recorder.incident.directions_mrad

        def propagate(part: slice) -> None:
            record = recorder.batch(part, *self.start_of(directions[part]), self.on)
            for layer, wave in enumerate(self.exit_waves(directions[part])):
                record.layer(layer, wave)

        self.prepare()
        in_batches(propagate, len(directions), batch or self._default_batch(), threads, progress)

    def prepare(self) -> None:
        """Compute what all waves share: the transmissions of atoms at definite places."""
        if not self.phonons and not self._definite:
            with serial_linear_algebra():
                self._definite = self._definite_transmissions()

    def start_of(self, directions_mrad: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the lattice point nearest to each wave, and how far the wave is from it.

        Both in units of the reciprocal vectors, shapes (waves, 2).
        """
        fraction = directions_mrad / (1e3 * self._wavelength_A) @ self.grid.cell_A.T
        start = np.rint(fraction).astype(int)
        return start, fraction - start

    def exit_waves(
        self, directions_mrad: np.ndarray, addresses: np.ndarray | None = None
    ) -> Iterator[Any]:
        """Yield the amplitudes (waves, configurations, h, k) of plane waves after each layer.

        Parameters
        ----------
        directions_mrad
            Directions of incidence in the frame of the crystal, shape (waves, 2).
        addresses
            Of the displacements, a row for each wave or one for all; by default the directions.
        """
        start, offset = self.start_of(directions_mrad)
        xp, fft = self.on.xp, self.on.fft
        waves, configurations = len(directions_mrad), self.configurations
        (n1, n2), (h, k) = self.grid.fft_shape, self.grid.wave_limit
        propagators = self._propagators(offset)
        atoms = None
        if self.phonons:
            atoms = self._atoms(directions_mrad if addresses is None else addresses)
        wave = xp.zeros((waves, configurations, *self.grid.wave_shape), self._complex)
        wave[xp.arange(waves), :, xp.asarray(start[:, 0] + h), xp.asarray(start[:, 1] + k)] = 1
        # Amplitudes lie at the beginning of the transforms, from -h and -k on, with zeros after
        # them. That multiplies the wave by a phase, which commutes with the transmission. Rows that
        # hold nothing are not transformed.
        rows = xp.empty((waves, configurations, 2 * h + 1, n2), self._complex)
        field = xp.empty((waves, configurations, n1, n2), self._complex)
        for index, one in enumerate(self._slices):
            transmission = (
                self._definite[index] if atoms is None else self._transmission(one, atoms)
            )
            rows[..., : 2 * k + 1] = wave
            rows[..., 2 * k + 1 :] = 0
            rows = fft.ifft(rows, axis=-1, norm="forward", overwrite_x=True)
            field[..., : 2 * h + 1, :] = rows
            field[..., 2 * h + 1 :, :] = 0
            field = fft.ifft(field, axis=-2, norm="forward", overwrite_x=True)
            field *= transmission
            field = fft.fft(field, axis=-2, norm="forward", overwrite_x=True)
            rows[...] = field[..., : 2 * h + 1, :]
            rows = fft.fft(rows, axis=-1, norm="forward", overwrite_x=True)
            xp.multiply(rows[..., : 2 * k + 1], propagators[one.thickness_A], out=wave)
            if one.ends_layer:
                yield wave

    def _propagators(self, offset: np.ndarray) -> dict[float, Any]:
        """Fresnel propagators of all slice thicknesses, shape (waves, 1, h, k)."""
        gx, gy = self.grid.wave_points_per_A()
        beside = offset @ self.grid.reciprocal_per_A
        kx, ky = gx + beside[:, 0, None, None], gy + beside[:, 1, None, None]
        passes = self._passes(kx, ky)
        phase = (-math.pi * self._wavelength_A) * (kx**2 + ky**2)
        propagators = {}
        for thickness in {s.thickness_A for s in self._slices}:
            angle = (thickness * phase).astype(self._real)
            propagator = np.empty(phase.shape, self._complex)
            np.multiply(np.cos(angle), passes, out=propagator.real)
            np.multiply(np.sin(angle), passes, out=propagator.imag)
            propagators[thickness] = self.on.xp.asarray(propagator[:, None])
        return propagators

    def _atoms(self, addresses: np.ndarray) -> Any:
        """Draw displaced atoms, as fractions (waves or 1, configurations, atoms, 2)."""
        assert self.phonons is not None
        displacements = self.phonons.displacements_A(addresses, self.planes)
        sites = np.concatenate([p.sites for p in self.planes])
        return self.on.xp.asarray(sites + displacements @ np.linalg.inv(self.grid.cell_A))

    def _definite_transmissions(self) -> list[Any]:
        """Return the transmission of each slice; slices with the same contents share one."""
        atoms = self.on.xp.asarray(np.concatenate([p.sites for p in self.planes])[None, None])
        found: dict[Any, Any] = {}
        result = []
        for one in self._slices:
            key = tuple((self.planes[p].sites.tobytes(), table) for p, table in one.contents)
            if key not in found:
                found[key] = self._transmission(one, atoms)
            result.append(found[key])
        return result

    def _transmission(self, one: Slice, atoms: Any) -> Any:
        """Return the transmission function of a slice, (waves or 1, configurations, n1, n2)."""
        if not one.contents:
            return 1
        xp, fft = self.on.xp, self.on.fft
        n1, n2 = self.grid.fft_shape
        v1, v2 = self.grid.transmission_limit
        columns = xp.empty((self._parts, *atoms.shape[:2], n1, v2 + 1), self._complex)
        columns[..., v1 + 1 : n1 - v1, :] = 0
        spectrum = columns.view(self._real)
        # Rows of the transform and of the tables for h = 0 ... v1 and for h = -v1 ... -1.
        rows = (np.s_[: v1 + 1], np.s_[: v1 + 1]), (np.s_[n1 - v1 :], np.s_[v1 + 1 :])
        for number, (plane, table) in enumerate(one.contents):
            factors = self._structure_factors(atoms[:, :, self._of_plane[plane]])
            for factor, (here, there) in zip(factors, rows, strict=True):
                weights, target = self._tables[table][..., there, :], spectrum[..., here, :]
                if number == 0:
                    xp.multiply(factor, weights, out=target)
                else:
                    target += factor * weights
        columns = fft.ifft(columns, axis=-2, norm="forward", overwrite_x=True)
        parts = fft.irfft(columns, n=n2, axis=-1, norm="forward", overwrite_x=True)
        transmission = xp.empty(parts.shape[1:], self._complex)
        if self._linear:
            xp.add(parts[0], 1, out=transmission.real)
            transmission.imag[...] = parts[1]
            if one.overlap is not None:
                transmission += self._overlaps[one.overlap]
        else:
            transmission.real[...] = xp.cos(parts[0])
            transmission.imag[...] = xp.sin(parts[0])
        return transmission

    def _structure_factors(self, sites: Any) -> tuple[Any, Any]:
        """Return Σ exp(-2πi (hu + kv)) of atoms, for k ≥ 0.

        A product of powers along each direction, summed over the atoms by matrix products: real
        ones, for the cosines and sines along h serve both signs of h.

        Parameters
        ----------
        sites
            Shape (waves, configurations, atoms, 2).

        Returns
        -------
        tuple of arrays
            For h = 0 ... n and for h = -n ... -1, shapes (waves, configurations, h, 2k): real and
            imaginary parts in turn.
        """
        v1, v2 = self.grid.transmission_limit
        along_h = self._powers(sites[..., 0], v1).swapaxes(-1, -2)
        along_k = self._powers(sites[..., 1], v2).view(self._real)
        even = (along_h.real.copy() @ along_k).view(self._complex)
        odd = (along_h.imag.copy() @ along_k).view(self._complex)
        odd *= 1j
        return (even + odd).view(self._real), (even - odd).view(self._real)[..., :0:-1, :]

    def _powers(self, fraction: Any, limit: int) -> Any:
        """Return exp(-2πi n u) for n from 0 to limit, shape (..., atoms, limit + 1)."""
        xp = self.on.xp
        step = xp.exp(-2j * math.pi * fraction)[..., None]
        powers = xp.empty((*fraction.shape, limit + 1), self._complex)
        powers[..., 0] = 1
        known = 1
        while known <= limit:
            more = min(known, limit + 1 - known)
            xp.multiply(
                powers[..., :more],
                step.astype(self._complex),
                out=powers[..., known : known + more],
            )
            step = step * step
            known *= 2
        return powers
