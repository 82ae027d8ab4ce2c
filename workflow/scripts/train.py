from functools import partial
from pathlib import Path

from _job import job, sparse_progress

from pacbed.claims import sole_maker
from pacbed.dataset import read_dataset
from pacbed.labels import LabelScaling
from pacbed.patterns import checkpoint_of
from pacbed.training import Schedule, TrainingSettings, configure, train

params = snakemake.params
model = Path(snakemake.output.model)
say = partial(print, flush=True)
with job(snakemake.log[0]), sole_maker([model], say):
    configure(snakemake.threads)
    progress = sparse_progress("epochs")
    train(
        read_dataset(Path(snakemake.input.train)),
        read_dataset(Path(snakemake.input.validation)),
        LabelScaling.from_ranges(
            params.outputs,
            params.ranges["principal_stretch"],
            params.ranges["rotation_deg"],
            params.ranges["tilt_mrad"],
        ),
        TrainingSettings(
            network={
                **params.network,
                "intensity": params.intensity,
                "image_mean": params.image_mean,
            },
            schedule=Schedule.from_config(params.training["learning_rate_steps"]),
            batch_size=params.training["batch_size"],
            momentum=params.training["momentum"],
            seed=params.seed,
        ),
        model.parent,
        lambda epoch, epochs, losses: progress(epoch, epochs),
        checkpoint_of(model),
        say,
    )
