"""The page of a map, as a browser shows it."""

import re
import shutil
import threading
from http.client import HTTPConnection
from types import SimpleNamespace
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import pytest
from reading.synthetic_map import synthetic_map

from pacbed.exceptions import PacbedError
from pacbed.figures.map_page import MapPage, profile
from pacbed.figures.map_view import LOOPBACK, MapServer

pytest.importorskip("bokeh", reason="Bokeh is not installed")

DESKTOP, PHONE = (1440, 900), (390, 844)
WAIT_ms = 60_000


class Patterns:
    """Patterns that are made up: a disc."""

    def at(self, row, column):
        if row == 0:
            raise PacbedError("nothing was fitted here")
        y, x = np.mgrid[:32, :32]
        fitted = 20.0 * (np.hypot(x - 16, y - 16) < 8) + 1
        measured = np.random.default_rng(row).poisson(fitted).astype(float)
        residuals = (measured - fitted) / np.sqrt(fitted)
        return SimpleNamespace(measured=measured, fitted=fitted, residuals=residuals)


@pytest.fixture(scope="module")
def strain_map():
    return synthetic_map(12, 16)


@pytest.fixture(scope="module")
def address(strain_map):
    yield from _serve(strain_map, Patterns(), "")


@pytest.fixture(scope="module")
def address_without_patterns(strain_map):
    yield from _serve(strain_map, None, "the scan ripple.hspy is not there: give --scan")


def _serve(strain_map, patterns, missing):
    found, ready = [], threading.Event()

    def run():
        server = MapServer(strain_map, "ripple.zarr.zip", patterns, missing)
        found.append(server)
        server.run(lambda address: ready.set())

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(60)
    yield found[0].address
    found[0].stop()
    thread.join(60)


@pytest.fixture(scope="module")
def chromium():
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def opened(chromium):
    """Return a function that opens a page and waits until it is drawn."""
    contexts = []

    def of(address, size=DESKTOP):
        phone = size == PHONE
        context = chromium.new_context(
            viewport={"width": size[0], "height": size[1]}, has_touch=phone, is_mobile=phone
        )
        contexts.append(context)
        page = context.new_page()
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("request", lambda request: page.problems.extend(_elsewhere(request.url)))
        page.goto(address)
        page.wait_for_selector("body[data-ready=yes]", state="attached", timeout=WAIT_ms)
        page.wait_for_timeout(500)
        return page

    yield of
    for context in contexts:
        context.close()


def _elsewhere(url):
    """Return an address that is not on this machine, in a list."""
    return [] if LOOPBACK in url or url.startswith(("data:", "blob:")) else [url]


def map_box(page, number=0):
    return page.locator(".maps .bk-Figure").nth(number).bounding_box()


def click(page, x, y):
    """Click a map at parts of its width and height."""
    box = map_box(page)
    page.mouse.click(box["x"] + x * box["width"], box["y"] + y * box["height"])


@pytest.mark.parametrize("size", [DESKTOP, PHONE])
def test_maps_lie_side_by_side_and_nothing_is_wider_than_the_screen(opened, address, size):
    page = opened(address, size)
    boxes = [map_box(page, number) for number in range(4)]
    assert boxes[0]["y"] == pytest.approx(boxes[1]["y"], abs=1)
    assert boxes[1]["x"] >= boxes[0]["x"] + boxes[0]["width"]
    assert boxes[0]["width"] / boxes[0]["height"] == pytest.approx(16 / 12, rel=0.02)
    assert page.evaluate("document.documentElement.scrollWidth") == size[0]
    assert page.problems == []


def test_a_click_shows_the_values_and_the_pattern_of_a_point(opened, address, strain_map):
    page = opened(address)
    click(page, 0.97, 0.5)
    page.get_by_text("electrons in the pattern").wait_for(timeout=WAIT_ms)
    page.get_by_text("column 15").wait_for(timeout=WAIT_ms)
    cells = page.locator("section.lower td").all_inner_texts()
    assert sum("±" in cell for cell in cells) >= 9
    assert "mrad" in cells


def test_what_has_no_fit_is_said(opened, address):
    page = opened(address)
    click(page, 0.9, 0.99)
    page.get_by_text("nothing was fitted here").wait_for(timeout=WAIT_ms)


