"""Serves the page of a map to the browser of this machine alone, by Bokeh."""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from pacbed.exceptions import PacbedError
from pacbed.figures.map_page import MapPage
from pacbed.figures.maps import map_figure
from pacbed.figures.style import drawn
from pacbed.reading.maps.store import StrainMap

if TYPE_CHECKING:
    from bokeh.document import Document

    from pacbed.reading.maps.points import PointPatterns

LOOPBACK = "127.0.0.1"

_FIGURES = {"png": "image/png", "pdf": "application/pdf"}


@dataclass
class MapServer:
    """Serves the page of a map on this machine.

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
    port
        Where it is served; 0: on any free port.

    Raises
    ------
    PacbedError
        If Bokeh is missing or the port is in use.
    """

    strain_map: StrainMap
    name: str
    patterns: PointPatterns | None = None
    missing: str = ""
    port: int = 0
    _server: Any = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            from bokeh.application import Application
            from bokeh.application.handlers import FunctionHandler
            from bokeh.server.server import Server
        except ImportError as error:
            raise PacbedError(
                'the page of a map is made by Bokeh: install it with pip install "pacbed[reading]"'
            ) from error
        self.port = self.port or _free_port()
        hosts = [f"{host}:{self.port}" for host in (LOOPBACK, "localhost")]

        def make(document: Document) -> None:
            MapPage(self.strain_map, self.name, self.patterns, self.missing).add_to(document)

        try:
            self._server = Server(
                {"/": Application(FunctionHandler(make))},
                address=LOOPBACK,
                port=self.port,
                # No page of another origin may talk to it.
                allow_websocket_origin=hosts,
                extra_patterns=[(r"/map\.(png|pdf)", _figure_handler(self.strain_map, hosts))],
            )
        except OSError as error:
            raise PacbedError(
                f"cannot use port {self.port}: {error.strerror or error}; give another one with "
                "--port, or none"
            ) from error

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{LOOPBACK}:{self.port}/"

    def run(self, ready: Callable[[str], None] | None = None) -> None:
        """Serve the page until the process is interrupted."""
        self._server.start()
        if ready:
            self._server.io_loop.add_callback(ready, self.address)
        try:
            self._server.io_loop.start()
        finally:
            self._server.stop()

    def stop(self) -> None:
        """End :meth:`run`, from another thread."""
        self._server.io_loop.add_callback(self._server.io_loop.stop)


def _free_port() -> int:
    with socket.socket() as one:
        one.bind((LOOPBACK, 0))
        return int(one.getsockname()[1])


def _figure_handler(strain_map: StrainMap, hosts: list[str]) -> type:
    """Return what answers requests for the figure of a map."""
    from tornado.web import HTTPError, RequestHandler

    class FigureHandler(RequestHandler):
        """Sends the figure as a file."""

        def get(self, kind: str) -> None:
            if self.request.host not in hosts:  # a name of others that leads to this machine
                raise HTTPError(403)
            relative = self.get_argument("strain", "") == "relative"
            self.set_header("Content-Type", _FIGURES[kind])
            self.set_header("Content-Disposition", f'attachment; filename="map.{kind}"')
            self.write(drawn(map_figure(strain_map, relative=relative), kind))

    return FigureHandler
