# What is seen to when a run starts, before any job does: not in a dry run, nor in the jobs.
from pacbed.runs.slurm import JobRequest, check_cluster, end_jobs, queued
from pacbed.runs.results_folder import check_results, keep_config, take_lock
from snakemake_logger_plugin_budget import budget_of_run


def submitted(settings):
    """What the jobs of each rule ask of SLURM."""
    jobs = {j.rule.name: j for j in workflow.dag.needrun_jobs() if not j.is_local}
    return [
        JobRequest.of(
            *(name, job.threads, job.resources),
            qos=settings.qos,
            reservation=settings.reservation,
        )
        for name, job in jobs.items()
    ]


def end_previous(jobs):
    """Cancel jobs that a run which was killed has left in the queue."""
    if not jobs or not (number := len(queued(jobs.name))):
        return
    if not jobs.is_ours_to_end:
        raise PacbedError(
            f"{number} jobs of {jobs.owner} are in the queue, and it cannot be known here whether "
            f"it still runs: go on there, or end it and cancel them: scancel --name={jobs.name}"
        )
    end_jobs(jobs.name)
    print(
        f"{number} jobs of an earlier run were still in the queue: they were cancelled, and go on "
        "from what they had done",
        file=sys.stderr,
    )


def prepare_cluster(lock, settings):
    """See that SLURM takes the jobs, and that those of a run that was killed are gone."""
    logs = Path(settings.logdir or ".snakemake/slurm_logs")
    check_cluster(submitted(settings), logs, settings.status_command)
    end_previous(lock.previous)
    # By this name the plugin submits the jobs of this run.
    lock.submits_as(workflow.scheduler._executor.run_uuid)


onstart:
    try:
        # Kept until this process ends: see nolock in the profiles.
        workflow.globals["lock"] = take_lock(Path(RESULTS))
        changed = check_results(Path(RESULTS), STUDY)
        if workflow.executor_plugin.name == "slurm":
            prepare_cluster(workflow.globals["lock"], workflow.executor_settings)
        keep_config(Path(RESULTS), STUDY)
    except PacbedError as error:
        raise WorkflowError(str(error))
    cluster = not workflow.local_exec
    print(
        budget_of_run(
            workflow.dag,
            jobs=workflow.nodes if cluster else None,
            cores=None if cluster else workflow.cores,
        ),
        file=sys.stderr,
    )
    if changed:
        print("What depends on these keys is made again:", file=sys.stderr)
        print(*(f"  - {line}" for line in changed), sep="\n", file=sys.stderr)
