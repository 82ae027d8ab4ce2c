"""The page on which one looks at a map: what it shows, and what clicks on it do."""

from __future__ import annotations

import math
import threading
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import BoundaryNorm, Colormap, Normalize, to_hex

from pacbed.examples.labels import display_unit
from pacbed.exceptions import PacbedError
from pacbed.figures.map_report import warnings
from pacbed.figures.maps import (
    FLAG_COLOURS,
    WORDS,
    Look,
    axes_in_words,
    look_of,
    middle,
    sharing,
    shown_values,
)
from pacbed.figures.page import environment, number
from pacbed.reading.maps.store import FLAGS, QUANTITIES, RELATIVE, StrainMap

if TYPE_CHECKING:
    from bokeh.document import Document
    from bokeh.plotting import figure

    from pacbed.reading.maps.points import PointPattern, PointPatterns

_PANELS = ("strain_xx", "strain_yy", "rotation_deg", "tilt_x_mrad")
_INK, _SOFT, _LINE, _ACCENT, _GREY = "#1a1f27", "#545d6a", "#d6dbe2", "#0b5a8a", "#d9d9d9"
# Width over height of a map that is drawn; a longer one has a margin.
_WIDEST, _NARROWEST = 2.5, 0.6
_SIGMAS = 5.0

_SHEET = f"""
:host {{ font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, Arial, sans-serif;
  color: {_INK}; width: 100%; }}
.bk-clearfix {{ width: 100%; }}
.soft {{ color: {_SOFT}; }}
.key {{ display: grid; grid-template-columns: auto 1fr auto auto; gap: 6px; align-items: center;
  font-size: 12px; color: {_SOFT}; font-variant-numeric: tabular-nums; }}
.key i {{ height: 8px; border-radius: 2px; }}
.key b {{ font-weight: 400; }}
.flags {{ display: flex; flex-wrap: wrap; gap: 0 8px; font-size: 11px; color: {_SOFT}; }}
.flags i {{ display: inline-block; width: 8px; height: 8px; border-radius: 2px;
  margin-right: 3px; }}
table {{ border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }}
td, th {{ padding: 3px 6px 3px 0; border-bottom: 1px solid {_LINE}; text-align: right;
  white-space: nowrap; font-weight: 400; }}
th {{ text-align: left; }}
td.unit {{ color: {_SOFT}; text-align: left; width: 3em; }}
p {{ margin: 0 0 6px; }}
.warn {{ color: #8a3b00; }}
label, .bk-input-group label {{ color: {_SOFT}; font-size: 12px; }}
.bk-input {{ font: inherit; color: inherit; border: 1px solid {_LINE}; border-radius: 5px;
  padding: 2px 6px; height: 30px; background-color: #fff; }}
.bk-btn {{ font: inherit; padding: 3px 10px; border-radius: 5px; }}
"""


