"""What a scan looks like before anything is fitted."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Circle

from pacbed.figures.style import PAGE, paper_style
from pacbed.reading.scans.overview import Overview
from pacbed.reading.scans.scan import Scan

# Numbers are drawn to this power: discs and background are seen together.
_POWER = 1 / 4
# Values brighter than this part of all are drawn as bright as it: hot pixels.
_BRIGHTEST = 99.95
_COLOUR = "#D55E00"


def overview_figure(scan: Scan, overview: Overview) -> Figure:
    """Draw the mean pattern, the electrons within its central disc, and some patterns."""
    with paper_style():
        figure = Figure(figsize=(PAGE, 0.72 * PAGE), layout="constrained")
        upper, lower = figure.subfigures(2, 1, squeeze=False, height_ratios=[2, 1.05])[:, 0]
        mean, image = upper.subplots(1, 2)
        drawn = _pattern(mean, scan, overview, overview.mean)
        highest = drawn.get_clim()[1] or 1.0
        decades = 10.0 ** (np.floor(np.log10(highest)) - np.arange(4))
        bar = upper.colorbar(drawn, ax=mean, label="counts", format="{x:g}")
        bar.set_ticks([0, *decades])
        mean.add_patch(Circle(*_circle(scan, overview), fill=False, color=_COLOUR, lw=0.8, ls="--"))
        mean.set_title("mean pattern")
        upper.colorbar(_virtual(image, scan, overview), ax=image, label="counts")
        for panel, (row, column), one in zip(
            lower.subplots(1, len(overview.patterns)),
            overview.places,
            overview.patterns,
            strict=True,
        ):
            _pattern(panel, scan, overview, one)
            panel.set(xlabel="", ylabel="", xticks=[], yticks=[])
            panel.set_title(f"row {row}, column {column}", fontsize="small")
        title = ": ".join(filter(None, (scan.name, _applied(scan))))
        figure.suptitle(title, fontsize="medium", parse_math=False)
    return figure


def _pattern(panel: Axes, scan: Scan, overview: Overview, values: np.ndarray) -> AxesImage:
    """Draw a pattern with axes of angles, or of pixels if their size is not known."""
    ky, kx = values.shape
    pixel, (x, y) = scan.pixel_mrad or 1.0, overview.centre_px if scan.pixel_mrad else (0, 0)
    extent = (
        (-0.5 - x) * pixel,
        (kx - 0.5 - x) * pixel,
        (-0.5 - y) * pixel,
        (ky - 0.5 - y) * pixel,
    )
    highest = max(float(np.nanpercentile(values, _BRIGHTEST)), 1e-30)
    units = "mrad" if scan.pixel_mrad else "pixels"
    panel.set(xlabel=f"x ({units})", ylabel=f"y ({units})", facecolor="0.85")
    return panel.imshow(
        np.maximum(values, 0),
        origin="lower",
        extent=extent,
        norm=PowerNorm(_POWER, 0, highest, clip=True),
        interpolation="nearest",
    )


def _circle(scan: Scan, overview: Overview) -> tuple[tuple[float, float], float]:
    if scan.pixel_mrad:
        return (0.0, 0.0), overview.radius_px * scan.pixel_mrad
    return overview.centre_px, overview.radius_px


def _virtual(panel: Axes, scan: Scan, overview: Overview) -> AxesImage:
    """Draw the electrons within the central disc, and where the single patterns are."""
    step = scan.step_nm or 1.0
    x0, y0, *_ = scan.options.area or (0, 0)
    wide, high = (n * overview.stride * step for n in overview.bright.shape[::-1])
    left, low = ((at - 0.5) * step for at in (x0, y0))
    drawn = panel.imshow(
        overview.bright,
        origin="lower",
        extent=(left, left + wide, low, low + high),
        cmap="gray",
        interpolation="nearest",
    )
    at = overview.places[:, ::-1] + np.array([x0, y0])
    panel.plot(*(at * step).T, "+", color=_COLOUR, ms=7)
    units = "nm" if scan.step_nm else "points"
    panel.set(xlabel=f"x ({units})", ylabel=f"y ({units})", facecolor="0.85")
    panel.set_title("virtual bright field")
    return drawn


def _applied(scan: Scan) -> str:
    """Return what was done to the patterns, in words."""
    o = scan.options
    done = [
        "mirrored" if o.mirrored else "",
        "columns reversed" if o.flip_x else "",
        "rows reversed" if o.flip_y else "",
        "transposed" if o.transpose else "",
        f"turned by {o.turn_deg}°" if o.turn_deg else "",
        f"crop {' '.join(map(str, o.crop_px))}" if o.crop_px else "",
        f"{o.bins} × {o.bins} pixels put together" if o.bins > 1 else "",
    ]
    return ", ".join(filter(None, done))
