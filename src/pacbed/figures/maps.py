"""Maps of strain, rotation, tilt and thickness, with their error bars and what may be wrong."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import BoundaryNorm, Colormap, ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from pacbed.examples.labels import display_unit
from pacbed.figures.style import PAGE, PAGE_HEIGHT, SYMBOLS, nice_length, paper_style
from pacbed.reading.maps.store import FLAGS, RELATIVE, StrainMap

ORIGIN: Literal["lower"] = "lower"
"""Rows are drawn in the order of ascending y, as those of patterns."""

NOTHING = "0.85"
"""Colour of points at which nothing is claimed."""

FLAG_COLOURS = ("#0072B2", "#56B4E9", "#D55E00", "0.6", "#E69F00", "#CC79A7")
"""One for each of :data:`pacbed.reading.maps.store.FLAGS` (Okabe and Ito)."""

WORDS = {
    "strain_xx": "strain xx",
    "strain_yy": "strain yy",
    "strain_xy": "strain xy",
    "relative_strain_xx": "relative strain xx",
    "relative_strain_yy": "relative strain yy",
    "relative_strain_xy": "relative strain xy",
    "rotation_deg": "rotation",
    "tilt_x_mrad": "tilt x",
    "tilt_y_mrad": "tilt y",
    "shift_x_px": "shift x",
    "shift_y_px": "shift y",
    "electrons": "electrons",
    "layers": "layers",
    "layers_probability": "probability of the layers",
    "chi2_per_pixel": "χ² per pixel",
    "flags": "flags",
}
"""Names of quantities for people."""

_STRAINS = ("strain_xx", "strain_yy", "strain_xy")
_TILTS = ("tilt_x_mrad", "tilt_y_mrad")
# What has one scale, so that it can be compared.
_SHARED = (_STRAINS, RELATIVE, _TILTS, ("shift_x_px", "shift_y_px"))
# Colours of what is neither symmetric about zero nor an error.
_COLOURS = {"layers_probability": "viridis", "chi2_per_pixel": "magma", "electrons": "cividis"}
# Part of the values that a colour scale covers.
_COVERED = 0.99
# Lengths in inches: margins, between panels, above a panel, under it for a bar, thickness of a bar.
_SIDE, _BETWEEN, _ABOVE, _BELOW, _BAR, _TOP = 0.08, 0.1, 0.2, 0.44, 0.07, 0.26
_LOWEST = 0.3


@dataclass(frozen=True)
class Look:
    """How the values of a quantity become colours.

    Parameters
    ----------
    colours
        Colour map.
    norm
        From values, in the unit shown, to colours.
    extend
        Ends beyond which there are values, as of a colour bar.
    """

    colours: Colormap
    norm: Normalize
    extend: str = "neither"


def shown_values(strain_map: StrainMap, name: str) -> np.ndarray:
    """Return a quantity in the unit shown; not a number where nothing is claimed.

    Of flags, the number of the lowest bit that is set; not a number if none is.
    """
    if name == "flags":
        return _first_flag(strain_map)
    values = display_unit(name)[0] * strain_map.values[name].astype(float)
    if name == "layers":
        values = np.where(values > 0, values, np.nan)
    return np.asarray(values)


def diverging(*values: np.ndarray) -> Look:
    """Return the look of quantities that share a scale symmetric about zero."""
    finite = np.concatenate([np.abs(one[np.isfinite(one)]).ravel() for one in values])
    most = float(np.quantile(finite, _COVERED)) if len(finite) else 0.0
    end = _rounded_up(most) if most > 0 else 1.0
    return _look("RdBu_r", -end, end, *values)


def ascending(*values: np.ndarray, from_zero: bool = True, colours: str = "viridis") -> Look:
    """Return the look of quantities that share a scale with one direction."""
    finite = np.concatenate([one[np.isfinite(one)].ravel() for one in values])
    if not len(finite):
        return _look(colours, 0.0, 1.0)
    low, high = np.quantile(finite, [1 - _COVERED, _COVERED])
    low, high = (0.0, _rounded_up(high)) if from_zero else (float(low), float(high))
    if not high > low:
        low, high = low - 0.5 * abs(low or 1), high + 0.5 * abs(high or 1)
    return _look(colours, low, high, *values)


def of_layers(layers: np.ndarray) -> Look:
    """Return the look of numbers of layers: one colour each."""
    finite = layers[np.isfinite(layers)]
    low, high = (int(finite.min()), int(finite.max())) if len(finite) else (1, 1)
    count = high - low + 1
    colours = colormaps["viridis"].resampled(count)
    return Look(colours, BoundaryNorm(np.arange(low, high + 2) - 0.5, count))


def _first_flag(strain_map: StrainMap) -> np.ndarray:
    found = np.full(strain_map.shape, np.nan)
    for number, bit in reversed(list(enumerate(FLAGS))):
        found[strain_map.flagged(bit)] = number
    return found


def map_figure(strain_map: StrainMap, *, relative: bool = False) -> Figure:
    """Draw a map: strain, rotation, tilt, layers, dose, χ² and flags.

    Standard deviations are those of the points, without the part that all have in common.

    Parameters
    ----------
    strain_map
        What is drawn.
    relative
        Draw strain relative to the reference region.
    """
    strains = RELATIVE if relative else _STRAINS
    shown = {name: shown_values(strain_map, name) for name in strain_map.values}
    sigmas = [f"{name}_sigma" for name in (*_STRAINS, "rotation_deg", *_TILTS)]
    names = [*strains, "layers", *sigmas[:3], "chi2_per_pixel"]
    names += ["rotation_deg", *_TILTS, "electrons", *sigmas[3:], "flags"]
    with paper_style():
        figure, panels = _panels(strain_map)
        for letter, name, panel in zip("abcdefghijklmnop", names, panels, strict=True):
            panel.set_title(f"({letter}) {_title(name, shown)}", loc="left", pad=3)
        for _, pairs in groupby(zip(names, panels, strict=True), lambda pair: sharing(pair[0])):
            group = dict(pairs)
            known = [_values(name, shown, strain_map) for name in group if name in shown]
            if not known:
                continue
            first = next(iter(group))
            look = look_of(first, known)
            for name, panel in group.items():
                _draw(panel, _values(name, shown, strain_map), look)
                if name == "flags":
                    panel.set_facecolor("white")
            _bar(figure, [*group.values()], look, first)
        _scale_bar(panels[0], strain_map)
        height = figure.get_size_inches()[1]
        figure.text(
            _SIDE / PAGE, 1 - 0.06 / height, _heading(strain_map), ha="left", va="top", fontsize=7
        )
    return figure


def sharing(name: str) -> tuple[str, ...]:
    """Return the quantities that have one scale with a quantity, it among them."""
    plain = name.removesuffix("_sigma")
    group = next((one for one in _SHARED if plain in one), (plain,))
    return tuple(one + name.removeprefix(plain) for one in group)


def look_of(name: str, values: Sequence[np.ndarray]) -> Look:
    """Return the look of a quantity.

    Parameters
    ----------
    name
        Of the quantity.
    values
        Of all quantities of :func:`sharing`, in the unit shown; of rotation, the difference from
        its :func:`middle`.
    """
    if name.endswith("_sigma"):
        return ascending(*values)
    if name == "layers":
        return of_layers(values[0])
    if name == "flags":
        edges = np.arange(len(FLAGS) + 1) - 0.5
        return Look(ListedColormap(FLAG_COLOURS), BoundaryNorm(edges, len(FLAGS)))
    if name in _COLOURS:
        return ascending(*values, from_zero=False, colours=_COLOURS[name])
    return diverging(*values)


def _values(name: str, shown: dict[str, np.ndarray], strain_map: StrainMap) -> np.ndarray:
    values = shown.get(name, np.full(strain_map.shape, np.nan))
    return values - middle(values) if name == "rotation_deg" else values


def middle(values: np.ndarray) -> float:
    """Return the median of what is claimed, 0 if nothing is, with two decimals."""
    return round(float(np.nanmedian(values)), 2) if np.isfinite(values).any() else 0.0


def _title(name: str, shown: dict[str, np.ndarray]) -> str:
    plain = name.removesuffix("_sigma")
    symbol = SYMBOLS.get(plain.removeprefix("relative_"), WORDS[plain])
    if plain.startswith("relative_"):
        symbol = rf"{symbol} $-$ reference"
    if name.endswith("_sigma"):
        return rf"$\sigma$ of {symbol}"
    if name == "rotation_deg" and name in shown:
        return rf"{symbol} $-$ ({middle(shown[name]):.2f}°)"
    return symbol


def _label(name: str) -> str:
    plain = name.removesuffix("_sigma")
    unit = display_unit(name)[1]
    if "strain" in plain:
        words = "strain"
    elif plain in _TILTS:
        words = "tilt"
    elif plain == "rotation_deg":
        words = "rotation"
    else:
        words = {"electrons": "electrons per pattern", "flags": ""}.get(plain, WORDS[plain])
    words = rf"$\sigma$ of {words}" if name.endswith("_sigma") else words
    return f"{words} ({unit})" if unit else words


def _panels(strain_map: StrainMap) -> tuple[Figure, list[Axes]]:
    """Return a figure with four rows of four panels."""
    ny, nx = strain_map.shape
    width = (PAGE - 2 * _SIDE - 3 * _BETWEEN) / 4
    highest = (PAGE_HEIGHT - _TOP) / 4 - _ABOVE - _BELOW
    height = min(max(width * ny / nx, _LOWEST), highest)
    total = _TOP + 4 * (height + _ABOVE + _BELOW)
    figure = Figure(figsize=(PAGE, total))
    panels = []
    for row, column in np.ndindex(4, 4):
        left = _SIDE + column * (width + _BETWEEN)
        bottom = total - _TOP - row * (height + _ABOVE + _BELOW) - _ABOVE - height
        place = left / PAGE, bottom / total, width / PAGE, height / total
        panels.append(figure.add_axes(place))
    return figure, panels


def _draw(panel: Axes, values: np.ndarray, look: Look) -> None:
    ny, nx = values.shape
    aspect: Any = "auto" if ny < nx / 8 else "equal"
    panel.imshow(
        values,
        origin=ORIGIN,
        cmap=look.colours,
        norm=look.norm,
        interpolation="nearest",
        aspect=aspect,
    )
    panel.set(xticks=[], yticks=[], facecolor=NOTHING)


def _bar(figure: Figure, panels: list[Axes], look: Look, name: str) -> None:
    """Draw the colour bar of some panels beneath them; one of them shows this quantity."""
    if name == "flags":
        _flag_key(figure, panels[0])
        return
    inches = figure.get_size_inches()
    left = panels[0].get_position().x0
    right = panels[-1].get_position().x1
    bottom = panels[0].get_position().y0 - (0.04 + _BAR) / inches[1]
    indent = 0.25 * (right - left) if len(panels) == 3 else 0.08 * (right - left)
    place = left + indent, bottom, right - left - 2 * indent, _BAR / inches[1]
    axes = figure.add_axes(place)
    bar = figure.colorbar(
        ScalarMappable(look.norm, look.colours),
        cax=axes,
        orientation="horizontal",
        extend=look.extend,
    )
    bar.outline.set_linewidth(0.4)
    if isinstance(look.norm, BoundaryNorm):
        low, high = (math.ceil(look.norm.vmin or 0), math.floor(look.norm.vmax or 0))
        bar.set_ticks(range(low, high + 1, 1 + (high - low) // 6))
        bar.ax.minorticks_off()
    else:
        bar.ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
        bar.ax.xaxis.set_major_formatter("{x:g}")
    bar.ax.tick_params(length=2, pad=1.5, labelsize=6)
    bar.set_label(_label(name), labelpad=1, fontsize=7)


def _flag_key(figure: Figure, panel: Axes) -> None:
    """Say beneath a panel which colour is which flag."""
    box, inches = panel.get_position(), figure.get_size_inches()
    for number, (colour, words) in enumerate(zip(FLAG_COLOURS, FLAGS.values(), strict=True)):
        x = box.x0 + (number % 2) * 0.5 * box.width
        y = box.y0 - (0.09 + 0.1 * (number // 2)) / inches[1]
        short = words.split(" or ")[0].replace(" by 180 degrees undetermined", " by 180°?")
        short = short.replace("at the edge of the range", "at the edge").replace("chi2", "χ²")
        figure.text(x, y, "■", color=colour, fontsize=5, va="center")
        figure.text(x + 0.08 / inches[0], y, short, fontsize=5, va="center")


def _scale_bar(panel: Axes, strain_map: StrainMap) -> None:
    """Draw a bar of a round length in the lower left corner."""
    ny, nx = strain_map.shape
    step = strain_map.step
    if nx < 3 or ny < 3:
        return
    length = nice_length(0.4 * nx * step)
    left, bottom = 0.05 * nx - 0.5, 0.06 * ny - 0.5
    edge = [withStroke(linewidth=3.5, foreground="white")]
    panel.plot(
        [left, left + length / step],
        [bottom, bottom],
        color="black",
        lw=2,
        solid_capstyle="butt",
        path_effects=edge,
    )
    panel.text(
        left,
        bottom + 0.03 * ny,
        f"{length:g} {strain_map.coordinate_units}",
        va="bottom",
        fontsize=6,
        path_effects=[withStroke(linewidth=1.5, foreground="white")],
    )
    panel.set(xlim=(-0.5, nx - 0.5), ylim=(-0.5, ny - 0.5))


def _heading(strain_map: StrainMap) -> str:
    """Return what was measured, in a line."""
    known = strain_map.attributes
    parts = []
    if "material" in known:
        parts.append(_formula(str(known["material"])))
    for name, unit in (("energy_keV", "keV"), ("semiangle_mrad", "mrad")):
        if known.get(name):
            parts.append(f"{float(known[name]):.4g} {unit}")
    ny, nx = strain_map.shape
    parts.append(f"{ny} × {nx} points")
    if strain_map.coordinate_units == "nm":
        parts.append(f"{strain_map.step:.3g} nm apart")
    parts += [axes_in_words(strain_map), "grey: nothing is claimed"]
    return ", ".join(filter(None, parts))


def axes_in_words(strain_map: StrainMap) -> str:
    """Return what x and y of strain and tilt are; empty if the map does not say it."""
    known = strain_map.attributes
    names = {"crystal": known.get("crystal_axes"), "scan": ("right", "up")}.get(
        str(known.get("axes"))
    )
    return f"x {names[0]}, y {names[1]}" if names else ""


def _formula(material: str) -> str:
    return re.sub(r"(?<=[A-Za-z])\d+", r"$_{\g<0>}$", material)


def _look(colours: str, low: float, high: float, *values: np.ndarray) -> Look:
    margin = 1e-9 * (high - low)
    under = any((one < low - margin).any() for one in values)
    over = any((one > high + margin).any() for one in values)
    ends = {(False, False): "neither", (True, False): "min", (False, True): "max"}
    return Look(colormaps[colours], Normalize(low, high), ends.get((under, over), "both"))


def _rounded_up(value: float) -> float:
    """Round up to two digits of which the second is even or five, so that scales end well."""
    power = 10.0 ** math.floor(math.log10(value))
    steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10)
    return float(next(s for s in steps if s * power >= value * (1 - 1e-9)) * power)
