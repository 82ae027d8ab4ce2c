"""The budget plugin: what jobs reserve, what they are likely to use, how long all of it takes."""

import json
import logging
import subprocess
import sys
from dataclasses import replace
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.tests import TestLogHandlerBase

from snakemake_logger_plugin_budget import LogHandler, LogHandlerSettings
from snakemake_logger_plugin_budget.budget import Run, bill, budget, exceeded
from snakemake_logger_plugin_budget.jobs import (
    Benchmarks,
    Finished,
    Job,
    folder_of,
    read_benchmarks,
    reserved_gpus,
)
from snakemake_logger_plugin_budget.progress import RunProgress

HOUR = 3600.0
NOTHING = Benchmarks({})


def simulations(count, **changes):
    """Jobs of 32 threads that may run four hours, and are expected to take one."""
    settings = {"threads": 32, "limit_s": 4 * HOUR, "expected_s": HOUR, "expected_from": "the docs"}
    return [
        Job("simulate", benchmark=f"benchmarks/{n}.tsv", **(settings | changes))
        for n in range(count)
    ]


def took(*seconds, expected_s=None, rule="simulate", threads=32):
    """Finished jobs with these durations; their files are of no planned job."""
    return Benchmarks(
        {
            f"benchmarks/done{n}.tsv": Finished(rule, threads, 0, s, expected_s)
            for n, s in enumerate(seconds)
        }
    )


def only_rule(jobs, benchmarks=NOTHING):
    (rule,) = budget(Run(list(jobs)), benchmarks).rules
    return rule


# At most


def test_a_budget_adds_up_what_is_reserved_until_the_limits_and_what_is_likely():
    jobs = [Job("train", threads=8, gpus=1, limit_s=72 * HOUR, expected_s=60 * HOUR)] * 50
    found = budget(Run([*simulations(10, output_MB=29.0), *jobs], [], ["train"]), NOTHING)
    train, simulate = found.rules
    assert (train.to_run, train.ceiling_gpu_h, train.gpu_h.likely) == (50, 50 * 72, 50 * 60)
    assert (simulate.to_run, simulate.ceiling_core_h) == (10, 10 * 32 * 4)
    assert (simulate.ceiling_gpu_h, simulate.output_MB) == (0, pytest.approx(290))
    assert found.total.ceiling_core_h == 50 * 72 * 8 + 10 * 32 * 4
    assert found.total.core_h.likely == 50 * 60 * 8 + 10 * 32
    assert (found.total.ceiling_gpu_h, found.total.output_MB) == (50 * 72, pytest.approx(290))


def test_what_is_not_known_is_not_counted_and_is_named():
    jobs = [*simulations(1), Job("endless", expected_s=HOUR), Job("mystery", limit_s=HOUR)]
    found = budget(Run(jobs), NOTHING)
    assert [rule.ceiling_core_h for rule in found.rules] == [128, None, 1]
    assert (found.total.ceiling_core_h, found.total.core_h.likely) == (129, 33)
    assert (found.unlimited, found.unknown) == (["endless"], ["mystery"])


@pytest.mark.parametrize(
    ("resources", "number"),
    [
        ({}, 0),
        ({"gpu": 2}, 2),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:3"}, 3),
        ({"gres": "gpu:a100:2"}, 2),
        ({"gres": "gpu:3090:1"}, 1),
        ({"gres": "gpu:1g.5gb:1"}, 1),
        ({"gres": "gpu:h100:2(S:0-1)"}, 2),
        ({"gres": "gpu:a100:1(S:0,2),gpu:h100:2"}, 3),
        ({"gres": "gpu:0"}, 0),
        ({"gres": "lscratch:100,gpu:1"}, 1),
        ({"gres": "gpu_memory:100"}, 0),
        ({"gpu_model": "a100"}, 1),
        ({"gpu_model": "a100", "gpu": 4}, 4),
        ({"gpu": 1, "gres": "gpu:a100:1"}, 1),
        ({"slurm_extra": "--signal=TERM@120 --gpus-per-node=a100:2"}, 2),
        ({"slurm_extra": "'--gpus-per-task=1'"}, 1),
        ({"slurm_extra": "-G 2"}, 2),
        ({"slurm_extra": "'-Ga100:2 --exclusive'"}, 2),
        ({"slurm_extra": "--comment=run-G4"}, 0),
    ],
)
def test_graphics_cards_are_recognised_however_a_site_names_them(resources, number):
    assert reserved_gpus(resources) == number


