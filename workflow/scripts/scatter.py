from pathlib import Path

from _job import job

from pacbed.engines.planewave.engine import PlaneWaveEngine
from pacbed.machine import sparse_progress
from pacbed.scattering.series import write_state
from pacbed.study.model import Configuration

params = snakemake.params
study = Configuration(
    seed=params.seed,
    material=params.material,
    microscope={
        "energy_keV": params.energy_keV,
        "semiangles_mrad": params.semiangles_mrad,
        "aperture_edge_mrad": params.aperture_edge_mrad,
    },
    deformation=params.deformation,
    simulation=params.simulation,
    execution=snakemake.config["execution"],
)
with job(snakemake.log[0]):
    settings = study.simulation.planewave.settings()
    engine = PlaneWaveEngine(settings, snakemake.threads, study.execution.device)
    number = int(snakemake.wildcards.state)
    write_state(
        Path(snakemake.output[0]),
        study.series(params.states),
        number,
        engine,
        sparse_progress("plane waves"),
    )
