"""Lattices of the patterns of a scan by py4DSTEM, for `benchmarks/maps.py --py4dstem`.

    python py4dstem_lattices.py SCAN.npz LATTICES.npz

runs in an environment of its own, without pacbed (py4DSTEM 0.14 needs NumPy 1). The steps are those
of its tutorials of strain: a template of the beam from the vacuum, with an edge; discs by
cross-correlation, to parts of a pixel; their origin; a lattice fitted to the discs of each pattern.
They are done twice: with the edge of the tutorials, and with the least biased of eleven
settings that were tried on the example scan, whose strain is known.
"""

from __future__ import annotations

import sys

import matplotlib as mpl
import numpy as np

mpl.use("Agg")

import py4DSTEM
from py4DSTEM.process.strain.latticevectors import index_bragg_directions

# Radii of the edge of the template over that of the beam, power of the correlation, and of the
# intensity.
_SETTINGS = {
    "py4DSTEM, as in its tutorials": ((0.0, 4.0), 1.0, 1.0),
    "py4DSTEM, best settings": ((0.7, 1.5), 0.9, 0.5),
}
# Discs further from where the undeformed lattice has them are left out, in parts of its spacing.
_FAR = 0.25


def main() -> None:
    """Read patterns, and write the vectors of their lattices."""
    given = np.load(sys.argv[1])
    np.savez(sys.argv[2], **{name: lattices(given, *how) for name, how in _SETTINGS.items()})


def lattices(
    given: np.lib.npyio.NpzFile, edge: tuple[float, float], correlation: float, power: float
) -> np.ndarray:
    """Return two vectors (columns, x and y) in pixels for each pattern, shape (ny, nx, 2, 2)."""
    expected = given["expected_px"][:, ::-1]  # rows are x of py4DSTEM
    spacing = float(np.hypot(*expected[0]))
    cube = py4DSTEM.DataCube(data=np.maximum(given["patterns"], 0) ** power)
    probe = cube.get_vacuum_probe(ROI=given["vacuum"], threshold=0.2)
    radius, *origin = probe.measure_disk(plot=False)
    probe.get_kernel(mode="sigmoid", origin=origin, radii=(edge[0] * radius, edge[1] * radius))
    found = cube.find_Bragg_disks(
        template=probe.kernel,
        corrPower=correlation,
        sigma_cc=1,
        subpixel="multicorr",
        upsample_factor=16,
        minRelativeIntensity=0.002,
        minPeakSpacing=0.6 * spacing,
        edgeBoundary=round(radius),
        maxNumPeaks=100,
    )
    x, y, *_ = found.measure_origin()
    found.calibration.set_origin((x, y))
    found.setcal(center=True, ellipse=False, pixel=False, rotate=False)
    strain = py4DSTEM.StrainMap(braggvectors=found)
    h, k = (n.ravel() for n in np.mgrid[-6:7, -6:7])
    places = np.outer(h, expected[0]) + np.outer(k, expected[1])
    *_, strain.braggdirections = index_bragg_directions(0, 0, *places.T, *expected)
    strain.fit_basis_vectors(mask=given["crystal"], max_peak_spacing=_FAR * spacing)
    names = (("g1y", "g2y"), ("g1x", "g2x"))
    slices = [[strain.g1g2_map.get_slice(name).data for name in row] for row in names]
    vectors = np.moveaxis(np.array(slices), (0, 1), (2, 3))
    vectors[~strain.mask] = np.nan
    return vectors


if __name__ == "__main__":
    main()
