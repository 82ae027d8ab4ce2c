"""Which values of a configuration do not fit together, though each is allowed by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import product

from pacbed.engines.planewave import check_motion
from pacbed.engines.planewave.atoms import kirkland
from pacbed.exceptions import RequestError
from pacbed.learning.sizes import binning
from pacbed.specimen.crystal import MATERIALS, Material
from pacbed.specimen.deformation import Deformation
from pacbed.specimen.polytypes import polytypes_of
from pacbed.study import prismatic
from pacbed.study.draws import SPLITS
from pacbed.study.model import Configuration
from pacbed.study.states import GALLERY
from pacbed.study.structures import implausible


def conflicts(study: Configuration) -> Iterator[str]:
    """Yield what does not fit together, one line each: key, value, what is allowed."""
    of_crystal = list(_of_material(study)) or list(_of_waves(study))
    found = [*_of_draws(study), *of_crystal, *_of_detector(study)]
    if not found and study.simulation.engine == "prismatic":
        found += prismatic.conflicts(study)
    yield from found
    yield from _of_networks(study)


def _of_draws(study: Configuration) -> Iterator[str]:
    ranges, split, count = study.deformation, dict(study.draws.split), study.draws.count
    # The angle of equal stretches is nothing that a pattern shows.
    if all(a == b for a, b in (ranges.principal_stretch, ranges.tilt_mrad, ranges.rotation_deg)):
        yield (
            "deformation: nothing differs from one example to another; principal_stretch, "
            "tilt_mrad or rotation_deg must be a range whose ends differ"
        )
    if not math.isclose(total := sum(split.values()), 1, abs_tol=1e-9):
        yield f"draws.split = {split}: the shares sum to {total:g}, but must sum to 1"
        return
    assigned = study.draws.splits()
    for name in SPLITS:
        if name not in assigned:
            yield f"draws.count = {count}: too few for a {name} set with a share of {split[name]:g}"
    if count % (together := study.execution.draws_per_job):
        yield f"draws.count = {count}: must be a multiple of execution.draws_per_job = {together}"


def _of_material(study: Configuration) -> Iterator[str]:
    section = study.material
    if beside := section.beside_structure():
        structure = section.structure
        yield (
            f"material.{beside[0]} = {getattr(section, beside[0])}: is of "
            + (
                f"crystals described by numbers; leave it out, or structure = {structure}"
                if structure
                else "structure files; name one in material.structure"
            )
        )
        return
    try:
        made = section.material()
        for kind in made.kinds:
            kirkland(kind)
    except RequestError as error:
        known = polytypes_of(section.formula) if section.structure is None else ()
        advice = f"; or take structure: {' or '.join(known)}" if known else ""
        yield f"material: {error}{advice}"
        return
    for key, why in implausible(made, study.simulation.motion):
        yield f"material.{key}{why}" if key else f"material: {why}"
    if made.most_layers and made.most_layers < study.simulation.layers:
        yield (
            f"simulation.layers = {study.simulation.layers}: must be at most {made.most_layers}, "
            f"the layers of {made.name}, a stack that does not repeat"
        )
    if isinstance(made, Material):
        yield from _of_numbers(made)


def _of_numbers(made: Material) -> Iterator[str]:
    """Yield what of a 2H crystal that is described by numbers is that of another one."""
    others = [m for m in MATERIALS.values() if m.formula != made.formula]
    for name in ("zigzag_A", "armchair_A", "stacking_A") if made.formula in MATERIALS else ():
        value, right = getattr(made, name), getattr(MATERIALS[made.formula], name)
        if value in [getattr(other, name) for other in others]:
            yield f"material.{name} = {value}: that is another crystal; {made.formula} has {right}"


def _of_detector(study: Configuration) -> Iterator[str]:
    simulation, examples = study.simulation, study.augmentation()
    try:
        kept = study.detector()
    except RequestError as error:
        yield f"simulation.pixels = {simulation.pixels}: {error}"
        return
    stored, pixel = kept.field_of_view_mrad[0], kept.field_of_view_mrad[0] / kept.pixels[0]
    reach = min(stored, examples.field_of_view_mrad) / 2
    for angle in study.microscope.semiangles_mrad:
        if angle + 2 * study.microscope.aperture_edge_mrad >= reach:
            yield (
                f"microscope.semiangles_mrad = {angle}: beyond the detector; with the aperture "
                f"edge must be less than {reach:g} mrad, half of the field of view"
            )
    needed = 2 * examples.reach_mrad + pixel
    if stored < needed:
        yield (
            f"simulation.field_of_view_mrad = {stored:g}: must be at least "
            f"{math.ceil(10 * needed) / 10:g} mrad, what rotation, field-of-view variation and "
            "translation of the examples can reach"
        )
    yield from _of_camera(study)
    finest = examples.smallest_pixel_mrad
    if pixel > finest * (1 + 1e-9):
        yield (
            f"simulation.pixels = {simulation.pixels}: too coarse; must be at least "
            f"{math.ceil(stored / finest)} for stored pixels ({pixel:.3g} mrad) not to be larger "
            f"than those of the examples ({finest:.3g} mrad)"
        )
    if (thickest := max(study.dataset.layers)) > (layers := simulation.layers):
        yield f"dataset.layers = {thickest}: must be at most simulation.layers = {layers}"


def _of_waves(study: Configuration) -> Iterator[str]:
    simulation, section = study.simulation, study.simulation.planewave
    if "planewave" not in (simulation.engine, simulation.auxiliary_engine):
        return
    try:
        motion = study.auxiliary().simulation.motion
    except RequestError:
        return  # native pixels that cannot be, of which _of_detector tells
    smallest = study.deformation.principal_stretch[0]
    cell = study.material.material().in_plane_cell_A(Deformation(smallest, smallest))
    try:
        settings = section.settings()
        check_motion(motion, settings, cell)
    except RequestError as error:
        yield f"simulation.planewave: {error}"
        return
    if section.strain_states:
        yield from _of_series(study)
    stored, layers = simulation.field_of_view_mrad, simulation.layers
    # Prismatic's band belongs to the frame of the pattern, unless several tilts share a crystal. It
    # does not deform with the crystal, as others do.
    as_prismatic = settings.band_limit == "prismatic"
    moves = not as_prismatic or study.draws.shared_strain
    drawn = study.deformation.principal_stretch[1], study.deformation.tilt_mrad
    states = [drawn, *((one.deformation.stretch_1, one.tilt_mrad) for one in GALLERY.values())]
    limits = [
        (1 if as_prismatic else stretch, max(map(abs, tilt)) if moves else 0.0)
        for stretch, tilt in states
    ]
    crystal = study.material.material()
    numbers = settings.numbers(
        study.microscope.energy_keV,
        crystal.thickness_A(layers),
        crystal.period_A,
        stored / 2 + max(tilt for _, tilt in limits),
        max(stretch for stretch, _ in limits),
    )
    band = 1e3 * numbers.wavelength_A * numbers.cutoff_per_A
    largest = min(2 * (band / stretch - tilt) for stretch, tilt in limits)
    if stored > largest:
        prismatic = simulation.engine == "prismatic"
        yield (
            f"simulation.field_of_view_mrad = {stored:g}: must be at most "
            f"{math.floor(10 * largest) / 10:g} mrad, what the band limit '{settings.band_limit}' "
            f"lets through{' at the largest strains and tilts' if moves else ''}; or set "
            "simulation.planewave.band_limit: converged, which follows the field of view"
            f"{', or simulation.auxiliary_engine: same' if prismatic else ''}"
        )


def _of_camera(study: Configuration) -> Iterator[str]:
    camera, seen = study.augmentation().camera, study.dataset
    if camera is None:
        return
    most, half = camera.beam_stop_mrad[1], seen.field_of_view_mrad / 2
    if most >= half:
        yield (
            f"dataset.camera.beam_stop_mrad = {list(camera.beam_stop_mrad)}: must be less than "
            f"{half:g} mrad, half of dataset.field_of_view_mrad"
        )
    if study.simulation.planewave.strain_states and study.fit.examples:
        for name in ("beam_stop_mrad", "gain_noise", "dead_pixels"):
            if camera.has(name):
                yield (
                    f"dataset.camera.{name} = {list(getattr(camera, name))}: the fit of examples "
                    "does not know it; set fit.examples: 0"
                )


def _of_series(study: Configuration) -> Iterator[str]:
    """Yield why training examples cannot be made from a scattering series, if they are to be."""
    simulation, states = study.simulation, study.simulation.planewave.strain_states
    name = f"simulation.planewave.strain_states = {states}"
    if simulation.engine != "planewave" or simulation.planewave.slices_per_layer != "planes":
        yield (
            f"{name}: networks would be validated with other physics than they learn from; set "
            "simulation.engine: planewave and slices_per_layer: planes, or strain_states: 0"
        )
    elif simulation.motion != "full":
        yield (
            f"{name}: images need smooth beams, and diffuse scattering, without which bounds are "
            "too small; set simulation.thermal_motion: full, or strain_states: 0"
        )
    elif study.execution.draws_per_job > 1:
        yield (
            f"{name}: a job simulates ten strain states, of the series or of draws for validation "
            "and test; set execution.draws_per_job: 1"
        )
    elif len(set(study.deformation.principal_stretch)) == 1:
        yield f"{name}: deformation.principal_stretch does not vary; set strain_states: 0"
    else:
        try:
            study.series()
        except RequestError as error:
            yield f"{name}: {error}"


def _of_networks(study: Configuration) -> Iterator[str]:
    blocks, pixels = len(study.network.filters), study.dataset.pixels
    head, fast = study.network.pooled_head, study.training.fast
    binned = binning(pixels, study.network.kind)
    last, rest = divmod(pixels, binned * 2**blocks)
    if rest:
        seen = f", of which the first sees {binned} × {binned} pixels as one" if binned > 1 else ""
        yield (
            f"dataset.pixels = {pixels}: must be a multiple of {binned * 2**blocks}, since each of "
            f"the {blocks} blocks of network.filters halves the image{seen}"
        )
    elif head and last % head:
        yield (
            f"network.pooled_head = {head}: must divide {last}, the width of the last feature maps"
        )
    if study.training.loss == "fisher" and study.network.kind != "paper":
        yield (
            "training.loss = fisher: is for network.kind: paper; set this kind, or training.loss: "
            "mse"
        )
    elif study.training.loss == "fisher" and (
        study.training.schedule != "fast" or fast.optimizer != "adam"
    ):
        yield (
            "training.loss = fisher: its gradients are in units of the bound, other ones for every "
            "network; set training.schedule: fast with fast.optimizer: adam, which scales its steps"
        )
    if study.network.uncertainty and not study.network.dense and study.network.kind == "paper":
        yield (
            "network.uncertainty = true: is read from what the last hidden dense layer says; give "
            "widths of such layers as network.dense"
        )
    if fast.averaged_epochs > fast.epochs:
        yield (
            f"training.fast.averaged_epochs = {fast.averaged_epochs}: must be at most "
            f"training.fast.epochs = {fast.epochs}"
        )
    known = {"semiangles_mrad": study.microscope.semiangles_mrad, "layers": study.dataset.layers}
    for (number, variant), (name, values) in product(enumerate(study.variants), known.items()):
        asked = getattr(variant, name)
        if asked != "all" and (absent := [str(one) for one in asked if one not in values]):
            yield (
                f"variants.{number}.{name} = {list(asked)}: {', '.join(absent)} not among the "
                f"configured {', '.join(map(str, values))}"
            )
