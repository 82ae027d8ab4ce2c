"""What the plugin uses of Snakemake that Snakemake does not promise to keep.

Of logger plugins Snakemake documents the events and the settings. What a run is going to do is
needed when it starts, before the first event says so: it stands in the objects below.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from snakemake_logger_plugin_budget.budget import Run
from snakemake_logger_plugin_budget.jobs import Job


def planned(workflow: Any) -> Run:
    """Return what a run is going to do.

    Public instead: the events ``JOB_INFO`` and ``RULEGRAPH``, which come only as jobs start.
    """
    run = Run()
    for job in workflow.dag.needrun_jobs():
        if job.output:
            run.jobs.append(Job.of(job.rule.name, job.threads, job.resources, job.benchmark))
        needed = (other.rule.name for other in workflow.dag.dependencies[job])
        run.edges += [(name, job.rule.name) for name in needed]
    run.edges = list(dict.fromkeys(run.edges))
    run.order = [rule.name for rule in workflow.rules]
    return run


def at_a_time(workflow: Any) -> tuple[int | None, int | None]:
    """Return how many jobs, or else how many cores, are in use at a time.

    Public instead: the options ``--logger-budget-jobs`` and ``--logger-budget-cores``.
    """
    return (None, workflow.cores) if workflow.local_exec else (workflow.nodes, None)


def handlers(workflow: Any) -> Iterator[Any]:
    """Yield the handlers of all logger plugins of a run.

    Public instead: ``SnakemakeApi.get_log_handlers``, which a workflow cannot reach.
    """
    yield from workflow.logger_manager.get_log_handlers()
