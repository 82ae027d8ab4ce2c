"""The same array code on a processor (NumPy, SciPy) and on a graphics card (CuPy)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from pacbed.engines.request import Device
from pacbed.exceptions import RequestError


@dataclass(frozen=True)
class Arrays:
    """Array functions of a device.

    Parameters
    ----------
    xp
        ``numpy`` or ``cupy``.
    fft
        ``scipy.fft`` or ``cupyx.scipy.fft``.
    """

    xp: Any
    fft: Any

    def to_host(self, array: Any) -> np.ndarray:
        """Return an array as a NumPy array."""
        return np.asarray(array if self.xp is np else array.get())

    def free_memory_bytes(self) -> int | None:
        """Return the free memory of a graphics card; None for a processor."""
        return None if self.xp is np else int(self.xp.cuda.runtime.memGetInfo()[0])


def arrays(device: Device) -> Arrays:
    """Return the array functions of a device.

    Raises
    ------
    RequestError
        If there is no such device, or CuPy is not installed.
    """
    if device == "cpu":
        import scipy.fft  # here, since requests are made without it

        return Arrays(np, scipy.fft)
    if device != "gpu":
        raise RequestError(f"unknown device '{device}': known are cpu and gpu")
    try:
        import cupy
        import cupyx.scipy.fft

        cards = cupy.cuda.runtime.getDeviceCount()
    except ImportError as error:
        raise RequestError(
            "device 'gpu' needs CuPy, which is not installed here: pip install cupy-cuda12x (or "
            "the one for your CUDA), or use device 'cpu'"
        ) from error
    except Exception as error:  # CuPy's errors live in a module that may itself not load
        raise RequestError(f"device 'gpu' cannot be used: {error}. Use device 'cpu'") from error
    if not cards:
        raise RequestError("device 'gpu' was asked for, but no card is visible. Use device 'cpu'")
    return Arrays(cupy, cupyx.scipy.fft)


def serial_linear_algebra() -> Any:
    """Return a limit, for a block or a function: within, matrix products take one thread each.

    Their last bits depend on the number of threads of the linear algebra. The limit holds for the
    whole process: set it outside of our threads, which share out the work, never within.
    """
    from threadpoolctl import threadpool_limits  # here, since requests are made without it

    return threadpool_limits.wrap(limits=1, user_api="blas")
