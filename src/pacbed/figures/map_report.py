"""One self-contained page about a map: what was found, how sure, and how it was made."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pacbed.examples.labels import PLAIN_SYMBOLS, display_unit
from pacbed.figures.maps import WORDS, axes_in_words, map_figure, shown_values
from pacbed.figures.page import embedded, environment, versions
from pacbed.figures.style import drawn, layers_label
from pacbed.reading.maps.store import BITS, FLAGS, QUANTITIES, RELATIVE, StrainMap
from pacbed.storage.files import write_text
from pacbed.storage.nested import flat

# Parts of the points that carry a flag, and of those with a probable thickness, worth a warning.
_MANY_FLAGGED, _PROBABLE = 0.05, 0.9
_FAILED = BITS["not converged"] | BITS["at the edge of the range"] | BITS["bad chi2"]
_DOTS_PER_INCH = 200


def write_map_report(path: Path, strain_map: StrainMap) -> None:
    """Write the page. It needs nothing but itself: no network, no other file.

    Parameters
    ----------
    path
        The HTML file; it appears whole or not at all.
    strain_map
        What it is about.

    Raises
    ------
    PacbedError
        If the page cannot be written.
    """
    known = strain_map.attributes
    provenance = known.get("provenance") or {}
    claimed = strain_map.claimed
    page = (
        environment()
        .get_template("map_report.html.j2")
        .render(
            scan=Path(str(provenance.get("scan") or "scan")).name,
            known=known,
            shape=strain_map.shape,
            step=strain_map.step,
            step_unit=strain_map.coordinate_units,
            claimed=int(claimed.sum()),
            points=claimed.size,
            sigma_xx=100 * _median(strain_map.values.get("strain_xx_sigma")),
            chi2=_median(strain_map.values.get("chi2_per_pixel")),
            layers=_layers_in_words(strain_map),
            warnings=warnings(strain_map),
            figure=_picture(strain_map),
            rows=_rows(strain_map),
            regions=_regions(strain_map),
            flags=_flags(strain_map),
            calibration=_calibration(known.get("calibration") or {}),
            facts=_facts(known, provenance, axes_in_words(strain_map)),
            versions=versions(),
        )
    )
    write_text(path, page)


def warnings(strain_map: StrainMap) -> list[str]:
    """Return what a reader of a map should know before believing it."""
    known, claimed = strain_map.attributes, strain_map.claimed
    found = [str(one) for one in known.get("warnings") or ()]
    if not claimed.any():
        return ["Nothing is claimed anywhere: the scan holds vacuum, or no fit succeeded.", *found]
    failed = (strain_map.flagged(_FAILED) & claimed).sum() / claimed.sum()
    if failed > _MANY_FLAGGED:
        found.append(
            f"{100 * failed:.0f} % of the fits did not converge, end at the edge of the range or "
            "have a bad χ²: check energy, semi-angle, material and the number of layers."
        )
    turned = strain_map.flagged(BITS["turn by 180 degrees undetermined"]).sum()
    if turned:
        found.append(
            f"At {turned} points a turn by 180° is undetermined, and with it the sign of the tilt."
        )
    if "mirrored" in known and known["mirrored"] is None:
        found.append(
            "Whether the patterns are mirror images is not known. If they are, the signs of "
            "shear strain and rotation, and one component of the tilt, are wrong."
        )
    probability = strain_map.values.get("layers_probability")
    if probability is not None and np.isfinite(probability).any():
        unsure = float(np.mean(probability[np.isfinite(probability)] < _PROBABLE))
        if unsure > _MANY_FLAGGED:
            found.append(
                f"At {100 * unsure:.0f} % of the points the number of layers is not certain "
                f"(probability below {_PROBABLE:g})."
            )
    common = max((strain_map.common_sigma(name) for name in QUANTITIES[:3]), default=0.0)
    if common > 2 * _median(strain_map.values.get("strain_xx_sigma")):
        found.append(
            f"Absolute strain has an error of {100 * common:.2g} % that all points share, from the "
            "scale of the camera. Differences between points are better known."
        )
    return found


def _picture(strain_map: StrainMap) -> dict[str, Any]:
    content = drawn(map_figure(strain_map), "png", dpi=_DOTS_PER_INCH)
    picture = embedded(content, "the figure")
    return {**picture, "rem": round(picture["rem"] * 300 / _DOTS_PER_INCH, 1)}


def _rows(strain_map: StrainMap) -> list[dict[str, Any]]:
    """Return medians, ranges and standard deviations of all quantities, in the units shown."""
    rows = []
    for name in (*QUANTITIES[:3], *RELATIVE, *QUANTITIES[3:], "chi2_per_pixel"):
        if name not in strain_map.values:
            continue
        values = shown_values(strain_map, name)
        finite = values[np.isfinite(values)]
        if not len(finite):
            continue
        factor, unit = display_unit(name)
        symbol = PLAIN_SYMBOLS.get(name.removeprefix("relative_"))
        relative = " relative to the reference" if name in RELATIVE else ""
        low, middle, high = np.quantile(finite, [0.05, 0.5, 0.95])
        rows.append(
            {
                "name": f"{symbol}{relative}" if symbol else WORDS[name],
                "unit": unit,
                "low": _signed(low),
                "middle": _signed(middle),
                "high": _signed(high),
                "sigma": factor * _median(strain_map.sigma(name)),
                "common": factor * strain_map.common_sigma(name),
            }
        )
    return rows


def _regions(strain_map: StrainMap) -> list[dict[str, Any]]:
    """Return a row for each number of layers."""
    layers = strain_map.values.get("layers")
    if layers is None:
        return []
    rows = []
    for number in sorted(set(layers[layers > 0].astype(int).tolist())):
        here = layers == number
        of = {n: _median(v[here]) for n, v in strain_map.values.items()}
        rows.append(
            {
                "label": layers_label(number),
                "points": int(here.sum()),
                "probability": of.get("layers_probability", np.nan),
                "chi2": of.get("chi2_per_pixel", np.nan),
                "strains": [_signed(100 * of.get(n, np.nan)) for n in QUANTITIES[:3]],
                "sigma": 100 * of.get("strain_xx_sigma", np.nan),
            }
        )
    return rows


def _flags(strain_map: StrainMap) -> list[tuple[str, int]]:
    found = [(words, int(strain_map.flagged(bit).sum())) for bit, words in FLAGS.items()]
    return [(words.replace("chi2", "χ²"), count) for words, count in found if count]


def _layers_in_words(strain_map: StrainMap) -> str:
    layers = strain_map.values.get("layers", np.zeros(1))
    found = sorted(set(layers[layers > 0].astype(int).tolist()))
    if not found:
        return "–"
    return ", ".join(map(str, found)) if len(found) <= 4 else f"{found[0]}–{found[-1]}"


# What a calibration holds that is said elsewhere, or too long.
_NOT_SHOWN = (
    *("sources", "common_sigma", "masked_px", "mtf"),
    *("pixel_uncertainty", "semiangle_sigma_mrad"),
)


def _calibration(calibration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each number of a calibration: its standard deviation and its origin."""
    origins = calibration.get("sources") or {}
    sigmas = {"semiangle_mrad": calibration.get("semiangle_sigma_mrad")}
    if {"pixel_mrad", "pixel_uncertainty"} <= set(calibration):
        sigmas["pixel_mrad"] = calibration["pixel_mrad"] * calibration["pixel_uncertainty"]
    rows = []
    for name, value in flat({n: v for n, v in calibration.items() if n not in _NOT_SHOWN}):
        sigma = sigmas.get(name)
        rows.append(
            {
                "name": _spelled(name),
                "value": _plain(value),
                "sigma": "–" if sigma is None else f"{sigma:.2g}",
                "origin": _plain(origins.get(name, origins.get("others"))),
            }
        )
    if calibration.get("masked_px"):
        count = len(calibration["masked_px"])
        rows.append({"name": "masked pixels", "value": str(count), "sigma": "–", "origin": "–"})
    if calibration.get("mtf"):
        rows.append({"name": "MTF", "value": "as measured", "sigma": "–", "origin": "option"})
    return rows


