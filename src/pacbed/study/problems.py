"""What is wrong with the keys and values of a configuration, one line for each problem."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, get_args, get_origin

from pacbed.study.sections import Section, canonical

if TYPE_CHECKING:
    from pydantic import ValidationError
    from pydantic.fields import FieldInfo

_ALLOWED = {
    "int_type": "a whole number{point}{null}{written}",
    "float_type": "a number{null}{written}",
    "bool_type": "true or false",
    "string_type": "text{null}",
    "greater_than_equal": "at least {ge}{meant}",
    "less_than_equal": "at most {le}",
    "string_pattern_mismatch": "the name of a folder, without spaces, braces and ~",
    "too_short": "a list of at least {min_length} items",
    "tuple_type": "{list}",
    "too_long": "{list}",
    "missing": "{list}",
    "dict_type": "a mapping of keys to values",
    "model_type": "a mapping of keys to values",
}
"""By the kinds of errors of pydantic, what follows "must be"; other errors say it themselves."""

# Of a value, so many characters are shown.
_SHOWN = 160

_MEANT = {"simulation.thermal_motion = 0": " (without phonons, the discs alone: coherent)"}


def problems(error: ValidationError, given: Any, model: type[Section]) -> Iterator[str]:
    """Yield what is wrong with a configuration that does not fit its model."""
    allowed: dict[str, list[str]] = {}
    for one in error.errors(include_url=False):
        keys, value = _found(one["loc"], given)
        section, field = _described(keys, model)
        name = ".".join(map(str, keys))
        shown = repr(value)
        shown = shown if len(shown) <= _SHOWN else f"{shown[:_SHOWN]} …"
        what = f"{name or 'the configuration'} = {shown}"
        if one["type"] in ("extra_forbidden", "invalid_key"):
            known = list(section.model_fields)
            close = difflib.get_close_matches(str(keys[-1]), known, n=1)
            meant = f"did you mean '{close[0]}'?" if close else f"known: {', '.join(known)}"
            yield f"{what}: unknown key; {meant}"
        elif one["type"] == "missing" and isinstance(value, Mapping):
            yield f"{name}: '{one['loc'][-1]}' is missing"
        elif one["type"] == "too_short" and len(value) >= one["ctx"]["min_length"]:
            continue  # pydantic counts only the items that are right
        else:
            texts = allowed.setdefault(what, [])
            limits = {key: canonical(limit) for key, limit in one.get("ctx", {}).items()}
            hints = {
                "null": " or null" if type(None) in _kinds(field) else "",
                "point": ", without a decimal point" if isinstance(value, float) else "",
                "written": _written(value),
                "list": _list(value, field),
                "meant": _MEANT.get(what, ""),
            }
            text = _ALLOWED.get(one["type"], one["msg"].removeprefix("Input should be "))
            texts.append(text.format(**hints | limits))
    # A value of several kinds has an error for each.
    for what, texts in allowed.items():
        yield f"{what}: must be {' or '.join(dict.fromkeys(texts))}"


def _found(location: Sequence[str | int], given: Any) -> tuple[list[str | int], Any]:
    """Return the keys to a value and the value; a location may end in the name of a kind."""
    value, keys = given, []
    for part in location:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            break
        keys.append(part)
    return keys, value


def _described(
    keys: Sequence[str | int], model: type[Section]
) -> tuple[type[Section], FieldInfo | None]:
    """Return the section that a key belongs to, and its description, if there is one."""
    section, field = model, None
    for key in keys:
        if isinstance(key, int):  # an item of a list
            continue
        inner = [kind for kind in _kinds(field) if isinstance(kind, type)]
        section = next((kind for kind in inner if issubclass(kind, Section)), section)
        field = section.model_fields.get(key)
    return section, field


def _kinds(field: FieldInfo | None) -> list[Any]:
    """Return the type of a value, its alternatives, and the type of its items."""
    return [field.annotation, *get_args(field.annotation)] if field else []


def _written(value: Any) -> str:
    """Return how a number is written that YAML takes for text."""
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        return ""
    known = math.isfinite(number)
    return f" (YAML reads {value} as text: write {canonical(number)})" if known else ""


def _list(value: Any, field: FieldInfo | None) -> str:
    """Return what list a value must be."""
    kinds = [kind for kind in _kinds(field) if get_origin(kind) is tuple]
    pair = any(Ellipsis not in get_args(kind) for kind in kinds)
    if isinstance(value, int | float) and not pair:
        return f"a list: write [{value}]"
    default = canonical(field.default) if field else None
    example = f", such as {default}" if isinstance(default, list) else ""
    return f"a list{' of two values' if pair else ''}{example}"
