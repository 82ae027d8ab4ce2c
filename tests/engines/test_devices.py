"""The engine on a graphics card, and what it says where there is none.

Most machines that run these tests have no card. A stand-in for one keeps arrays apart from those of
the processor as CuPy does: whatever mixes the two, or takes an array off the card without saying
so, fails.
"""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import scipy.fft
from numpy.lib.mixins import NDArrayOperatorsMixin
from samples import SHEARED, SMALL, patterns, requested

from pacbed.engines import engine
from pacbed.engines.arrays import Arrays, arrays
from pacbed.engines.planewave import PlaneWaveSettings
from pacbed.engines.planewave import engine as planewave
from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.exceptions import RequestError


class OnCard(NDArrayOperatorsMixin):
    """An array that lies on a card which is not there."""

    def __init__(self, array):
        self.hidden = array

    def get(self):
        return self.hidden.copy()

    def __array__(self, dtype=None, copy=None):
        raise TypeError("an array was taken off the card implicitly")

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
        if out:
            options["out"] = tuple(bare(o) for o in out)
        result = getattr(ufunc, method)(*map(bare, inputs), **options)
        return out[0] if out else on_card(result)

    def __array_function__(self, function, types, args, kwargs):
        raise TypeError(f"numpy.{function.__name__} was called with an array on the card")

    def __getitem__(self, where):
        return on_card(self.hidden[bare(where)])

    def __setitem__(self, where, values):
        self.hidden[bare(where)] = bare(values)

    def __len__(self):
        return len(self.hidden)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)  # such as __array_interface__, a way off the card
        value = getattr(self.hidden, name)
        return on_card(value) if not callable(value) else called_on_card(value)

    @property
    def real(self):
        return OnCard(self.hidden.real)

    @property
    def imag(self):
        return OnCard(self.hidden.imag)


def on_card(value):
    # On a card even a single number is an array.
    return OnCard(np.asarray(value)) if isinstance(value, np.ndarray | np.generic) else value


def bare(value):
    """What an argument holds, if it may be given to the card."""
    if isinstance(value, OnCard):
        return value.hidden
    if isinstance(value, tuple):
        return tuple(map(bare, value))
    if isinstance(value, np.ndarray) and value.ndim:
        raise TypeError("an array of the processor was mixed with those on the card")
    return value


def called_on_card(function):
    def call(*args, **options):
        options = {name: bare(value) for name, value in options.items()}
        return on_card(function(*map(bare, args), **options))

    return call


class Namespace:
    """Functions of a module that make and take arrays on the card."""

    def __init__(self, module, **own):
        self._module, self._own = module, own

    def __getattr__(self, name):
        if name in self._own:
            return self._own[name]
        found = getattr(self._module, name)
        return called_on_card(found) if callable(found) and not isinstance(found, type) else found


def to_card(array, dtype=None):
    return OnCard(np.array(array.hidden if isinstance(array, OnCard) else array, dtype))


def free_memory(size):
    return SimpleNamespace(runtime=SimpleNamespace(memGetInfo=lambda: (size, 2 * size)))


def stand_in(free_bytes=100_000_000):
    own = {"asarray": to_card, "array": to_card, "cuda": free_memory(free_bytes)}
    return Arrays(Namespace(np, **own), Namespace(scipy.fft))


def on_stand_in(monkeypatch, card, request, batch=None, **settings):
    monkeypatch.setattr(planewave, "arrays", lambda device: card)
    engine = PlaneWaveEngine(PlaneWaveSettings(**settings), device="gpu", batch=batch)
    return engine.simulate(request)


# The stand-in itself


def test_stand_in_refuses_what_a_card_would():
    xp = stand_in().xp
    there, here = xp.zeros(3), np.zeros(3)
    for mixed in (
        lambda: there + here,
        lambda: xp.exp(here),
        lambda: np.asarray(there),
        lambda: here.__setitem__(..., there),
        lambda: there[np.array([0])],
    ):
        with pytest.raises(TypeError):
            mixed()
    assert isinstance((2 * there + 1)[:2].real.sum(), OnCard)
    np.testing.assert_array_equal((there + 1).get(), [1, 1, 1])


