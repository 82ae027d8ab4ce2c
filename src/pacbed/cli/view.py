"""``pacbed view`` and ``pacbed export``: look at a map, and take it to other programs."""

from __future__ import annotations

import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from pacbed.cli.common import say
from pacbed.exceptions import PacbedError

if TYPE_CHECKING:
    from pacbed.reading.maps.points import PointPatterns
    from pacbed.reading.maps.store import StrainMap

Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535), show_default="any free one")]


def view(
    map_file: Annotated[Path, Parameter(name="map")],
    /,
    *,
    scan: Path | None = None,
    series: Path | None = None,
    port: Port = 0,
    browser: Annotated[bool, Parameter(negative="--no-browser")] = True,
) -> None:
    """Look at a map in the browser.

    Maps lie side by side and move together; a click on a point shows its pattern, the fit and what
    is left. The page is served to this machine alone, until Ctrl-C.

    Parameters
    ----------
    map_file
        Map, as `pacbed map` writes it.
    scan
        Scan of the map, if it is no longer where it was.
    series
        Scattering series of the map, if it is no longer where it was.
    port
        Port of this machine.
    browser
        Open the page in the browser.
    """
    from pacbed.figures.map_view import MapServer
    from pacbed.reading.maps.store import read_map

    found = read_map(map_file)
    patterns, missing = _patterns(found, scan, series)
    if missing:
        say(f"patterns are not shown: {missing}")
    server = MapServer(found, map_file.name, patterns, missing, port)

    def ready(address: str) -> None:
        print(f"{address} shows {map_file}; Ctrl-C ends it", flush=True)
        if browser:
            webbrowser.open(address)

    server.run(ready)


def _patterns(
    found: StrainMap, scan: Path | None, series: Path | None
) -> tuple[PointPatterns | None, str]:
    """Return the patterns of a map, or why they cannot be shown."""
    from pacbed.reading.maps.points import open_point_patterns

    try:
        return open_point_patterns(found, scan, series), ""
    except PacbedError as error:
        if scan or series:  # what was asked for cannot be done
            raise
        return None, str(error)


def export(
    map_file: Annotated[Path, Parameter(name="map")],
    output: Path,
    /,
    *outputs: Path,
    relative: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Write a map for another program, or as a figure or a report.

    A file .hspy, .emd or .tif that is there already is not replaced: it may be a measurement.

    Parameters
    ----------
    map_file
        Map, as `pacbed map` writes it.
    output
        File to be written. Its ending tells what it is: .hspy (HyperSpy), .emd (py4DSTEM), .tif,
        .csv, .png or .pdf (a figure), .html (a report).
    outputs
        More of them.
    relative
        Draw strain relative to the reference region in figures.
    """
    from pacbed.reading.maps.export import check_format, export_map
    from pacbed.reading.maps.store import made_of, read_map
    from pacbed.storage.files import check_apart, check_new, check_writable

    wanted = (output, *outputs)
    for path in wanted:
        if path.suffix.lower() not in _PICTURES + _PAGES:
            check_format(path, ", .png or .pdf (a figure), or .html (a report)")
    check_apart(wanted, [map_file])
    found = read_map(map_file)
    check_apart(wanted, made_of(found, map_file))
    check_new(*(path for path in wanted if path.suffix.lower() in _MAY_BE_SCANS))
    check_writable(*wanted)
    for path in wanted:
        if path.suffix.lower() in _PICTURES:
            from pacbed.figures.maps import map_figure
            from pacbed.figures.style import save

            save(map_figure(found, relative=relative), path)
        elif path.suffix.lower() in _PAGES:
            from pacbed.figures.map_report import write_map_report

            write_map_report(path, found)
        else:
            export_map(found, path)
        print(path)


_PICTURES, _PAGES = (".png", ".pdf"), (".html",)
# What is there under such a name may be a measurement, perhaps one that was moved there.
_MAY_BE_SCANS = (".hspy", ".emd", ".tif", ".tiff")