def test_pointing_at_a_map_shows_value_and_error(opened, address):
    page = opened(address)
    box = map_box(page)
    page.mouse.move(box["x"] + 0.7 * box["width"], box["y"] + 0.5 * box["height"])
    page.locator(".bk-tooltip-row-value, .bk-Tooltip").first.wait_for(timeout=WAIT_ms)
    page.mouse.move(box["x"] + 0.72 * box["width"], box["y"] + 0.5 * box["height"])
    page.get_by_text("±").first.wait_for(timeout=WAIT_ms)


def test_two_clicks_make_a_profile(opened, address):
    page = opened(address)
    page.get_by_text("ends a line profile").first.click()
    click(page, 0.5, 0.5)
    page.get_by_text("other end of the line").wait_for(timeout=WAIT_ms)
    click(page, 0.95, 0.9)
    page.get_by_text("band is one standard deviation").wait_for(timeout=WAIT_ms)


def test_another_quantity_can_be_chosen(opened, address):
    page = opened(address)
    page.locator(".maps select").first.select_option("layers")
    page.locator(".maps .flags span").first.wait_for(timeout=WAIT_ms)
    assert page.locator(".maps .flags").first.inner_text().split() == ["3", "4", "5"]
    assert page.problems == []


def test_without_scan_the_page_shows_the_maps_and_says_so(opened, address_without_patterns):
    page = opened(address_without_patterns)
    page.get_by_text("ripple.hspy is not there").wait_for(timeout=WAIT_ms)
    click(page, 0.97, 0.5)
    page.get_by_text("column 15").wait_for(timeout=WAIT_ms)
    assert page.locator(".patterns").is_hidden()


@pytest.mark.parametrize(("kind", "begins"), [("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_the_figure_can_be_downloaded(address, kind, begins):
    with urlopen(f"{address}map.{kind}?strain=relative", timeout=120) as answer:
        assert answer.read(4) == begins
        assert "map." in answer.headers["Content-Disposition"]


def test_pages_of_others_are_refused(address):
    with pytest.raises(HTTPError, match="403"):
        urlopen(Request(f"{address}map.png", headers={"Host": "elsewhere.example"}), timeout=60)
    key = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version": "13",
        "Origin": "http://elsewhere.example",
    }
    connection = HTTPConnection(LOOPBACK, int(address.rstrip("/").rsplit(":", 1)[1]), timeout=60)
    connection.request("GET", "/ws", headers=key)
    assert connection.getresponse().status == 403
    connection.close()


def test_only_this_machine_is_served(address):
    assert address.startswith("http://127.0.0.1:")


def test_a_port_in_use_is_named(strain_map):
    import socket

    with socket.socket() as other:
        other.bind((LOOPBACK, 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PacbedError, match=f"port {port}"):
            MapServer(strain_map, "map", port=port)


@pytest.mark.parametrize("name", ["flags", "layers"])
def test_the_key_of_a_map_has_its_colours(name):
    one = synthetic_map(4, 6, vacuum=False)
    one.values["flags"][0] = [1, 2, 4, 8, 16, 32]
    one.values["layers"][:] = 3
    choice, drawn, key = MapPage(one, "map", None, "")._panel(0)
    choice.value = name
    image = drawn.renderers[0]
    values, mapper = image.data_source.data["image"][0], image.glyph.color_mapper
    different = np.unique(values[np.isfinite(values)])
    parts = (different - mapper.low) / (mapper.high - mapper.low)
    colours = [mapper.palette[int(part * len(mapper.palette))] for part in parts]
    assert colours == re.findall(r"background:(#\w+)", key.text)


def test_the_scale_of_rotation_has_its_median_in_the_middle(strain_map):
    values, look = MapPage(strain_map, "map", None, "")._values_and_look("rotation_deg")
    assert (look.norm.vmin + look.norm.vmax) / 2 == pytest.approx(np.nanmedian(values), abs=5e-3)


def test_a_profile_has_a_point_for_each_point_of_the_scan(strain_map):
    distance, values, sigma = profile(strain_map, "strain_xx", (2, 15), (10, 15))
    assert len(distance) == 9
    assert distance[-1] == pytest.approx(8 * strain_map.step)
    np.testing.assert_allclose(values, 100 * strain_map.values["strain_xx"][2:11, 15], rtol=1e-6)
    expected = 100 * strain_map.values["strain_xx_sigma"][2:11, 15]
    np.testing.assert_allclose(sigma, expected, rtol=1e-6)
