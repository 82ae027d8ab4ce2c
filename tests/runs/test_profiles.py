"""The profile of a cluster: what a site fills in at its top reaches the jobs that it is for."""

import pytest
import yte
from workspace import ROOT

SHIPPED = (ROOT / "profiles" / "slurm" / "config.yaml").read_text()
ON_CPUS = {"simulate", "simulate_undeformed", "simulate_gallery", "simulate_bound", "augment"}
ON_CPUS |= {"discs", "bounds", "errors", "map"}


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
        assert (rule["slurm_partition"], rule["gres"]) == ("gpu", "gpu:1")
        assert "constraint" not in rule


def test_what_a_site_fills_in_reaches_its_jobs():
    found = profile(
        **{"account": "proj123", "cpu_partition": "genoa", "gpu_partition": "a100"},
        **{"gpu": "gpu:a100:1", "cpu_constraint": "icelake", "gpu_constraint": "a100_80g"},
        jobs_at_a_time=7,
    )
    default, rules = found["default-resources"], found["set-resources"]
    assert (default["slurm_account"], default["slurm_partition"]) == ("proj123", "genoa")
    assert (rules["train"]["slurm_partition"], rules["train"]["gres"]) == ("a100", "gpu:a100:1")
    constraints = dict.fromkeys(ON_CPUS, "icelake") | dict.fromkeys(
        ("train", "predict"), "a100_80g"
    )
    assert {name: rule["constraint"] for name, rule in rules.items()} == constraints
    # That of the budget too.
    assert (found["jobs"], found["logger-budget-jobs"]) == (7, 7)


@pytest.mark.parametrize("key", ["retries", "keep-going", "rerun-incomplete", "nolock"])
def test_what_a_run_of_weeks_relies_on_is_there(key):
    assert profile()[key]


def test_every_key_is_explained():
    lines = SHIPPED.splitlines()
    for number, line in enumerate(lines):
        is_key = line[:1].isalpha() and ":" in line
        if is_key and not line.rstrip().endswith(":"):
            assert "#" in line or lines[number - 1].startswith("#"), line