# Likely


# Large and small jobs are as far apart as the model says.
MODELLED = [*simulations(1, expected_s=HOUR), *simulations(1, expected_s=3 * HOUR)]


@pytest.mark.parametrize(
    ("jobs", "benchmarks", "hours", "source"),
    [
        # Before any job has run the cost model counts; finished jobs correct it.
        (MODELLED, NOTHING, (4, 4, 4), "the docs"),
        (
            *(MODELLED, took(20, 20, 20, expected_s=10)),
            *((8, 8, 8), "3 finished jobs: 2 × the cost model"),
        ),
        # Without one, the median of finished jobs and the middle half of many.
        (
            *(simulations(2, expected_s=None), took(HOUR, HOUR, 10 * HOUR)),
            *((2, 2, 20), "3 finished jobs: median"),
        ),
        (
            *(simulations(1, expected_s=None), took(*(HOUR * n for n in range(1, 102)))),
            *((51, 26, 76), "101 finished jobs: median"),
        ),
    ],
)
def test_what_is_likely_is_known_from_the_cost_model_and_finished_jobs(
    jobs, benchmarks, hours, source
):
    rule = only_rule(jobs, benchmarks)
    likely = (rule.core_h.likely, rule.core_h.low, rule.core_h.high)
    assert likely == pytest.approx([32 * h for h in hours])
    assert rule.source == source
    assert rule.done == len(benchmarks.finished)


def test_a_job_that_is_to_run_again_is_not_counted_as_done():
    jobs = simulations(2)
    again = Benchmarks({"benchmarks/0.tsv": Finished("simulate", 32, 0, 7200, HOUR)})
    rule = only_rule(jobs, again)
    assert (rule.to_run, rule.done) == (2, 0)
    assert rule.core_h.likely == pytest.approx(2 * 2 * 32)


def test_rules_of_which_all_is_done_are_shown_too():
    found = budget(Run(simulations(1)), took(5, 6, rule="earlier"))
    assert [(r.rule, r.to_run, r.done) for r in found.rules] == [
        ("simulate", 1, 0),
        ("earlier", 0, 2),
    ]
    assert found.total.core_h.likely == 32


def test_a_job_that_found_its_work_done_tells_nothing_of_others():
    files = {
        "benchmarks/a.tsv": Finished("simulate", 32, 0, 2 * HOUR, HOUR),
        "benchmarks/b.tsv": Finished("simulate", 32, 0, 1.0, HOUR, partial=True),
    }
    rule = only_rule(simulations(1), Benchmarks(files))
    assert rule.core_h.likely == pytest.approx(2 * 32)
    assert rule.done == 2
    assert rule.source == "1 finished job: 2 × the cost model"


# Wall-clock


@pytest.mark.parametrize(("limit", "throughput_h"), [({"jobs": 2}, 5), ({"cores": 64}, 5)])
def test_few_jobs_or_cores_at_a_time_take_as_long_as_all_jobs_together(limit, throughput_h):
    wall = budget(Run(simulations(10)), NOTHING, **limit)
    assert (wall.throughput_s, wall.critical_s) == (throughput_h * HOUR, HOUR)
    assert (wall.least_s, wall.most_s) == (5 * HOUR, 6 * HOUR)


def test_the_longest_chain_of_rules_cannot_be_shortened():
    jobs = [*simulations(5000), Job("train", expected_s=60 * HOUR), Job("aside", expected_s=HOUR)]
    # The rule between them is done: it takes no time but holds the chain together.
    edges = [("simulate", "augment"), ("augment", "train"), ("simulate", "aside")]
    wall = budget(Run(jobs, edges), NOTHING, jobs=10**9)
    assert wall.critical_s == HOUR + 60 * HOUR
    assert wall.least_s == wall.critical_s


# Benchmark files

HEADER = "s\th:m:s\tcpu_time\tjobid\trule_name\twildcards\tparams\tthreads\tresources\n"


def write_benchmark(path):
    """What a job leaves that was tried twice."""
    params = "{'a': \"it's a 'quoted' one\"}"
    resources = "{'expected_s': '10.0', 'gres': 'gpu:1'}"
    row = f"\t0:00:12\t300\t1\tsimulate\t{{}}\t{params}\t32\t{resources}\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{HEADER}77{row}12.5{row}")


