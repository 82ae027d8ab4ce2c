"""What the self-contained pages share: templates, text, and pictures inside the page."""

from __future__ import annotations

import base64
import html
import math
import platform
import re
import struct
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import jinja2
from markupsafe import Markup

from pacbed import __version__
from pacbed.exceptions import PacbedError

_PACKAGES = (
    *("numpy", "scipy", "zarr", "keras", "tensorflow", "tensorflow-cpu", "pandas", "matplotlib"),
    "snakemake",
)
# Figures have 300 dots per inch, and text of 8 points: shown somewhat larger than printed.
_REM_PER_PIXEL = 7.8 / 300


def environment() -> jinja2.Environment:
    """Return the templates of this package, with the filters ``rich`` and ``number``."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("pacbed.figures", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"rich": rich, "number": number}
    return found


def rich(text: str) -> Markup:
    """Return plain text as HTML, symbols and formulae with subscripts."""
    found = re.sub(r"([εφσ])_(xx|yy|xy|x|y)(?![a-z])", r"\1<sub>\2</sub>", html.escape(text, False))
    return Markup(re.sub(r"\b((?:Mo|W)(?:Se|S|Te))2\b", r"\1<sub>2</sub>", found))


def number(value: float, significant: int = 3) -> str:
    """Return a number with so many significant digits, without an exponent."""
    if not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    digits = max(0, significant - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{digits}f}"


def embedded(png: bytes, name: str) -> dict[str, Any]:
    """Return what a page says of a picture: its data, its size in pixels, and how wide it is shown.

    Raises
    ------
    PacbedError
        If it is no PNG file; `name` names it.
    """
    if not png.startswith(b"\x89PNG\r\n\x1a\n"):
        raise PacbedError(f"{name} is no PNG file: delete it and run again")
    width, height = struct.unpack(">II", png[16:24])
    return {
        "rem": round(width * _REM_PER_PIXEL, 1),
        "width": width,
        "height": height,
        "data": base64.b64encode(png).decode(),
    }


def versions() -> dict[str, str]:
    """Return the versions of this package and of what it stands on."""
    found = {"pacbed": __version__, "Python": platform.python_version()}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
