"""The profile of a cluster: what a site fills in at its top reaches the jobs that it is for."""

import pytest
import yte
from workspace import ROOT

SHIPPED = (ROOT / "profiles" / "slurm" / "config.yaml").read_text()


def profile(**site):
    """The profile with values in place of those at its top."""
    text = SHIPPED
    for name, value in site.items():
        (line,) = [one for one in text.splitlines() if one.startswith(f"  {name}: ")]
        text = text.replace(line, f"  {name}: {value}")
    return yte.process_yaml(text, require_use_yte=True)


def test_as_shipped_jobs_have_partitions_and_one_card_and_no_account():
    found = profile()
    assert found["default-resources"] == {"slurm_partition": "cpu", "runtime": 30, "mem_mb": 2000}
    assert set(found["set-resources"]) == {"train", "predict"}
    for rule in found["set-resources"].values():
        assert rule["slurm_partition"] == "gpu"
        assert rule["gres"] == "gpu:1"
        assert "constraint" not in rule


def test_an_account_is_that_of_all_jobs():
    found = profile(account="proj123")
    assert found["default-resources"]["slurm_account"] == "proj123"


def test_partitions_and_cards_go_by_the_names_of_the_site():
    found = profile(cpu_partition="genoa", gpu_partition="a100", gpu="gpu:a100:1")
    assert found["default-resources"]["slurm_partition"] == "genoa"
    train = found["set-resources"]["train"]
    assert (train["slurm_partition"], train["gres"]) == ("a100", "gpu:a100:1")


def test_constraints_are_kept_apart():
    rules = profile(cpu_constraint="icelake", gpu_constraint="a100_80g")["set-resources"]
    assert {name: rule["constraint"] for name, rule in rules.items()} == {
        "simulate": "icelake",
        "simulate_undeformed": "icelake",
        "augment": "icelake",
        "simulate_gallery": "icelake",
        "simulate_bound": "icelake",
        "discs": "icelake",
        "bounds": "icelake",
        "errors": "icelake",
        "train": "a100_80g",
        "predict": "a100_80g",
    }


def test_the_number_of_jobs_is_that_of_the_budget_too():
    found = profile(jobs_at_a_time=7)
    assert (found["jobs"], found["logger-budget-jobs"]) == (7, 7)


@pytest.mark.parametrize(
    "key",
    ["retries", "keep-going", "rerun-incomplete", "latency-wait", "nolock", "rerun-triggers"],
)
def test_what_a_run_of_weeks_relies_on_is_there(key):
    assert profile()[key]


def test_every_key_is_explained():
    lines = SHIPPED.splitlines()
    for number, line in enumerate(lines):
        is_key = line[:1].isalpha() and ":" in line
        if is_key and not line.rstrip().endswith(":"):
            assert "#" in line or lines[number - 1].startswith("#"), line