def test_a_benchmark_file_tells_what_job_it_is_of(tmp_path):
    for name in ("deep/whole.tsv", "resumed.tsv"):
        write_benchmark(tmp_path / name)
    # A mark says that a part was done before.
    (tmp_path / "resumed.tsv.partial").touch()
    whole = Finished("simulate", 32, 1, 12.5, 10.0)
    found = read_benchmarks(tmp_path)
    assert found.finished == {
        str(tmp_path / "deep/whole.tsv"): whole,
        str(tmp_path / "resumed.tsv"): replace(whole, partial=True),
    }
    assert found.anonymous == 0


def test_files_that_do_not_name_their_job_are_counted(tmp_path):
    (tmp_path / "plain.tsv").write_text("s\th:m:s\n1.0\t0:00:01\n")
    (tmp_path / "damaged.tsv").write_text(HEADER + "\x00\n")
    write_benchmark(tmp_path / "good.tsv")
    found = read_benchmarks(tmp_path)
    assert (len(found.finished), found.anonymous) == (1, 2)
    assert read_benchmarks(tmp_path / "absent").finished == {}


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        (["results/benchmarks/a/1.tsv", "results/benchmarks/b/c/2.tsv"], "results/benchmarks"),
        (["results/benchmarks/a/1.tsv"], "results/benchmarks"),
        (["bench/a/1.tsv", "bench/b/2.tsv"], "bench"),
        (["one.tsv"], None),
        ([], None),
    ],
)
def test_the_folder_of_benchmarks_is_found_by_its_custom_name_or_from_the_files(files, folder):
    found = folder_of(files)
    assert (None if found is None else str(found)) == folder


# Used


def test_a_bill_adds_up_what_was_used_and_what_is_to_come():
    used = [Finished("simulate", 32, 0, s, None) for s in (HOUR, 2 * HOUR, 3 * HOUR)]
    one = bill("simulate", used, failed=1, left=4)
    assert one.core_h == pytest.approx(6 * 32)
    assert one.left_core_h.likely == pytest.approx(5 * 2 * 32)
    # Without a benchmark of each it is not known.
    assert bill("simulate", [None, *used], failed=0, left=0).core_h is None


# The plugin


class TestPlugin(TestLogHandlerBase):
    """What Snakemake asks of every logger plugin."""

    __test__ = True

    def get_log_handler_cls(self):
        return LogHandler

    def get_log_handler_settings(self):
        return LogHandlerSettings()


def handler(tmp_path, dryrun, **options):
    common = SimpleNamespace(dryrun=dryrun, stdout=False, nocolor=True)
    files = {"json": tmp_path / "budget.json", "text": tmp_path / "budget.txt"}
    return LogHandler(common, LogHandlerSettings(**{"jobs": 2} | files | options))


def event(kind, **content):
    record = logging.LogRecord("snakemake", logging.INFO, "", 0, "", (), None)
    vars(record).update(event=kind, **content)
    return record


def job_info(number, rule="simulate", output=("store",), resources=None, **content):
    given = {"runtime": 60, "expected_s": "1800"} if resources is None else resources
    return event(
        LogEvent.JOB_INFO,
        jobid=number,
        rule_name=rule,
        wildcards={"draw": f"{number:05d}"},
        threads=2,
        output=list(output),
        log=[f"logs/{number}.log"],
        shellcmd=None,
        benchmark=content.get("benchmark"),
        resources=given,
    )


def test_a_plan_that_failed_is_not_taken_for_one_that_costs_nothing(tmp_path):
    one = handler(tmp_path, dryrun=True)
    one.emit(event(LogEvent.ERROR, exception="WorkflowError"))
    one.close()
    assert list(tmp_path.iterdir()) == []


