"""The budget plugin: what jobs reserve, what they are likely to use, how long all of it takes."""

import json
import logging
from pathlib import Path
from types import SimpleNamespace

import pytest
from snakemake_interface_logger_plugins.common import LogEvent
from snakemake_interface_logger_plugins.tests import TestLogHandlerBase

from snakemake_logger_plugin_budget import LogHandler, LogHandlerSettings
from snakemake_logger_plugin_budget.budget import Run, bill, budget
from snakemake_logger_plugin_budget.jobs import (
    Benchmarks,
    Finished,
    Job,
    folder_of,
    gpus,
    read_benchmarks,
)
from snakemake_logger_plugin_budget.text import budget_json

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


def test_the_ceiling_is_what_is_reserved_until_the_limit():
    rule = only_rule(simulations(10))
    assert rule.to_run == 10
    assert rule.ceiling_core_h == 10 * 32 * 4
    assert rule.ceiling_gpu_h == 0


def test_graphics_cards_are_counted_beside_the_cores():
    jobs = [Job("train", threads=8, gpus=1, limit_s=72 * HOUR, expected_s=60 * HOUR)] * 50
    found = budget(Run(jobs), NOTHING)
    assert found.ceiling_gpu_h == 50 * 72
    assert found.ceiling_core_h == 50 * 72 * 8
    assert found.gpu_h.likely == 50 * 60


def test_without_a_limit_there_is_no_ceiling():
    found = budget(Run([*simulations(1), Job("endless", expected_s=1)]), NOTHING)
    assert [rule.ceiling_core_h for rule in found.rules] == [128, None]
    assert found.ceiling_core_h == 128
    assert found.unlimited == ["endless"]


@pytest.mark.parametrize(
    ("resources", "number"),
    [
        ({}, 0),
        ({"gpu": 2}, 2),
        ({"gres": "gpu"}, 1),
        ({"gres": "gpu:3"}, 3),
        ({"gres": "gpu:a100:2"}, 2),
        ({"gres": "gpu:a100"}, 1),
        ({"gres": "lscratch:100,gpu:1"}, 1),
        ({"gres": "lscratch:100"}, 0),
    ],
)
def test_graphics_cards_are_recognised_however_a_site_names_them(resources, number):
    assert gpus(resources) == number


# Likely


def test_before_any_job_has_run_the_cost_model_counts_and_is_named():
    rule = only_rule(simulations(10))
    assert rule.core_h.likely == rule.core_h.low == rule.core_h.high == 10 * 32
    assert rule.source == "the docs"


def test_finished_jobs_correct_the_cost_model():
    # Large and small jobs are as far apart as the model says; all take twice as long.
    jobs = [*simulations(1, expected_s=HOUR), *simulations(1, expected_s=3 * HOUR)]
    rule = only_rule(jobs, took(20, 20, 20, expected_s=10))
    assert rule.core_h.likely == pytest.approx(2 * (1 + 3) * 32)
    assert rule.source == "3 finished jobs: 2 × the cost model"
    assert rule.done == 3


def test_without_a_cost_model_the_median_of_finished_jobs_counts():
    rule = only_rule(simulations(2, expected_s=None), took(HOUR, HOUR, 10 * HOUR))
    assert rule.core_h.likely == pytest.approx(2 * 32)
    assert (rule.core_h.low, rule.core_h.high) == pytest.approx((2 * 32, 2 * 320))


def test_the_spread_is_that_of_the_middle_half_of_many_finished_jobs():
    rule = only_rule(simulations(1, expected_s=None), took(*(HOUR * n for n in range(1, 102))))
    assert rule.core_h.likely == pytest.approx(51 * 32)
    assert (rule.core_h.low, rule.core_h.high) == pytest.approx((26 * 32, 76 * 32))


def test_what_is_not_known_is_not_counted_and_is_named():
    found = budget(Run([*simulations(1), Job("mystery", limit_s=60)]), NOTHING)
    assert found.core_h.likely == 32
    assert found.unknown == ["mystery"]


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
    assert found.core_h.likely == 32


def test_a_job_that_found_its_work_done_tells_nothing_of_others():
    files = {
        "benchmarks/a.tsv": Finished("simulate", 32, 0, 2 * HOUR, HOUR),
        "benchmarks/b.tsv": Finished("simulate", 32, 0, 1.0, HOUR, partial=True),
    }
    rule = only_rule(simulations(1), Benchmarks(files))
    assert rule.core_h.likely == pytest.approx(2 * 32)
    assert rule.done == 2
    assert rule.source == "1 finished job: 2 × the cost model"