def _spelled(name: str) -> str:
    """Return the name of a value in words, its unit in brackets."""
    for ending, unit in _UNITS.items():
        if name.endswith(f"_{ending}"):
            return f"{name.removesuffix(f'_{ending}').replace('_', ' ')} ({unit})"
    return name.replace("_", " ")


_UNITS = {"mrad": "mrad", "px": "pixels", "deg": "°", "keV": "keV", "nm": "nm", "counts": "counts"}


def _facts(
    known: Mapping[str, Any], provenance: Mapping[str, Any], axes: str
) -> dict[str, list[tuple[str, str]]]:
    """Return headings, each with names and values."""
    sample = (
        ("material", "material"),
        ("energy_keV", "beam energy (keV)"),
        ("semiangle_mrad", "semi-angle (mrad)"),
        ("mirrored", "mirrored patterns"),
        ("reference", "reference region (points x0, y0, x1, y1)"),
    )
    measured = [(words, _plain(known[name])) for name, words in sample if name in known]
    measured.append(("axes of strain and tilt", axes))
    found = {"Sample and scan": measured}
    settings = provenance.get("settings") or {}
    rest = {name: value for name, value in provenance.items() if name != "settings"}
    for heading, values in (("Settings", settings), ("Origin", rest)):
        if values:
            found[heading] = [(_spelled(n), _plain(v)) for n, v in flat(values)]
    return found


def _plain(value: Any) -> str:
    """Return a value as text, short."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(_plain(one) for one in value) or "none"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _signed(value: float) -> str:
    """Return a number with three digits, and a minus sign that is as wide as a plus."""
    if not np.isfinite(value):
        return "–"
    digits = 3 if abs(value) < 10 else 2 if abs(value) < 100 else 0
    text = f"{value:,.{digits}f}"
    return text.replace("-", "\N{MINUS SIGN}")


def _median(values: np.ndarray | None) -> float:
    finite = np.zeros(0) if values is None else values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")