def test_the_table_shows_what_may_be_wrong_and_is_not_cut_off(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    one = handler(tmp_path, dryrun=True, jobs=None)
    name, outlasts = "a_rule_with_a_very_long_name_indeed", {"runtime": 60, "expected_s": "86400"}
    one.emit(job_info(1, rule=name, benchmark="b/1.tsv", resources=outlasts))
    one.close()
    text = (tmp_path / "budget.txt").read_text()
    assert f"  {name} " in text
    words = " ".join(text.split())
    assert f"{name}: a job is likely to take 24 h, more than its limit of 1 h." in words
    assert "No job is shown with more threads than --cores" in words


def test_an_event_that_is_not_understood_does_not_end_the_run(tmp_path, capsys):
    one = handler(tmp_path, dryrun=True)
    one.emit(event(LogEvent.JOB_INFO))
    one.emit(job_info(1, benchmark="b/1.tsv"))
    one.close()
    assert json.loads((tmp_path / "budget.json").read_text())["total"]["to_run"] == 1
    assert "AttributeError" in capsys.readouterr().err


def test_failed_jobs_are_named_with_their_logs_unless_they_succeed_in_the_end(tmp_path):
    one = handler(tmp_path, dryrun=False)
    one.emit(event(LogEvent.RUN_INFO, stats={"simulate": 4, "total": 4}))
    for number in (1, 2, 3):
        one.emit(job_info(number))
        one.emit(event(LogEvent.JOB_ERROR, jobid=number, log=[f"logs/{number}.log"]))
    one.emit(event(LogEvent.JOB_FINISHED, job_id=2))
    one.close()
    found = json.loads((tmp_path / "budget.json").read_text())
    assert found["failures"] == [
        "simulate (draw=00001); see logs/1.log",
        "simulate (draw=00003); see logs/3.log",
    ]
    text = (tmp_path / "budget.txt").read_text()
    assert "Failed: simulate (draw=00003); see logs/3.log" in text
    (row,) = found["used"]
    assert (row["finished"], row["failed"], row["left"]) == (1, 2, 1)


def test_the_json_of_a_budget_names_what_the_table_shows(tmp_path):
    one = handler(tmp_path, dryrun=True, max_core_hours=0.5)
    resources = {"runtime": 60, "expected_s": "1800", "output_mb": "29", "gres": "gpu:1"}
    one.emit(job_info(1, benchmark="b/1.tsv", resources=resources))
    one.emit(job_info(2, rule="all", output=()))
    with pytest.raises(SystemExit):
        one.close()
    found = json.loads((tmp_path / "budget.json").read_text())
    assert found["schema"] == "snakemake-budget/2"
    likely = {"likely": 1, "low": 1, "high": 1}
    expected = {
        **{"rule": "simulate", "to_run": 1, "done": 0, "threads": [2, 2], "gpus": [1, 1]},
        **{"limit_s": 3600, "ceiling_core_h": 2, "ceiling_gpu_h": 1, "output_MB": 29},
        **{"core_h": likely, "gpu_h": dict.fromkeys(likely, 0.5), "job_s": 1800, "work_s": 1800},
        **{"source": "expected_s of the rule", "requests": {"runtime": 60, "gres": "gpu:1"}},
    }
    assert found["rules"] == [expected]
    assert found["total"] == expected | {"rule": "total", "source": "", "requests": {}}
    assert (found["critical_s"], found["throughput_s"], found["jobs"]) == (1800, 900, 2)
    assert (found["least_s"], found["most_s"]) == (1800, 2700)
    assert (found["unknown"], found["unlimited"], found["anonymous"]) == ([], [], 0)
    assert found["exceeded"] == ["1 core-hours are likely to be needed, 0.5 are allowed"]


# Limits


def test_a_limit_is_exceeded_by_what_is_likely_or_else_reserved():
    jobs = [*simulations(10, output_MB=1e5), Job("train", threads=8, gpus=1, limit_s=10 * HOUR)]
    found = budget(Run(jobs), NOTHING)
    assert exceeded(found) == []
    assert exceeded(found, 400, 10, 1) == []
    endless = budget(Run([Job("train", gpus=1), Job("figure")]), NOTHING)
    assert exceeded(endless, 1) == []
    assert "GPU-hours of train are not known" in exceeded(endless, 1, 1000)[0]
    assert exceeded(found, 399, 9, 0.9) == [
        "400 core-hours are likely to be needed, 399 are allowed",
        "10 GPU-hours are likely to be needed, 9 are allowed",
        "1 TB of storage are likely to be needed, 0.9 are allowed",
    ]


WORKFLOW = """
import snakemake_logger_plugin_budget

onstart:
    snakemake_logger_plugin_budget.start(workflow)

rule made:
    output:
        "made",
    benchmark:
        "benchmarks/made.tsv"
    resources:
        gres="gpu:3090:1",
        expected_s=3600,
        output_mb=1000,
    shell:
        "touch {output}"
"""


@pytest.fixture
def snakemake(tmp_path):
    """Run a workflow that reserves a graphics card for an hour."""
    (tmp_path / "Snakefile").write_text(WORKFLOW)

    def run(*arguments):
        return subprocess.run(
            [sys.executable, "-m", "snakemake", "--cores", "1", "--logger", "budget", *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )

    return run


@pytest.mark.parametrize("dry", [("--dry-run",), ()])
def test_a_run_over_limits_ends_with_status_3(snakemake, tmp_path, dry):
    limits = [f"--logger-budget-max-{what}-hours=0.5" for what in ("core", "gpu")]
    done = snakemake(*dry, *limits)
    assert done.returncode == 3, done.stdout + done.stderr
    for what in ("core", "GPU"):
        assert f"over the limit: 1 {what}-hours are likely" in done.stderr
    assert not (tmp_path / "made").exists()


def test_a_run_within_its_limits_is_done_and_used_what_its_benchmarks_say(snakemake, tmp_path):
    options = ("--logger-budget-max-gpu-hours", "1", "--logger-budget-max-storage-tb", "0.001")
    options += ("--benchmark-extended", "--logger-budget-json", "budget.json")
    assert snakemake("--dry-run", *options).returncode == 0
    assert snakemake(*options).returncode == 0
    assert (tmp_path / "made").exists()

    seconds = float((tmp_path / "benchmarks/made.tsv").read_text().splitlines()[1].split()[0])
    (used,) = json.loads((tmp_path / "budget.json").read_text())["used"]
    assert (used["rule"], used["finished"]) == ("made", 1)
    assert used["core_h"] == used["gpu_h"] == pytest.approx(seconds / 3600)

    assert snakemake("--dry-run", "--forceall", *options).returncode == 0
    (made,) = json.loads((tmp_path / "budget.json").read_text())["rules"]
    assert made["source"].startswith("1 finished job: ")
    assert made["job_s"] == pytest.approx(seconds)


# Progress

MANY = """
rule all:
    input:
        expand("{number}", number=range(60)),

rule one:
    output:
        temp("{number}"),
    log:
        "{number}.log",
    shell:
        "test {wildcards.number} != 7 || {{ echo oh dear > {log}; exit 1; }}; touch {output}"
"""


@pytest.fixture
def shown(snakemake, tmp_path):
    """Run many jobs of which one fails, and show progress."""

    def run(*arguments, workflow=MANY):
        (tmp_path / "Snakefile").write_text(workflow)
        more = ("--keep-going", "--show-failed-logs", "--logger-budget-progress")
        return snakemake(*more, *arguments)

    return run


def test_a_log_has_some_lines_of_progress_and_what_failed(shown):
    lines = shown().stderr.splitlines()
    assert len(lines) < 60
    progress = [line for line in lines if " of 61 jobs" in line]
    assert 5 < len(progress) <= 10
    assert progress[0].startswith("7 of 61 jobs, 11% of the work, after 0:0")
    assert progress[-1].startswith("59 of 61 jobs, after 0:0")
    assert not [line for line in lines if line.startswith("rule one:") or "Job stats" in line]
    assert "oh dear" in lines


@pytest.mark.parametrize("arguments", [("--dry-run",), ("--quiet", "host"), ("--printshellcmds",)])
def test_who_asks_for_more_or_less_gets_the_messages_of_snakemake(shown, arguments):
    done = shown(*arguments)
    assert "rule one:" in done.stdout + done.stderr
    assert "of the work" not in done.stderr


def test_a_mistake_is_said(shown):
    workflow = (
        'from snakemake.exceptions import WorkflowError\nraise WorkflowError("no such key")\n'
    )
    done = shown(workflow=workflow)
    assert done.returncode == 1
    assert "no such key" in done.stderr


def test_a_terminal_has_one_display_that_leaves_nothing(monkeypatch):
    terminal = StringIO()
    monkeypatch.setenv("TERM", "xterm")
    progress = RunProgress(Console(file=terminal, force_terminal=True, width=100))
    progress.counts, progress.expected_s = {"fit": 2, "train": 1}, {"fit": 10.0, "train": 80.0}
    for rule in ("fit", "fit", "train"):
        progress.started(rule)
    progress.say("something else")
    progress.ended("fit")
    progress.ended("fit", well=False)
    progress.close()
    printed = terminal.getvalue()
    assert "something else" in printed
    last = printed.split("\r")[-1]
    assert "jobs" not in last.split("\x1b[2K")[-1]
    assert "1 of 3 jobs" in printed


def test_benchmark_files_are_read_without_snakemake():
    code = (
        "import sys, snakemake_logger_plugin_budget.jobs;"
        "print(*(name for name in sys.modules if name.startswith('snakemake')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = {name.partition(".")[0] for name in done.stdout.split()}
    assert names == {"snakemake_logger_plugin_budget"}
