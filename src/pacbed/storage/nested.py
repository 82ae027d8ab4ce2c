"""Nested values by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the innermost values of nested mappings, by names such as ``crystal.energy_keV``."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[tuple[str, Any, Any]]:
    """Return the names of the innermost values that differ, with both values."""
    one, other = dict(flat(a)), dict(flat(b))
    return [
        (name, one.get(name, "not there"), other.get(name, "not there"))
        for name in dict.fromkeys([*one, *other])
        if one.get(name) != other.get(name)
    ]