def test_storage_adds_up():
    found = budget(Run(simulations(5000, output_MB=29.0)), NOTHING)
    assert found.output_MB == pytest.approx(145_000)


# Wall-clock


def test_few_jobs_at_a_time_take_as_long_as_all_of_them_together():
    wall = budget(Run(simulations(5000)), NOTHING, jobs=500).wall
    assert wall.throughput_s == 10 * HOUR
    assert wall.critical_s == HOUR
    assert (wall.least_s, wall.most_s) == (10 * HOUR, 11 * HOUR)


def test_cores_limit_too():
    wall = budget(Run(simulations(10)), NOTHING, cores=64).wall
    assert wall.throughput_s == 5 * HOUR


def test_the_longest_chain_of_rules_cannot_be_shortened():
    jobs = [
        *simulations(5000),
        Job("augment", expected_s=600),
        Job("train", expected_s=60 * HOUR),
        Job("aside", expected_s=30 * HOUR),
    ]
    edges = [("simulate", "augment"), ("augment", "train"), ("simulate", "aside")]
    wall = budget(Run(jobs, edges), NOTHING, jobs=10**9).wall
    assert wall.critical_s == HOUR + 600 + 60 * HOUR
    assert wall.least_s == wall.critical_s


def test_rules_that_are_done_take_no_time_but_hold_the_chain_together():
    jobs = [Job("first", expected_s=10.0), Job("last", expected_s=5.0)]
    wall = budget(Run(jobs, [("first", "done"), ("done", "last")]), NOTHING).wall
    assert wall.critical_s == 15


# Benchmark files

HEADER = "s\th:m:s\tjobid\trule_name\twildcards\tparams\tthreads\tresources\n"


def write_benchmark(path, seconds=12.5, resources="{'expected_s': '10.0', 'mem_mb': 1}"):
    path.parent.mkdir(parents=True, exist_ok=True)
    params = "{'a': \"it's a 'quoted' one\"}"
    path.write_text(HEADER + f"{seconds}\t0:00:12\t1\tsimulate\t{{}}\t{params}\t32\t{resources}\n")


def test_a_benchmark_file_tells_what_job_it_is_of(tmp_path):
    write_benchmark(tmp_path / "deep" / "00001.tsv")
    (found,) = read_benchmarks(tmp_path).finished.values()
    assert found == Finished("simulate", 32, 0, 12.5, 10.0)
    assert found.ratio == 1.25


def test_a_mark_beside_a_benchmark_says_that_a_part_was_done_before(tmp_path):
    for name in ("whole.tsv", "resumed.tsv"):
        write_benchmark(tmp_path / name)
    (tmp_path / "resumed.tsv.partial").touch()
    found = read_benchmarks(tmp_path)
    partial = {Path(file).name: one.partial for file, one in found.finished.items()}
    assert partial == {"resumed.tsv": True, "whole.tsv": False}
    assert found.anonymous == 0


def test_files_that_do_not_name_their_job_are_counted(tmp_path):
    (tmp_path / "plain.tsv").write_text("s\th:m:s\n1.0\t0:00:01\n")
    (tmp_path / "damaged.tsv").write_text(HEADER + "\x00\n")
    write_benchmark(tmp_path / "good.tsv")
    found = read_benchmarks(tmp_path)
    assert (len(found.finished), found.anonymous) == (1, 2)


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


def test_without_benchmarks_there_is_no_bill():
    assert bill("simulate", [None], failed=0, left=0).core_h is None


# The plugin


class TestPlugin(TestLogHandlerBase):
    """What Snakemake asks of every logger plugin."""

    __test__ = True

    def get_log_handler_cls(self):
        return LogHandler

    def get_log_handler_settings(self):
        return LogHandlerSettings()


def handler(tmp_path, dryrun):
    common = SimpleNamespace(dryrun=dryrun, stdout=False, nocolor=True)
    files = {"json": tmp_path / "budget.json", "text": tmp_path / "budget.txt"}
    return LogHandler(common, LogHandlerSettings(**files, jobs=2))


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


