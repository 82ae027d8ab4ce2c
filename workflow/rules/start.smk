# What is checked when a run starts, before any job does: not in a dry run, nor in the jobs.
from pacbed.cluster import JobRequest, check_cluster
from pacbed.study import check_results, keep_config, take_lock


def submitted():
    """What the jobs of each rule ask of SLURM."""
    jobs = {j.rule.name: j for j in workflow.dag.needrun_jobs() if not j.is_local}
    return [JobRequest.of(name, j.threads, j.resources) for name, j in jobs.items()]


onstart:
    try:
        # Kept until this process ends: see nolock in the profiles.
        workflow.globals["lock"] = take_lock(Path(RESULTS))
        changed = check_results(Path(RESULTS), config)
        if workflow.executor_plugin.name == "slurm":
            check_cluster(
                submitted(), Path(workflow.executor_settings.logdir or ".snakemake")
            )
        keep_config(Path(RESULTS), config)
    except PacbedError as error:
        raise WorkflowError(str(error))
    if changed:
        print("What depends on these keys is made again:", file=sys.stderr)
        print(*(f"  - {line}" for line in changed), sep="\n", file=sys.stderr)
