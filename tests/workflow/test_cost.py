"""What a run will cost, before it runs; and how near that comes to what it used."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from workspace import ROOT

from pacbed.cli import main

SLURM = ROOT / "profiles" / "slurm"
LOCAL = ROOT / "profiles" / "local"
GOLDEN = ROOT / "tests" / "data" / "budget_paper.json"


@pytest.fixture
def plan(tmp_path, capsys):
    """Plan a run in a folder by the command line; return status, budget, output and errors."""

    def run(folder, profile, *arguments):
        result = tmp_path / "plan.json"
        status = main(
            [
                *("plan", "--snakefile", str(ROOT / "Snakefile"), "--directory", str(folder)),
                *("--profile", str(profile), "--json", str(result), *map(str, arguments)),
            ]
        )
        said = capsys.readouterr()
        budget = json.loads(result.read_text()) if result.exists() else None
        return status, budget, said.out, said.err

    return run


def rule(budget, name):
    (found,) = [r for r in budget["rules"] if r["rule"] == name]
    return found


def overlays(workspace, **change):
    """The tiny configuration and changes of it, as options."""
    import yaml

    (workspace.folder / "change.yaml").write_text(yaml.safe_dump(change))
    return ["--config", workspace.folder / "tiny.yaml", workspace.folder / "change.yaml"]


# The paper's study


def test_the_study_of_the_paper_is_planned_in_the_order_of_its_costs(workspace, plan):
    limits = ["--max-core-hours", 100_000, "--max-gpu-hours", 1000, "--max-storage", 0.5]
    status, budget, text, errors = plan(workspace.folder, SLURM, *limits)

    simulate, train = rule(budget, "simulate"), rule(budget, "train")
    assert simulate["jobs"] == {"to_run": 5000, "done": 0}
    assert simulate["threads"] == {"min": 32, "max": 32}
    assert train["jobs"] == {"to_run": 50, "done": 0}
    assert train["gpus"] == {"min": 1, "max": 1}
    # The paper: 608,000 core-hours and 50 × 60 GPU-hours.
    assert 608_000 / 3 < simulate["estimate"]["core_hours"]["likely"] < 608_000
    assert 608_000 < simulate["ceiling"]["core_hours"] < 3 * 608_000
    assert train["estimate"]["gpu_hours"]["likely"] == pytest.approx(3000, rel=0.05)
    assert 0.9e6 < budget["total"]["output_MB"] < 1.1e6
    assert budget["wall_clock"]["jobs_at_a_time"] == 500
    for figure in ("5,000", "272,5", "3,005", "docs/cost.md"):
        assert figure in text
    assert status == 3
    for what in ("core-hours, of which there may be 100,000", "GPU-hours", "TB of storage"):
        assert what in errors
    # As written by: pacbed plan --json tests/data/budget_paper.json
    assert budget == approximately(json.loads(GOLDEN.read_text()))


def approximately(value):
    """Compare numbers to seven digits: the last bits differ between machines."""
    if isinstance(value, dict):
        return {key: approximately(v) for key, v in value.items()}
    if isinstance(value, list):
        return [approximately(v) for v in value]
    return pytest.approx(value, rel=1e-7) if isinstance(value, float) else value


@pytest.mark.parametrize("cores", ["", "cores: 1\n"])
def test_a_low_limit_of_cores_in_a_cluster_profile_hides_no_threads(
    workspace, plan, tmp_path, cores
):
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "config.yaml").write_text(f"executor: slurm\njobs: 7\n{cores}")
    change = {"execution": {"device": "cpu"}, "draws": {"count": 4}}
    options = overlays(workspace, **change, simulation={"pixels": 64}, training={"momentum": 0.8})
    _, budget, _, _ = plan(workspace.folder, profile, *options)
    assert rule(budget, "train")["threads"] == {"min": 8, "max": 8}
    assert budget["wall_clock"]["jobs_at_a_time"] == 7


# A part of it


def test_after_a_part_has_run_only_the_rest_is_planned(finished, plan):
    status, budget, _, _ = plan(finished.folder, LOCAL, *overlays(finished, draws={"count": 8}))
    assert status == 0
    simulate = rule(budget, "simulate")
    assert simulate["jobs"] == {"to_run": 4, "done": 4}
    assert simulate["estimate"]["source"].startswith("4 finished jobs: ")
    assert simulate["estimate"]["core_hours"]["likely"] > 0
    # The undeformed crystal is done, and said to be.
    assert rule(budget, "simulate_undeformed")["jobs"] == {"to_run": 0, "done": 1}


def test_when_all_is_done_nothing_is_needed(finished, plan):
    limits = ["--max-core-hours", 0, "--max-gpu-hours", 0, "--max-storage", 0]
    status, budget, text, _ = plan(finished.folder, LOCAL, *overlays(finished), *limits)
    assert status == 0
    assert "Nothing to be done" in text
    assert budget["total"]["jobs"] == 0


# What cannot be planned


def test_a_mistake_in_the_configuration_is_passed_on(workspace, plan):
    options = overlays(workspace, dataset={"electron": [1, 2]})
    status, budget, _, errors = plan(workspace.folder, LOCAL, *options)
    assert (status, budget) == (1, None)
    assert "did you mean 'electrons'?" in errors


def test_a_profile_that_does_not_exist_is_named(workspace, plan):
    status, _, _, errors = plan(workspace.folder, Path("nowhere"))
    assert status == 1
    assert "nowhere/config.yaml" in errors


# Another workflow

SLEEPING = """
rule all:
    input:
        expand("made/{number}", number=range(int(config["jobs"]))),

rule sleep:
    output:
        "made/{number}",
    benchmark:
        "timings/{number}.tsv"
    threads: 2
    resources:
        # A model that is wrong by a factor, but knows which jobs are long.
        expected_s=lambda wildcards: 10 * (1 + int(wildcards.number) % 3),
    params:
        seconds=lambda wildcards: 1 + int(wildcards.number) % 3,
    shell:
        "sleep {params.seconds}; touch {output}"
"""


def run_sleeping(folder, jobs, *arguments):
    result = folder / "budget.json"
    subprocess.run(
        [
            *(sys.executable, "-m", "snakemake", "--cores", "12", "--config", f"jobs={jobs}"),
            *("--benchmark-extended", "--logger", "budget", "--logger-budget-json", str(result)),
            *arguments,
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    return json.loads(result.read_text())


def test_what_is_left_of_any_workflow_costs_what_was_estimated(tmp_path):
    (tmp_path / "Snakefile").write_text(SLEEPING)
    run_sleeping(tmp_path, 6)
    planned = run_sleeping(tmp_path, 12, "--dry-run")
    (used,) = run_sleeping(tmp_path, 12)["used"]

    (sleep,) = planned["rules"]
    assert sleep["jobs"] == {"to_run": 6, "done": 6}
    likely = sleep["estimate"]["core_hours"]["likely"]
    # 12 s of sleep on two threads: the model, ten times as long, was corrected.
    assert likely == pytest.approx(24 / 3600, rel=0.25)
    assert used["core_h"] == pytest.approx(likely, rel=0.25)