def test_a_dry_run_is_added_up_when_it_ends(tmp_path):
    one = handler(tmp_path, dryrun=True)
    for number in range(3):
        one.emit(job_info(number, benchmark=f"results/benchmarks/{number}.tsv"))
    one.emit(job_info(3, rule="all", output=()))
    one.close()
    found = json.loads((tmp_path / "budget.json").read_text())
    assert found["total"]["jobs"] == 3
    assert found["total"]["ceiling"]["core_hours"] == 6
    assert found["total"]["estimate"]["core_hours"]["likely"] == 3
    assert "simulate" in (tmp_path / "budget.txt").read_text()


def test_a_plan_that_failed_is_not_taken_for_one_that_costs_nothing(tmp_path):
    one = handler(tmp_path, dryrun=True)
    one.emit(event(LogEvent.ERROR, exception="WorkflowError"))
    one.close()
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_may_hide_threads_says_so(tmp_path):
    common = SimpleNamespace(dryrun=True, stdout=False, nocolor=True)
    one = LogHandler(common, LogHandlerSettings(text=tmp_path / "budget.txt"))
    one.emit(job_info(1, benchmark="b/1.tsv"))
    one.close()
    assert "more threads than --cores" in (tmp_path / "budget.txt").read_text()


def test_a_job_that_is_likely_to_outlast_its_limit_is_pointed_out(tmp_path):
    one = handler(tmp_path, dryrun=True)
    one.emit(job_info(1, benchmark="b/1.tsv", resources={"runtime": 60, "expected_s": "86400"}))
    one.close()
    text = (tmp_path / "budget.txt").read_text()
    assert "simulate: a job is likely to take 24 h, more than its limit of 1 h." in text


def test_an_event_that_is_not_understood_does_not_end_the_run(tmp_path, capsys):
    one = handler(tmp_path, dryrun=True)
    one.emit(event(LogEvent.JOB_INFO))
    one.emit(job_info(1, benchmark="b/1.tsv"))
    one.close()
    assert json.loads((tmp_path / "budget.json").read_text())["total"]["jobs"] == 1
    assert "AttributeError" in capsys.readouterr().err


def test_a_table_that_fits_no_terminal_is_not_cut_off(tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    one = handler(tmp_path, dryrun=True)
    one.emit(job_info(1, rule="a_rule_with_a_very_long_name_indeed", benchmark="b/1.tsv"))
    one.close()
    assert "a_rule_with_a_very_long_name_indeed" in (tmp_path / "budget.txt").read_text()


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


def test_the_json_of_a_budget_has_a_settled_form():
    jobs = [
        *simulations(2, output_MB=29.0),
        Job("train", threads=8, gpus=1, limit_s=72 * HOUR, expected_s=60 * HOUR),
    ]
    run = Run(jobs, [("simulate", "train")], ["simulate", "train"])
    assert budget_json(budget(run, took(HOUR, expected_s=HOUR), jobs=1)) == {
        "schema": "snakemake-budget/1",
        "rules": [
            {
                "rule": "simulate",
                "jobs": {"to_run": 2, "done": 1},
                "threads": {"min": 32, "max": 32},
                "gpus": {"min": 0, "max": 0},
                "limit_min": 240,
                "ceiling": {"core_hours": 256, "gpu_hours": 0},
                "estimate": {
                    "core_hours": {"likely": 64, "low": 64, "high": 64},
                    "gpu_hours": {"likely": 0, "low": 0, "high": 0},
                    "longest_job_s": 3600,
                    "source": "1 finished job: 1 × the cost model",
                },
                "output_MB": 58,
            },
            {
                "rule": "train",
                "jobs": {"to_run": 1, "done": None},
                "threads": {"min": 8, "max": 8},
                "gpus": {"min": 1, "max": 1},
                "limit_min": 4320,
                "ceiling": {"core_hours": 576, "gpu_hours": 72},
                "estimate": {
                    "core_hours": {"likely": 480, "low": 480, "high": 480},
                    "gpu_hours": {"likely": 60, "low": 60, "high": 60},
                    "longest_job_s": 216000,
                    "source": "expected_s of the rule",
                },
                "output_MB": None,
            },
        ],
        "total": {
            "jobs": 3,
            "ceiling": {"core_hours": 832, "gpu_hours": 72},
            "estimate": {
                "core_hours": {"likely": 544, "low": 544, "high": 544},
                "gpu_hours": {"likely": 60, "low": 60, "high": 60},
            },
            "output_MB": 58,
            "unknown": [],
            "without_limit": [],
        },
        "wall_clock": {
            "jobs_at_a_time": 1,
            "cores_at_a_time": None,
            "critical_path_h": 61,
            "throughput_h": 62,
            "least_h": 62,
            "most_h": 123,
        },
    }
