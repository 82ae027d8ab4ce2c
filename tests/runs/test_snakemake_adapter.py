"""Private names of Snakemake do what we use them for."""

import os
import re
import subprocess
import sys

import pytest
from workspace import ROOT

from pacbed.exceptions import PacbedError
from pacbed.runs.snakemake_adapter import options

# Eight jobs, two at a time. A timer of the scheduler that has not run off is a thread.
SNAKEFILE = """
import threading
from pacbed.runs import snakemake_adapter as adapter

rule all:
    input:
        expand("{{number}}", number=range(8)),

rule one:
    output:
        "{{number}}",
    shell:
        "touch {{output}}"

onstart:
    {lift}

onsuccess:
    print("timers:", sum(isinstance(one, threading.Timer) for one in threading.enumerate()))
"""


def timers(folder, *options, lift=True):
    """Run a workflow; return how many timers are set at its end."""
    call = "adapter.lift_rate_limit(workflow)" if lift else "pass"
    (folder / "Snakefile").write_text(SNAKEFILE.format(lift=call))
    done = subprocess.run(
        [*(sys.executable, "-m", "snakemake", "--cores", "2"), *options],
        cwd=folder,
        env={k: v for k, v in os.environ.items() if not k.startswith("SNAKEMAKE")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return int(re.search(r"timers: (\d+)", done.stdout + done.stderr)[1])


@pytest.mark.parametrize("profile", [None, "local"])
def test_the_scheduler_sets_no_timers(tmp_path, profile):
    options = ["--profile", str(ROOT / "profiles" / profile)] if profile else []
    assert timers(tmp_path, *options) == 0


def test_it_would_and_a_rate_that_is_asked_for_is_kept(tmp_path):
    # As soon as the first fails, Snakemake needs no cure any more.
    assert timers(tmp_path, "--max-jobs-per-timespan", "100/5s", lift=False) > 1
    assert timers(tmp_path, "--max-jobs-per-timespan", "100/5s", "--forceall") > 1


@pytest.mark.parametrize(
    ("profile", "said"), [("cores: [\n", "Couldn't parse"), ("coers: 2\n", "unrecognized argument")]
)
def test_a_damaged_profile_is_said_without_all_options_of_snakemake(tmp_path, profile, said):
    (tmp_path / "config.yaml").write_text(profile)
    with pytest.raises(PacbedError, match=said) as caught:
        options(["--profile", str(tmp_path)])
    assert len(str(caught.value).splitlines()) < 6
