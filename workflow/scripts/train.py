import shutil
from functools import partial
from pathlib import Path

from _job import found_work_done, job, reserves_gpu, sparse_progress

from pacbed.dataset import read_dataset
from pacbed.labels import LabelScaling
from pacbed.locks import sole_maker
from pacbed.patterns import checkpoint_of
from pacbed.training import Schedule, TrainingSettings, configure, train

params = snakemake.params
outputs = [Path(path) for path in snakemake.output]
model = Path(snakemake.output.model)
# Until all is done: Snakemake deletes outputs of a failed job, also good ones that were there.
aside = model.with_name(".training")
say = partial(print, flush=True)
with job(snakemake.log[0]), sole_maker(model, say):
    if not aside.is_dir():
        aside.mkdir(parents=True)
        for output in filter(Path.exists, outputs):
            output.replace(aside / output.name)
    if checkpoint_of(model).exists():
        found_work_done(snakemake.log[0])
    configure(snakemake.threads, reserves_gpu(snakemake.resources), say)
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
        aside,
        lambda epoch, epochs, losses: progress(epoch, epochs),
        checkpoint_of(model),
        say,
    )
    for output in outputs:
        (aside / output.name).replace(output)
    shutil.rmtree(aside)
