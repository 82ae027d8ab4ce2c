"""The scans of a configuration as calls of ``pacbed map``, for the workflow."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from inspect import BoundArguments
from pathlib import Path
from typing import Any

from cyclopts import CycloptsError, UnusedCliTokensError

from pacbed.cli.app import parsed
from pacbed.cli.common import option_name, say
from pacbed.cli.map import Calibrating, MapSeries, parts_folder, work
from pacbed.cli.read import layer_numbers
from pacbed.cli.scans import ScanFile
from pacbed.cli.structures import AnyCrystal, Structure
from pacbed.exceptions import ConfigError, OtherPartsError, PacbedError
from pacbed.reading.maps.settings import MapSettings
from pacbed.scattering.mtf import read_mtf
from pacbed.scattering.strain import StrainRange
from pacbed.specimen.crystal import MATERIALS, Material
from pacbed.study.model import Configuration
from pacbed.study.sections import ScanSection

_OF_WORKFLOW = ("output", "figure", "report", "threads")
_NO_OPTIONS = ("help", "version")
# Points of a scan whose file cannot be read here.
_POINTS, _PIXELS = (100, 100), (128, 128)


@dataclass(frozen=True)
class MapJob:
    """A scan, and how it is mapped.

    Parameters
    ----------
    words
        The command line without what the workflow gives: output, figure, report, threads.
    bound
        The arguments that it stands for.
    energy_keV
        Beam energy of the study, which is that of the scan if nothing else says one; None if the
        command line has one, or a series.
    """

    words: tuple[str, ...]
    bound: BoundArguments
    energy_keV: float | None

    def _given(self, name: str, default: Any) -> Any:
        return self.bound.arguments.get(name, default)

    @property
    def scan(self) -> str:
        """File of the scan."""
        return str(self.bound.arguments["scan"])

    @property
    def files(self) -> list[str]:
        """Files that are read: the scan, and others that are given.

        They are a calibration, an MTF, a series, a structure, and configurations.
        """
        known = self._given("calibrating", Calibrating())
        series = self._given("held", MapSeries()).series
        crystal = self._given("structure", AnyCrystal())
        given = (known.calibration, known.mtf, series, crystal.file, *crystal.config)
        return [self.scan, *(str(path) for path in given if path is not None)]

    @property
    def no_mtf(self) -> str:
        """Why the MTF that is named is none; nothing if all is well."""
        path = self._given("calibrating", Calibrating()).mtf
        try:
            if path is not None:
                read_mtf(path)
        except PacbedError as error:
            return str(error)
        return ""

    @cached_property
    def work(self) -> tuple[int, float]:
        """Points of the map, and pixels of all of them in units of 128 × 128.

        Of a scan that cannot be read here, a guess.
        """
        from pacbed.reading.scans.scan import open_scan

        mapping = self._given("mapping", MapSettings())
        try:
            opened = open_scan(Path(self.scan), self._given("options", ScanFile()))
        except (PacbedError, OSError):
            return work(_POINTS, _PIXELS, mapping)
        return work(opened.shape, opened.pattern_shape, mapping)


def map_jobs(study: Configuration) -> dict[str, MapJob]:
    """Return how the scans of a study are mapped, by their names.

    Raises
    ------
    ConfigError
        Naming every option that ``pacbed map`` does not take as it is.
    """
    jobs, problems = {}, []
    for name, section in study.scans.items():
        try:
            jobs[name] = _job(study, section)
        except PacbedError as error:
            problems.append(f"scans.{name}: {error}")
    _refuse(problems)
    return jobs


def check_files(jobs: Mapping[str, MapJob], made: Mapping[str, Sequence[str]]) -> None:
    """Look for the files that maps are made of.

    Parameters
    ----------
    jobs
        What is to be mapped, by names.
    made
        Files that the workflow makes of each scan, the map first. What a finished map was made of
        may be elsewhere.

    Raises
    ------
    ConfigError
        Naming all that are missing.
    """
    own = {os.path.normpath(path) for files in made.values() for path in files}
    waiting = {name: job for name, job in jobs.items() if not Path(made[name][0]).exists()}
    _refuse(
        f"scans.{name}: there is no file {path}"
        for name, job in waiting.items()
        for path in job.files
        if os.path.normpath(path) not in own and not Path(path).exists()
    )
    _refuse(f"scans.{name}: {problem}" for name, job in waiting.items() if (problem := job.no_mtf))


def call(words: Sequence[str], energy_keV: float | None, output: Path) -> None:
    """Make a map, as a job of the workflow.

    Of parts of an earlier, stopped map those with the same options are used; others are removed.

    Parameters
    ----------
    words
        The command line of ``pacbed map``.
    energy_keV
        Beam energy in keV, if neither the command line nor the file says one.
    output
        The map.

    Raises
    ------
    PacbedError
        If it cannot be made.
    """
    words = ["map", *words]
    _, bound = parsed(words)
    scan = Path(bound.arguments["scan"])
    if energy_keV is not None and not _says_energy(scan, bound):
        words.append(f"--energy={energy_keV:g}")
    command, bound = parsed(words)
    try:
        command(*bound.args, **bound.kwargs)
    except OtherPartsError as error:
        say(f"the map begins anew: {str(error).rpartition(': ')[0]}")
        shutil.rmtree(parts_folder(output))
        command(*bound.args, **bound.kwargs)


def _says_energy(scan: Path, bound: BoundArguments) -> bool:
    from pacbed.reading.scans.scan import open_scan

    return open_scan(scan, bound.arguments.get("options", ScanFile())).energy_keV is not None


def _job(study: Configuration, section: ScanSection) -> MapJob:
    options = {name.replace("_", "-"): value for name, value in section.options.items()}
    if len(options) < len(section.options):
        raise PacbedError("an option is there twice, with - and with _")
    for name in options:
        if name in _OF_WORKFLOW:
            raise PacbedError(f"{name} is given by the workflow: remove it")
        if name in _NO_OPTIONS:
            raise PacbedError(f"{name} is no option of a map")
    if not {"series", "material", "config"} & {*options}:
        options |= _crystal(study)
    words = (section.file, *_words(options))
    try:
        _, bound = parsed(["map", *words, "--output=map.zarr.zip"])
    except UnusedCliTokensError as error:
        unused = " ".join(error.unused_tokens or ())
        raise PacbedError(f"an option has more values than it takes: {unused}") from error
    except CycloptsError as error:
        raise PacbedError(str(error)) from error
    # What the command looks at first, too.
    layer_numbers(bound.arguments["layers"])
    StrainRange(bound.arguments.get("held", MapSeries()).stretch)
    structure = bound.arguments.get("structure", AnyCrystal())
    if structure.named:
        structure.crystal()
    said = {"energy", "series"} & {*options}
    return MapJob(words, bound, None if said else study.microscope.energy_keV)


def _crystal(study: Configuration) -> dict[str, Any]:
    """Return the options that name the crystal of the study.

    Raises
    ------
    PacbedError
        If it is described by numbers, which are no options.
    """
    own = study.material
    if own.structure is None:
        found = own.material()
        assert isinstance(found, Material)
        alone = replace(found, rms_displacement_A=found.displacements_A)
        if alone != MATERIALS.get(own.formula):
            raise PacbedError(
                f"the material of the configuration is not {own.formula} as pacbed map knows it: "
                "name a material for this scan, or a series (pacbed scatter --config)"
            )
        return {"material": own.formula}
    # Of a file all, since those of the configuration are not defaults of the command.
    said_of = own.material().displacements_A if own.is_file else own.own_displacements_A
    said = Structure(
        own.structure,
        own.stacking_axis,
        own.stack,
        own.layer_ends_A,
        own.period_A,
        tuple(f"{kind}={rms:g}" for kind, rms in said_of.items()),
    )
    given = {one.name: getattr(said, one.name) for one in fields(said)}
    defaults = {one.name: one.default for one in fields(said)}
    return {option_name(n): v for n, v in given.items() if v != defaults[n]}


def _words(options: Mapping[str, Any]) -> Iterator[str]:
    """Yield options as on the command line."""
    for name, value in options.items():
        if isinstance(value, list | tuple):
            yield f"--{name}"
            yield from map(_word, value)
        else:
            yield f"--{name}={_word(value)}"


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _refuse(problems: Iterable[str]) -> None:
    if found := list(problems):
        raise ConfigError(
            "\n  - ".join(["the scans of the configuration cannot be mapped:", *found])
        )
