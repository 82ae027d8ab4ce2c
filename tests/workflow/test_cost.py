"""What a run will cost, before it runs; and how near that comes to what it used."""

import re
from pathlib import Path

import pytest
import yaml
from test_plan import ERRORS, FIGURES
from workspace import ROOT

SLURM = ROOT / "profiles" / "slurm"
LOCAL = ROOT / "profiles" / "local"


def rule(budget, name):
    (found,) = [r for r in budget["rules"] if r["rule"] == name]
    return found


def overlays(workspace, **change):
    """The tiny configuration and changes of it, as options."""
    (workspace.folder / "change.yaml").write_text(yaml.safe_dump(change))
    return ["--config", workspace.folder / "tiny.yaml", workspace.folder / "change.yaml"]


# The paper's study

LIMITS = ["--max-core-hours", 100_000, "--max-gpu-hours", 1000, "--max-storage", 0.5]


def test_the_study_of_the_paper_is_planned_in_the_order_of_its_costs(workspace, plan):
    status, budget, text, errors = plan(workspace.folder, SLURM, *LIMITS)

    planned = {r["rule"]: r["to_run"] for r in budget["rules"]}
    # The last one is no work.
    assert planned | {"all": 1} == {
        "draws": 1,
        "simulate": 5 * 1000,
        "simulate_undeformed": 5,
        "simulate_gallery": 1,
        "simulate_bound": 1 + 4,
        "augment": 5 * 8 * 3,
        "train": 40 + 10,
        "predict": 40 + 10,
        "discs": 2 * 8,
        "bounds": 1,
        **dict.fromkeys(FIGURES[:5], 1),
        **ERRORS,
    }
    # Jobs, cores of each, the longest in hours, core-hours likely and at most.
    expected = {
        "simulate": (5000, 32, 1.7, 272_500, 1_280_000),
        "simulate_undeformed": (5, 32, 1.7, 272.5, 1280),
        "train": (50, 8, 60, 24_040, 28_800),
        "augment": (120, 4, 0.03, 7.6, 1920),
        "predict": (50, 4, 0.04, 8, 400),
        "discs": (16, 1, 0.12, 2, 16),
    }
    for name, (jobs, threads, longest_h, core_h, ceiling_core_h) in expected.items():
        found = rule(budget, name)
        assert (found["to_run"], found["done"]) == (jobs, 0)
        assert found["threads"] == [threads, threads]
        assert found["gpus"] == ([1, 1] if name in ("train", "predict") else [0, 0])
        rel = 0.01 if core_h > 100 else 0.3
        assert found["core_h"]["likely"] == pytest.approx(core_h, rel=rel)
        assert found["job_s"] / 3600 == pytest.approx(longest_h, rel=max(rel, 0.05))
        assert found["ceiling_core_h"] == ceiling_core_h
    total = budget["total"]
    assert total["core_h"]["likely"] == pytest.approx(296_844, rel=0.01)
    assert total["gpu_h"]["likely"] == pytest.approx(3_007, rel=0.01)
    assert total["output_MB"] == pytest.approx(1.013e6, rel=0.01)
    assert total["ceiling_core_h"] == 1_312_456
    assert total["ceiling_gpu_h"] == 3700
    # The paper: 608,000 core-hours of simulations.
    assert 608_000 / 3 < rule(budget, "simulate")["core_h"]["likely"] < 608_000
    assert budget["jobs"] == 500
    assert budget["critical_s"] / 3600 == pytest.approx(62, rel=0.02)
    for figure in ("5,000", "272,5", "3,005", "docs/cost.md"):
        assert figure in text
    assert status == 3
    for what in ("core-hours are likely to be needed, 100,000 are", "GPU-hours", "TB of storage"):
        assert what in errors


def site(folder, gpu):
    """The profile for SLURM with other graphics cards."""
    text = (SLURM / "config.yaml").read_text()
    (folder / "config.yaml").write_text(re.sub(r"(?m)^  gpu: .*$", f"  gpu: {gpu}", text))
    return folder


def test_graphics_cards_of_any_name_count(workspace, plan, tmp_path):
    profile = site(tmp_path, gpu="gpu:1g.5gb:1")
    options = (*overlays(workspace), "--max-gpu-hours", 0.001)
    status, budget, _, errors = plan(workspace.folder, profile, *options)
    assert status == 3
    assert "GPU-hours are likely to be needed, 0.001 are allowed" in errors
    assert rule(budget, "train")["gpus"] == [1, 1]
    assert "on an A100" in rule(budget, "train")["source"]


def test_what_the_slurm_plugin_would_refuse_is_not_planned(workspace, plan, tmp_path):
    profile = site(tmp_path, gpu="gpu:a100:1,lscratch:100")
    status, _, _, errors = plan(workspace.folder, profile, *overlays(workspace))
    assert status == 1
    assert "train: Invalid GRES format: gpu:a100:1,lscratch:100" in errors


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
    assert rule(budget, "train")["threads"] == [8, 8]
    assert budget["jobs"] == 7


@pytest.mark.parametrize(("jobs", "file"), [(9, "config.v9+.yaml"), (5, "config.v10+.yaml")])
def test_the_profile_is_the_one_that_snakemake_chooses(workspace, plan, tmp_path, jobs, file):
    # A file for a later version of Snakemake is not for this one.
    profile = tmp_path / "profile"
    profile.mkdir()
    (profile / "config.yaml").write_text("executor: slurm\njobs: 5\n")
    (profile / file).write_text("executor: slurm\njobs: 9\n")
    _, budget, _, _ = plan(workspace.folder, profile, *overlays(workspace))
    assert budget["jobs"] == jobs


# A part of it


def test_after_a_part_has_run_only_the_rest_is_planned(finished, plan):
    status, budget, _, _ = plan(finished.folder, LOCAL, *overlays(finished, draws={"count": 8}))
    assert status == 0
    simulate = rule(budget, "simulate")
    assert (simulate["to_run"], simulate["done"]) == (4, 4)
    assert simulate["source"].startswith("4 finished jobs: ")
    assert simulate["core_h"]["likely"] > 0
    # The undeformed crystal is done, and said to be.
    undeformed = rule(budget, "simulate_undeformed")
    assert (undeformed["to_run"], undeformed["done"]) == (0, 1)


def test_when_all_is_done_nothing_is_needed(finished, plan):
    limits = ["--max-core-hours", 0, "--max-gpu-hours", 0, "--max-storage", 0]
    status, budget, text, _ = plan(finished.folder, LOCAL, *overlays(finished), *limits)
    assert status == 0
    assert "Nothing to be done" in text
    assert budget["total"]["to_run"] == 0


# What cannot be planned


def test_a_mistake_in_the_configuration_is_passed_on(workspace, plan):
    options = overlays(workspace, dataset={"electron": [1, 2]})
    status, budget, _, errors = plan(workspace.folder, LOCAL, *options)
    assert (status, budget) == (1, None)
    assert "did you mean 'electrons'?" in errors


def test_a_profile_that_does_not_exist_is_named(workspace, plan):
    status, _, _, errors = plan(workspace.folder, Path("nowhere"))
    assert status == 1
    assert "nowhere" in errors
