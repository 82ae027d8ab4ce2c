# What is done when a run starts, before any job: not in a dry run, nor in the jobs.
from pacbed.runs.results_folder import (
    check_results,
    keep_config,
    note_jobs,
    noted_jobs,
    take_lock,
)
from pacbed.runs.slurm import JobRequest, check_cluster, end_jobs
import snakemake_logger_plugin_budget

# Of a module from a forge Snakemake fetches the files that it is asked for: these are needed besides.
CAPTIONS = [
    *TITLES,
    "bounds",
    "bounds_mean",
    "calibration",
    "draws",
    "errors",
    "report",
]
if not Path(str(workflow.current_basedir)).is_dir():
    for file in [
        *(f"scripts/{name}.py" for name in ["_job", "_keras_alone"]),
        *(f"report/{name}.rst" for name in CAPTIONS),
    ]:
        workflow.source_path(f"../{file}")

# What jobs depend on besides their inputs and parameters.
adapter.depend_on_scripts(workflow)

# The lock is kept until this process ends: see nolock in the profiles.
HELD = []


def prepare_cluster():
    """Find out whether SLURM takes the jobs, and end those of a run that was killed."""
    requests = (JobRequest(*one) for one in adapter.jobs_to_submit(workflow))
    check_cluster(requests, adapter.slurm_settings(workflow))
    if ended := end_jobs(noted_jobs(Path(RESULTS), HELD[0])):
        print(
            f"{ended} jobs of an earlier run were still in the queue: they were cancelled, and "
            "continue from what they had done",
            file=sys.stderr,
        )
    note_jobs(Path(RESULTS), adapter.name_of_jobs(workflow))


onstart:
    adapter.lift_rate_limit(workflow)  # before the first job is chosen
    try:
        HELD.append(take_lock(Path(RESULTS)))
        changed = check_results(Path(RESULTS), STUDY)
        snakemake_logger_plugin_budget.start(workflow)
        if adapter.submits_to_slurm(workflow):
            prepare_cluster()
        keep_config(Path(RESULTS), STUDY)
    except PacbedError as error:
        raise WorkflowError(str(error))
    if changed:
        print("What depends on these keys is made again:", file=sys.stderr)
        print(*(f"  - {line}" for line in changed), sep="\n", file=sys.stderr)