# The engine


@pytest.mark.parametrize(
    "settings", [{}, {"precision": "double"}, {"band_limit": "prismatic", "slices_per_layer": 3}]
)
@pytest.mark.parametrize("motion", ["none", "coherent", 2, "full"])
def test_card_gives_the_patterns_of_the_processor(monkeypatch, motion, settings):
    if "band_limit" in settings and motion in ("coherent", "full"):
        pytest.skip("equal slices have no mean transmissions")
    request = requested(3, SHEARED, (1.0, -2.0), layers=2, motion=motion)
    expected = patterns(request, **SMALL, **settings)
    result = on_stand_in(monkeypatch, stand_in(), request, **SMALL, **settings)
    np.testing.assert_array_equal(result.patterns, expected)
    assert isinstance(result.patterns, np.ndarray)
    assert result.provenance["device"] == "gpu"


@pytest.mark.parametrize(("free_bytes", "batches"), [(10**10, 1), (3 * 10**6, "all")])
def test_as_many_waves_travel_together_as_the_card_has_room_for(monkeypatch, free_bytes, batches):
    seen = []
    monkeypatch.setattr(planewave, "arrays", lambda device: stand_in(free_bytes))
    engine = PlaneWaveEngine(PlaneWaveSettings(**SMALL), device="gpu")
    engine.simulate(requested(3, motion=2), lambda done, total: seen.append(total))
    assert len(seen) == (seen[0] if batches == "all" else batches)


def test_a_card_without_room_for_one_wave_is_refused(monkeypatch):
    monkeypatch.setattr(planewave, "arrays", lambda device: stand_in(1000))
    engine = PlaneWaveEngine(PlaneWaveSettings(**SMALL), device="gpu")
    with pytest.raises(RequestError, match="choose a smaller supercell or band limit"):
        engine.simulate(requested(3, motion=2))


def test_real_card_gives_the_patterns_of_the_processor():
    try:
        arrays("gpu")
    except RequestError as error:
        pytest.skip(str(error))
    request = requested(6, SHEARED, (1.0, -2.0), layers=5, motion=2)
    settings = PlaneWaveSettings(**SMALL)
    here, there = (
        PlaneWaveEngine(settings, device=device).simulate(request).patterns
        for device in ("cpu", "gpu")
    )
    assert np.abs(there - here).sum() < 1e-4 * here.sum()


# Refusals


def cupy_that_sees(monkeypatch, count):
    """Install a CuPy that counts cards by calling `count`."""
    for name in ("cupyx", "cupyx.scipy", "cupyx.scipy.fft", "cupy"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["cupyx"].scipy = sys.modules["cupyx.scipy"]
    sys.modules["cupyx.scipy"].fft = sys.modules["cupyx.scipy.fft"]
    sys.modules["cupy"].cuda = SimpleNamespace(runtime=SimpleNamespace(getDeviceCount=count))


def no_driver():
    raise RuntimeError("cudaErrorInsufficientDriver")


@pytest.mark.parametrize(
    ("device", "count", "complaint"),
    [
        ("tpu", lambda: 1, "unknown device 'tpu': known are cpu and gpu"),
        ("gpu", None, "needs CuPy, which is not installed here: pip install"),
        ("gpu", lambda: 0, "no card is visible"),
        ("gpu", no_driver, "cannot be used: cudaErrorInsufficientDriver"),
    ],
)
def test_a_device_that_is_not_there_is_refused(monkeypatch, device, count, complaint):
    if count:
        cupy_that_sees(monkeypatch, count)
    else:
        monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RequestError, match=complaint):
        engine(PlaneWaveSettings(), device=device)


def test_card_is_used_where_there_is_one(monkeypatch):
    cupy_that_sees(monkeypatch, lambda: 1)
    found = arrays("gpu")
    assert found.xp is sys.modules["cupy"]
    assert found.fft is sys.modules["cupyx.scipy.fft"]