class MapPage:
    """The page of a map: one for each window of a browser.

    Parameters
    ----------
    strain_map
        What is shown.
    name
        Of the map.
    patterns
        Its patterns, if they are there.
    missing
        Why they are not.
    """

    def __init__(
        self, strain_map: StrainMap, name: str, patterns: PointPatterns | None, missing: str
    ) -> None:
        from bokeh.models import ColumnDataSource, InlineStyleSheet, Range1d

        self.map, self.name, self.patterns, self.missing = strain_map, name, patterns, missing
        self.sheet = InlineStyleSheet(css=_SHEET)
        self.shown = [n for n in WORDS if n in strain_map.values or n == "flags"]
        self._set_extent()
        self.x_range = Range1d(*self.x_ends)
        self.y_range = Range1d(*self.y_ends)
        # The point that was clicked, and the line of the profile.
        self.point = ColumnDataSource({"x": [], "y": []})
        self.line = ColumnDataSource({"x": [], "y": []})
        self.ends: list[tuple[int, int]] = []
        self._asked = 0
        self._busy = threading.Lock()

    # The page.

    def add_to(self, document: Document) -> None:
        """Put the page into a document."""
        from bokeh.models import CustomJS

        self.document = document
        panels = [self._panel(number) for number in range(len(_PANELS))]
        figures = [panel[1] for panel in panels]
        roots = [part for panel in panels for part in panel]
        roots += [*self._choices(), *self._point_parts(), *self._distributions()]
        for root in roots:
            document.add_root(root)
        # A finger that moves over a map on a phone scrolls the page.
        document.js_on_event(
            "document_ready",
            CustomJS(
                args={"figures": figures},
                code="""
                if (window.matchMedia("(pointer: coarse)").matches)
                    for (const one of figures) one.toolbar.active_drag = null;
                document.body.dataset.ready = "yes";
                """,
            ),
        )
        document.title = f"{self.name} – pacbed"
        document.template = environment().get_template("map_view.html.j2")
        known = self.map.attributes
        document.template_variables.update(
            name=self.name,
            known=known,
            shape=self.map.shape,
            step=self.map.step,
            step_unit=self.map.coordinate_units,
            axes=axes_in_words(self.map),
            warnings=warnings(self.map),
            missing=self.missing,
            panels=len(_PANELS),
            relative=any(name in self.map.values for name in RELATIVE),
        )
        self._choose_focus()

    def _set_extent(self) -> None:
        """Set where the map lies, and a field around it that is not too long."""
        ny, nx = self.map.shape
        step = self.map.step
        self.corner = float(self.map.x_nm[0]) - step / 2, float(self.map.y_nm[0]) - step / 2
        self.size = nx * step, ny * step
        ratio = self.size[0] / self.size[1]
        self.ratio = min(max(ratio, _NARROWEST), _WIDEST)
        width = max(self.size[0], self.size[1] * self.ratio)
        height = max(self.size[1], self.size[0] / self.ratio)
        middle = [c + s / 2 for c, s in zip(self.corner, self.size, strict=True)]
        self.x_ends = middle[0] - width / 2, middle[0] + width / 2
        self.y_ends = middle[1] - height / 2, middle[1] + height / 2

    # Maps.

    def _panel(self, place: int) -> tuple[Any, Any, Any]:
        """Return the choice of a quantity, its map and its key."""
        from bokeh.models import Select

        name = _PANELS[place] if _PANELS[place] in self.map.values else self.shown[0]
        choice = Select(
            title=f"map {place + 1}",
            value=name,
            options=self._options(),
            sizing_mode="stretch_width",
            name=f"choice{place}",
            margin=0,
            stylesheets=[self.sheet],
        )
        key = self._div(f"key{place}")
        drawn, source, mapper, hover = self._map(place)

        def show(_attribute: str, _old: str, new: str) -> None:
            self._show(new, source, mapper, hover, key)

        choice.on_change("value", show)
        show("value", "", name)
        return choice, drawn, key

    def _options(self) -> list[tuple[str, str]]:
        sigmas = [f"{n}_sigma" for n in QUANTITIES if f"{n}_sigma" in self.map.values]
        return [(name, _words(name)) for name in (*self.shown, *sigmas)]

    def _map(self, place: int) -> tuple[Any, Any, Any, Any]:
        from bokeh.events import DoubleTap, Tap
        from bokeh.models import ColumnDataSource, CustomJSHover, HoverTool, LinearColorMapper

        drawn = self._plain_figure(
            f"map{place}",
            width=320,
            height=round(320 / self.ratio),
            x_range=self.x_range,
            y_range=self.y_range,
            tools="pan,wheel_zoom,box_zoom,reset,save",
        )
        for tool in drawn.tools:
            if tool.__class__.__name__ == "BoxZoomTool":
                tool.match_aspect = True
        source = ColumnDataSource({"image": [], "sigma": [], "layers": []})
        mapper = LinearColorMapper(palette=["#000000"], low=0, high=1, nan_color=_GREY)
        image = drawn.image(
            image="image",
            x=self.corner[0],
            y=self.corner[1],
            dw=self.size[0],
            dh=self.size[1],
            color_mapper=mapper,
            source=source,
        )
        plain = CustomJSHover(
            code="return isNaN(value) ? '–' : String(+value.toPrecision(3)).replace('-', '−')"
        )
        hover = HoverTool(
            renderers=[image],
            formatters={f"@{n}": plain for n in ("image", "sigma")},
            point_policy="follow_mouse",
        )
        drawn.add_tools(hover)
        drawn.line("x", "y", source=self.line, color=_INK, width=2)
        drawn.scatter("x", "y", source=self.line, color=_INK, fill_color="white", size=6)
        for colour, width in (("white", 4), (_INK, 2)):
            drawn.scatter(
                "x", "y", source=self.point, marker="square", size=11, line_color=colour,
                line_width=width, fill_color=None,
            )  # fmt: skip
        # A click soon after another one is a double one, wherever it is.
        for event in (Tap, DoubleTap):
            drawn.on_event(event, self._tapped)
        if place == 0:
            self._add_scale_bar(drawn)
        return drawn, source, mapper, hover

    def _plain_figure(self, name: str, **options: Any) -> figure:
        from bokeh.plotting import figure

        drawn = figure(
            name=name,
            toolbar_location="above",
            toolbar_inner=True,
            sizing_mode="scale_width",
            min_border=0,
            outline_line_color=_LINE,
            background_fill_color="#f4f6f9",
            active_drag="pan" if "pan" in options.get("tools", "") else None,
            active_scroll=None,
            **options,
        )
        drawn.toolbar.autohide = True
        drawn.toolbar.logo = None
        drawn.axis.visible = False
        drawn.grid.visible = False
        return drawn

    def _add_scale_bar(self, drawn: figure) -> None:
        from bokeh.models import ScaleBar

        if self.map.coordinate_units != "nm":
            return
        drawn.add_layout(
            ScaleBar(
                range=self.x_range,
                unit="nm",
                location="bottom_left",
                bar_length=0.25,
                label_text_font_size="11px",
                background_fill_alpha=0.75,
                border_line_color=None,
                padding=4,
                margin=4,
            )
        )

    def _show(self, name: str, source: Any, mapper: Any, hover: Any, key: Any) -> None:
        """Show a quantity in a map."""
        values, look = self._values_and_look(name)
        factor, unit = display_unit(name)
        sigma = None if name.endswith("_sigma") else self.map.sigma(name)
        none = np.full(self.map.shape, np.nan, np.float32)
        layers = self.map.values.get("layers", np.zeros(self.map.shape, np.int16))
        source.data = {
            "image": [values.astype(np.float32)],
            "sigma": [none if sigma is None else (factor * sigma).astype(np.float32)],
            "layers": [layers.astype(np.int32)],
        }
        palette = _palette(look.colours)
        low, high = _ends(look)
        mapper.update(palette=palette, low=low, high=high)
        value = "@image{custom}" + (" ± @sigma{custom}" if sigma is not None else "")
        tips = [(_words(name), f"{value} {unit}"), ("layers", "@layers")]
        if name == "flags":
            tips = [("layers", "@layers")]
        hover.tooltips = [*tips, ("x, y", f"$x{{0.0}}, $y{{0.0}} {self.map.coordinate_units}")]
        key.text = _flag_key() if name == "flags" else _key(palette, low, high, look, unit)

    def _values_and_look(self, name: str) -> tuple[np.ndarray, Look]:
        values = shown_values(self.map, name)
        if name == "rotation_deg":
            centre = middle(values)
            look = look_of(name, [values - centre])
            low, high = _ends(look)
            return values, replace(look, norm=Normalize(centre + low, centre + high))
        return values, look_of(name, [self._of(one) for one in sharing(name)])

    def _of(self, name: str) -> np.ndarray:
        known = name in self.map.values
        return shown_values(self.map, name) if known else np.zeros(0)

    def _div(self, name: str) -> Any:
        """Return what holds text."""
        from bokeh.models import Div

        return Div(name=name, sizing_mode="stretch_width", margin=0, stylesheets=[self.sheet])

    # What a click means.

    def _choices(self) -> tuple[Any, ...]:
        from bokeh.models import RadioButtonGroup, Select

        self.mode = RadioButtonGroup(
            labels=["shows its pattern", "ends a line profile"],
            active=0,
            name="mode",
            margin=0,
            stylesheets=[self.sheet],
        )
        options = [one for one in self._options() if one[0] != "flags"]
        self.focus = Select(
            title="histogram and profile of",
            value=options[0][0],
            options=options,
            sizing_mode="stretch_width",
            name="focus",
            margin=0,
            stylesheets=[self.sheet],
        )
        self.focus.on_change("value", lambda attr, old, new: self._choose_focus())
        return self.mode, self.focus

    def _tapped(self, event: Any) -> None:
        """Take a click on a map."""
        ny, nx = self.map.shape
        if event.x is None or event.y is None:
            return
        column = int((event.x - self.corner[0]) // self.map.step)
        row = int((event.y - self.corner[1]) // self.map.step)
        if not (0 <= row < ny and 0 <= column < nx):
            return
        if self.mode.active == 0:
            self.choose_point(row, column)
        else:
            self.choose_end(row, column)

    def _position(self, row: int, column: int) -> tuple[float, float]:
        return float(self.map.x_nm[column]), float(self.map.y_nm[row])

    # A point.

    def _point_parts(self) -> tuple[Any, ...]:
        from bokeh.models import ColumnDataSource, LinearColorMapper

        self.about = self._div("about")
        self.about.text = f'<p class="soft">{escape(self._hint())}</p>'
        self.images, self.mappers, drawn = [], [], []
        for title in ("measured", "fitted", "residuals"):
            one = self._plain_figure(
                title, width=300, height=300, x_range=(0, 1), y_range=(0, 1), tools=""
            )
            one.toolbar_location = None
            source = ColumnDataSource({"image": [], "dw": [], "dh": []})
            palette = _palette(colormaps["inferno"])
            mapper = LinearColorMapper(palette=palette, low=0, high=1, nan_color=_GREY)
            one.image(image="image", x=0, y=0, dw="dw", dh="dh", color_mapper=mapper, source=source)
            self.images.append((one, source))
            self.mappers.append(mapper)
            drawn.append(one)
        palette = _palette(colormaps["RdBu_r"])
        self.mappers[2].update(palette=palette, low=-_SIGMAS, high=_SIGMAS)
        self.status = self._div("status")
        return self.about, self.status, *drawn

    def _hint(self) -> str:
        if self.patterns is None:
            return "Click a point to see its values."
        return "Click a point to see its values, its pattern, the fit and what is left."

    def choose_point(self, row: int, column: int) -> None:
        """Show the values of a point, and its pattern as soon as it is computed."""
        x, y = self._position(row, column)
        self.point.data = {"x": [x], "y": [y]}
        self.about.text = self._described(row, column)
        if self.patterns is None:
            return
        self._asked += 1
        self.status.text = '<p class="soft">computing the fitted pattern …</p>'
        threading.Thread(target=self._compute, args=(self._asked, row, column), daemon=True).start()

    def _compute(self, asked: int, row: int, column: int) -> None:
        """Compute the pattern of a point, and show it if no other one was clicked meanwhile."""
        assert self.patterns is not None
        with self._busy:
            if asked != self._asked:
                return
            found: PointPattern | str
            try:
                found = self.patterns.at(row, column)
            except PacbedError as error:
                found = str(error)
            except Exception as error:  # what goes wrong is said on the page, not in a thread
                found = f"{type(error).__name__}: {error}"
        self.document.add_next_tick_callback(lambda: self._show_pattern(asked, found))

    def _show_pattern(self, asked: int, found: PointPattern | str) -> None:
        if asked != self._asked:
            return
        if isinstance(found, str):
            self.status.text = f'<p class="warn">{escape(found)}</p>'
            for _, source in self.images:
                source.data = {"image": [], "dw": [], "dh": []}
            return
        ny, nx = found.measured.shape
        shown = [np.cbrt(np.maximum(one, 0)) for one in (found.measured, found.fitted)]
        finite = shown[1][np.isfinite(shown[1])]
        top = float(finite.max()) if len(finite) else 1.0
        for mapper in self.mappers[:2]:
            mapper.update(low=0.0, high=max(top, 1e-6))
        for (drawn, source), values in zip(self.images, [*shown, found.residuals], strict=True):
            drawn.x_range.update(start=(nx - max(nx, ny)) / 2, end=(nx + max(nx, ny)) / 2)
            drawn.y_range.update(start=(ny - max(nx, ny)) / 2, end=(ny + max(nx, ny)) / 2)
            source.data = {"image": [values.astype(np.float32)], "dw": [nx], "dh": [ny]}
        electrons = float(np.nansum(found.measured))
        self.status.text = (
            f'<p class="soft">{number(electrons)} electrons in the pattern; measured and '
            f"fitted as cube roots, residuals from −{_SIGMAS:g} σ (blue) to {_SIGMAS:g} σ (red)</p>"
        )

    def _described(self, row: int, column: int) -> str:
        """Return all values of a point, with their standard deviations."""
        x, y = self._position(row, column)
        unit = self.map.coordinate_units
        lines = [f"<p>row {row}, column {column}; x = {x:g}, y = {y:g} {unit}</p>"]
        raised = [words for bit, words in FLAGS.items() if self.map.flagged(bit)[row, column]]
        if raised:
            words = ", ".join(raised).replace("chi2", "χ²")
            lines.append(f'<p class="warn">{escape(words)}</p>')
        if not self.map.claimed[row, column]:
            return "".join([*lines, '<p class="soft">Nothing is claimed here.</p>'])
        rows = []
        for name in self.shown:
            if name == "flags":
                continue
            factor, unit = display_unit(name)
            value = float(shown_values(self.map, name)[row, column])
            sigma = self.map.sigma(name)
            error = np.nan if sigma is None else factor * float(sigma[row, column])
            rows.append(
                f"<tr><th>{WORDS[name]}</th><td>{_with_error(value, error)}</td>"
                f'<td class="unit">{unit}</td></tr>'
            )
        return "".join([*lines, "<table>", *rows, "</table>"])

    # Histogram and profile.

    def _distributions(self) -> tuple[Any, Any, Any]:
        from bokeh.models import ColumnDataSource

        self.bars = ColumnDataSource({"left": [], "right": [], "top": []})
        histogram = self._axes_figure("histogram", "points")
        histogram.quad(
            left="left", right="right", top="top", bottom=0, source=self.bars,
            fill_color=_ACCENT, line_color="white", fill_alpha=0.85,
        )  # fmt: skip
        histogram.y_range.start = 0
        self.histogram = histogram
        self.band = ColumnDataSource({"xs": [], "ys": []})
        self.curve = ColumnDataSource({"x": [], "y": []})
        profile = self._axes_figure("profile", "")
        profile.patches(
            "xs", "ys", source=self.band, fill_color=_ACCENT, fill_alpha=0.22, line_color=None
        )
        profile.line("x", "y", source=self.curve, color=_ACCENT, width=1.5)
        profile.scatter("x", "y", source=self.curve, color=_ACCENT, size=3)
        profile.xaxis.axis_label = f"distance ({self.map.coordinate_units})"
        self.profile = profile
        self.profile_note = self._div("profile_note")
        return histogram, profile, self.profile_note

    def _axes_figure(self, name: str, y_label: str) -> figure:
        from bokeh.plotting import figure

        drawn = figure(
            name=name,
            width=560,
            height=300,
            sizing_mode="scale_width",
            tools="pan,box_zoom,reset,save",
            active_drag=None,
            toolbar_location="above",
            toolbar_inner=True,
            outline_line_color=None,
            background_fill_color=None,
            border_fill_color=None,
        )
        drawn.toolbar.autohide = True
        drawn.toolbar.logo = None
        drawn.grid.grid_line_color = _LINE
        drawn.axis.axis_line_color = _SOFT
        drawn.axis.major_tick_line_color = _SOFT
        drawn.axis.minor_tick_line_color = None
        drawn.axis.major_label_text_color = _SOFT
        drawn.axis.axis_label_text_color = _SOFT
        drawn.axis.axis_label_text_font_style = "normal"
        drawn.yaxis.axis_label = y_label
        return drawn

    def _choose_focus(self) -> None:
        """Show histogram and profile of the chosen quantity."""
        name = self.focus.value
        unit = display_unit(name)[1]
        label = f"{_words(name)} ({unit})" if unit else _words(name)
        values = self._of(name)
        finite = values[np.isfinite(values)]
        if len(finite):
            low, high = np.quantile(finite, [0.002, 0.998])
            if name == "layers":
                edges = np.arange(finite.min(), finite.max() + 2) - 0.5
            else:
                high = high if high > low else low + 1
                edges = np.linspace(low, high, int(np.clip(np.sqrt(len(finite)), 10, 60)) + 1)
            counts = np.histogram(finite, edges)[0]
            self.bars.data = {"left": edges[:-1], "right": edges[1:], "top": counts}
        else:
            self.bars.data = {"left": [], "right": [], "top": []}
        self.histogram.xaxis.axis_label = label
        self.profile.yaxis.axis_label = label
        self._draw_profile()

    def choose_end(self, row: int, column: int) -> None:
        """Take an end of the line profile; a third one begins another line."""
        if self.ends[-1:] == [(row, column)]:
            return
        self.ends = [*self.ends, (row, column)] if len(self.ends) == 1 else [(row, column)]
        at = [self._position(*end) for end in self.ends]
        self.line.data = {"x": [x for x, _ in at], "y": [y for _, y in at]}
        self._draw_profile()

    def _draw_profile(self) -> None:
        name = self.focus.value
        if len(self.ends) < 2:
            words = (
                "Click the other end of the line."
                if self.ends
                else "Choose “ends a line profile”, then click two points of a map."
            )
            self.profile_note.text = f'<p class="soft">{words}</p>'
            self.band.data, self.curve.data = {"xs": [], "ys": []}, {"x": [], "y": []}
            return
        distance, values, sigma = profile(self.map, name, *self.ends)
        self.curve.data = {"x": distance, "y": values}
        self.band.data = _band(distance, values, sigma)
        self.profile_note.text = (
            '<p class="soft">The band is one standard deviation of a point.</p>'
            if np.isfinite(sigma).any()
            else ""
        )


def profile(
    strain_map: StrainMap, name: str, start: tuple[int, int], end: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a quantity on the points nearest a line, in the unit shown.

    Parameters
    ----------
    start, end
        Row and column of the ends of the line.

    Returns
    -------
    tuple of numpy.ndarray
        Distances from the start in units of the positions; values; their standard deviations. Not a
        number where nothing is claimed.
    """
    count = max(abs(end[0] - start[0]), abs(end[1] - start[1])) + 1
    rows, columns = (
        np.rint(np.linspace(a, b, count)).astype(int) for a, b in zip(start, end, strict=True)
    )
    length = np.hypot(end[0] - start[0], end[1] - start[1]) * strain_map.step
    sigma = strain_map.sigma(name)
    spread = (
        np.full(count, np.nan)
        if sigma is None
        else display_unit(name)[0] * sigma[rows, columns].astype(float)
    )
    return np.linspace(0, length, count), shown_values(strain_map, name)[rows, columns], spread


def _band(distance: np.ndarray, values: np.ndarray, sigma: np.ndarray) -> dict[str, list[Any]]:
    """Return the outlines of the error band, one for each piece without a gap."""
    known = np.isfinite(values) & np.isfinite(sigma)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], known.astype(int), [0]])))
    xs, ys = [], []
    for first, last in edges.reshape(-1, 2):
        part = slice(first, last)
        x, low, high = distance[part], (values - sigma)[part], (values + sigma)[part]
        xs.append(np.concatenate([x, x[::-1]]))
        ys.append(np.concatenate([low, high[::-1]]))
    return {"xs": xs, "ys": ys}


def _words(name: str) -> str:
    plain = WORDS[name.removesuffix("_sigma")]
    return f"σ of {plain}" if name.endswith("_sigma") else plain


# Colours.


def _palette(colours: Colormap) -> list[str]:
    return [to_hex(colours(position)) for position in np.linspace(0, 1, min(colours.N, 256))]


def _ends(look: Look) -> tuple[float, float]:
    return float(look.norm.vmin or 0), float(look.norm.vmax or 0)


def _key(palette: list[str], low: float, high: float, look: Look, unit: str) -> str:
    """Return the key of a scale: its ends, and the colours between them."""
    if isinstance(look.norm, BoundaryNorm):
        numbers = range(round(low + 0.5), round(high + 0.5))
        parts = [
            f'<span><i style="background:{palette[min(n, len(palette) - 1)]}"></i>{layers}</span>'
            for n, layers in enumerate(numbers)
        ]
        return f'<div class="flags">{"".join(parts)}</div>'
    stops = ",".join(palette[:: max(1, len(palette) // 16)])
    return (
        f'<div class="key"><b>{_short(low)}</b><i style="background:linear-gradient(to right,'
        f'{stops})"></i><b>{_short(high)}</b><b>{unit}</b></div>'
    )


def _flag_key() -> str:
    parts = [
        f'<span><i style="background:{to_hex(colour)}"></i>'
        f"{escape(words.replace('chi2', 'χ²'))}</span>"
        for colour, words in zip(FLAG_COLOURS, FLAGS.values(), strict=True)
    ]
    return f'<div class="flags">{"".join(parts)}</div>'


def _with_error(value: float, error: float) -> str:
    """Return a value and its standard deviation with as many decimals as that has two digits."""
    if not (np.isfinite(error) and error > 0 and np.isfinite(value)):
        return _short(value)
    decimals = max(0, 1 - math.floor(math.log10(error)))
    text = f"{value:,.{decimals}f} ± {error:,.{decimals}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _short(value: float) -> str:
    """Return a number with three digits and a true minus sign."""
    if not np.isfinite(value):
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return text.replace("-", "\N{MINUS SIGN}")
