"""What pacbed uses of Snakemake and its SLURM plugin that they do not promise to keep.

Each function says what public way it stands for. ``workflow`` is the variable of that name in a
Snakefile. Tried with Snakemake 9.27 and snakemake-executor-plugin-slurm 2.8.
"""

from __future__ import annotations

import hashlib
import re
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stderr
from io import StringIO
from types import SimpleNamespace
from typing import Any

from pacbed.exceptions import PacbedError

SLURM = "slurm"
# Jobs per seconds that Snakemake starts at most where nothing else is said.
DEFAULT_RATE = 100, 1


def options(arguments: Sequence[str]) -> Any:
    """Return the options of a call of Snakemake, those of its profiles included.

    Public instead: nothing but a call of Snakemake, which does not print them.

    Raises
    ------
    PacbedError
        If Snakemake does not understand them, or finds no profile.
    """
    try:
        from snakemake.cli import parse_args
        from snakemake.exceptions import CliException, WorkflowError
    except ImportError as error:
        raise PacbedError(
            "Snakemake is not installed: in the folder of the repository, pip install "
            "-e '.[workflow]'"
        ) from error
    said = StringIO()
    try:
        with redirect_stderr(said):
            return parse_args(list(arguments))[1]
    except (CliException, WorkflowError, SystemExit) as error:
        # Before its own error, argparse prints the usage: two hundred lines.
        why = re.sub(r"^usage: .*?^\S+: error: ", "", said.getvalue(), flags=re.S | re.M).strip()
        raise PacbedError(f"Snakemake cannot be called like this: {why or error}") from error


def at_a_time(of: Any) -> tuple[int | None, int | None]:
    """Return how many jobs, or else how many cores, a call with these options uses at a time."""
    jobs = of.jobs if of.jobs and of.jobs < sys.maxsize else None  # "unlimited"
    if (of.executor or "local") != "local":
        return jobs, None
    return None, of.cores or jobs


def set_default_target(workflow: Any, rule: str) -> None:
    """Make a rule that was included the one that runs if no other is asked for.

    Public instead: ``default_target`` in a rule of the main file itself.
    """
    workflow.default_target = rule


def set_resources(workflow: Any, rule: str) -> Mapping[str, Any]:
    """Return the resources that a profile, or the command line, sets for the jobs of a rule.

    Public instead: ``resources`` of a job, which a function that makes resources cannot have.
    """
    given = workflow.resource_settings.overwrite_resources.get(rule, {})
    return {name: getattr(value, "raw", value) for name, value in given.items()}


def given_configuration(workflow: Any) -> tuple[Sequence[str], Mapping[str, Any]]:
    """Return the configuration files of a run, and the values of ``--config``.

    Public instead: ``config``, in which they are merged already.
    """
    return workflow.configfiles, workflow.config_settings.config


def plans(workflow: Any) -> bool:
    """Return whether this process plans a run, rather than doing one of its jobs.

    Public instead: ``onstart``, which is not called in a dry run.
    """
    return bool(workflow.is_main_process)


def jobs_to_submit(workflow: Any) -> Iterator[tuple[str, int, dict[str, Any]]]:
    """Yield rule, threads and resources of the jobs that a run is going to submit.

    Public instead: events of logger plugins, which come when a job has been submitted.
    """
    for job in workflow.dag.needrun_jobs():
        if not job.is_local:
            yield job.rule.name, job.threads, dict(job.resources.items())


def submits_to_slurm(workflow: Any) -> bool:
    """Return whether a run submits its jobs to SLURM.

    Public instead: ``--executor``, which a workflow is not told.
    """
    return bool(workflow.executor_plugin.name == SLURM)


def slurm_settings(workflow: Any) -> Any:
    """Return the options ``--slurm-…`` of a run.

    Public instead: the options themselves, which a workflow is not told.
    """
    return workflow.executor_settings


def name_of_jobs(workflow: Any) -> str:
    """Return the name under which the SLURM plugin submits the jobs of a run.

    Public instead: its message "SLURM run ID", on the terminal.
    """
    return str(workflow.scheduler._executor.run_uuid)


def lift_rate_limit(workflow: Any) -> None:
    """Let a run that starts begin jobs at any rate, unless its rate is not the default.

    With a rate the scheduler of Snakemake sets a timer whenever it has looked for work, also when
    it was such a timer that had it look: after hundreds of jobs it does little else.

    Public instead: ``SchedulingSettings.max_jobs_per_timespan`` of Snakemake's API, which is None
    there; ``--max-jobs-per-timespan`` and a profile cannot say so.
    """
    # Where there is no such name, there is nothing to be lifted.
    limiter = getattr(workflow.scheduler, "job_rate_limiter", None)
    if limiter and (limiter.max_jobs, limiter.timespan) == DEFAULT_RATE:
        workflow.scheduler.job_rate_limiter = None


def depend_on_scripts(workflow: Any) -> None:
    """Make the text of its script a parameter of each rule, so that a changed one is run again.

    To be called in a file of the folder that has the rules.

    Public instead: the rerun trigger ``code``, which goes by the time of the file and so plans
    everything anew in another clone; or such a parameter written in each rule.
    """
    here = workflow.current_basedir
    for rule in workflow.rules:
        # As a module, this workflow has nothing to do with the rules of others.
        if rule.script and rule.basedir == here:
            with workflow.sourcecache.open(here.join(rule.script), "rb") as script:
                rule.set_params(script=hashlib.sha256(script.read()).hexdigest())


class _Resources(dict[str, Any]):
    """Resources of a job as the plugin reads them: by `get`, and as attributes."""

    __getattr__ = dict.get


def submission(threads: int, resources: Mapping[str, Any], settings: Any = None) -> list[str]:
    """Return how the SLURM plugin calls sbatch for a job, without the command of the job.

    Public instead: the call itself in the log of ``snakemake --verbose``, when a job has been
    submitted.

    Raises
    ------
    PacbedError
        If the plugin would refuse the job.
    """
    from snakemake_executor_plugin_slurm.submit_string import get_submit_command
    from snakemake_executor_plugin_slurm.utils import set_gres_string
    from snakemake_executor_plugin_slurm.validation import validate_slurm_extra
    from snakemake_interface_common.exceptions import WorkflowError

    given = _Resources({name: value for name, value in resources.items() if value is not None})
    job = SimpleNamespace(threads=threads, resources=given)
    # Of several accounts, jobs are submitted with the first.
    accounts = str(given.get("slurm_account", "")).replace(",", " ").split()
    partition = given.get("slurm_partition")
    values = {
        "run_uuid": "test",
        "slurm_logfile": "/dev/null",
        "comment_str": "test",
        "account": f"-A {shlex.quote(accounts[0])}" if accounts else "",
        "partition": f"-p {shlex.quote(str(partition))}" if partition else "",
        "workdir": None,
    }
    try:
        validate_slurm_extra(job)
        return shlex.split(get_submit_command(job, values, settings) + set_gres_string(job))
    except WorkflowError as error:
        raise PacbedError(str(error)) from error
