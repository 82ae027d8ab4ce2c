"""The crystal on the command line: a name or a structure file, and what a file does not say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from pacbed.cli.common import option_name
from pacbed.exceptions import PacbedError, RequestError
from pacbed.specimen.crystal import MATERIALS, Crystal
from pacbed.specimen.structure import Layering

if TYPE_CHECKING:
    from pacbed.engines import Motion


@dataclass(frozen=True)
class Structure:
    """A crystal, by name or from a structure file.

    Parameters
    ----------
    material
        Name: MoS2, MoSe2, WS2, WSe2 or MoTe2 (2H), 1T-TaS2, 3R-MoS2, graphene, hBN,
        black-phosphorus and others (docs/crystals.md); or a structure file that ASE reads (CIF,
        POSCAR, xyz).
    stacking_axis
        Of a structure file, the vector of the cell from layer to layer.
    stack
        The structure file is a whole stack, such as a heterostructure, and does not repeat.
    layer_ends_A
        Of a structure file, depths below its first atoms at which layers end and patterns are kept,
        in Å. By default in every gap without bonds.
    period_A
        Distance in Å after which a structure file repeats along the beam.
    displacement
        Thermal displacement, root mean square per axis in Å, of elements or sites: W=0.065 Se=0.08.
    """

    material: Annotated[str | None, Parameter(show_default="of the configuration")] = None
    stacking_axis: Literal["a", "b", "c"] = "c"
    stack: Annotated[bool, Parameter(negative=())] = False
    layer_ends_A: Annotated[tuple[float, ...] | None, Parameter(show_default="every gap")] = None
    period_A: Annotated[float | None, Parameter(show_default="that of its cell")] = None
    displacement: Annotated[tuple[str, ...], Parameter(show_default="known ones")] = ()

    def section(self) -> dict[str, Any]:
        """Return the section `material` of a configuration that describes the crystal.

        Raises
        ------
        RequestError
            If something is said of a structure file, and none is named.
        """
        if not self.material:
            if given := [f.name for f in fields(Structure) if getattr(self, f.name) != f.default]:
                raise RequestError(
                    f"--{option_name(given[0])} belongs to a crystal that is named with --material"
                )
            return {}
        return {
            "structure": self.material,
            **asdict(Layering.of(self)),
            "rms_displacement_A": _displacements(self.displacement),
        }

    @property
    def named(self) -> bool:
        """Whether a crystal is named; what is said of a file that is not is refused."""
        return bool(self.section())

    @property
    def file(self) -> Path | None:
        """The file that describes the crystal, if one does."""
        from pacbed.study.structures import is_file

        return Path(self.material) if self.material and is_file(self.material) else None

    def crystal(self, motion: Motion = "full") -> Crystal:
        """Return the crystal that is named.

        Raises
        ------
        RequestError
            If there is none of that name, the file cannot be used, or it can hardly be what is
            meant.
        """
        assert self.material
        alone = all(getattr(self, f.name) == f.default for f in fields(Structure)[1:])
        if alone and self.material in MATERIALS:
            return MATERIALS[self.material]
        from pacbed.study.structures import find, implausible

        found = find(self.material, _displacements(self.displacement), Layering.of(self))
        for key, why in implausible(found, motion):
            raise RequestError(f"--material {self.material}: {key}{why}")
        return found


@dataclass(frozen=True)
class AnyCrystal(Structure):
    """A crystal by name, from a structure file, or of a configuration.

    Parameters
    ----------
    config
        Configuration that describes the crystal in section `material`; nothing else of it is used.
        Overlays of config/config.yaml, the paper's protocol; the last one wins.
    """

    material: Annotated[str | None, Parameter(show_default="that of `--config`")] = None
    config: tuple[Path, ...] = ()

    @property
    def named(self) -> bool:
        """Whether a crystal is named, or a configuration."""
        return super().named or bool(self.config)

    def crystal(self, motion: Motion = "full") -> Crystal:
        """Return the crystal that is named, or that of the configuration."""
        if not self.config:
            return super().crystal(motion)
        from pacbed.study.configuration import load

        if self.material:
            raise RequestError("give the crystal with --material or with --config, not with both")
        return load(self.config).material.material()


def _displacements(given: Sequence[str]) -> dict[str, float]:
    """Return the displacements that are written as W=0.065."""
    found = {}
    for one in given:
        kind, equals, value = one.partition("=")
        try:
            found[kind] = float(value)
        except ValueError:
            equals = ""
        if not equals or not found[kind] >= 0:
            raise PacbedError(
                f"--displacement {one}: write an element or site and its root-mean-square thermal "
                "displacement per axis in Å, such as W=0.065"
            )
    return found


def configured(config: Sequence[Path], structure: Structure) -> Any:
    """Return the configuration of some files, with the crystal that is named, if any.

    Of a stack that does not repeat, layers that it does not have are left out.
    """
    from pacbed.study.configuration import checked, load, overlaid
    from pacbed.study.model import merge

    section = structure.section()
    if not section:
        return load(config)
    values = overlaid(config)
    values["material"] = {}
    merge(values, {"material": section})
    found = structure.crystal()
    if most := found.most_layers:
        values["simulation"]["layers"] = min(values["simulation"]["layers"], most)
        kept = [n for n in values["dataset"]["layers"] if n <= most]
        values["dataset"]["layers"] = kept or [most]
        for variant in values["variants"]:
            if variant["layers"] != "all":
                variant["layers"] = [n for n in variant["layers"] if n in kept] or "all"
    return checked(values, config)
