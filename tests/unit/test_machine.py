"""What the machine has."""

import os
from pathlib import Path

import pytest

from pacbed.machine import _control_groups, memory_limit_bytes, peak_memory_MB, usable_cores

ROOT = Path("/sys/fs/cgroup")


@pytest.mark.parametrize(
    ("table", "groups"),
    [
        ("0::/slurm/job_7/step_0\n", ["slurm/job_7/step_0", "slurm/job_7", "slurm", ""]),
        ("4:cpu:/other\n3:memory,pids:/job_7\n", ["memory/job_7", "memory"]),
        ("0::/\n", [""]),
        ("2:cpu:/job_7\n", []),
    ],
)
def test_memory_is_limited_by_every_control_group_above_the_process(tmp_path, table, groups):
    file = tmp_path / "cgroup"
    file.write_text(table)
    assert list(_control_groups(file, ROOT)) == [ROOT / group for group in groups]


def test_without_control_groups_there_are_none(tmp_path):
    assert list(_control_groups(tmp_path / "absent", ROOT)) == []


def test_memory_limit_is_not_more_than_the_machine_has():
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 1e6 * peak_memory_MB() < memory_limit_bytes() <= machine


def test_cores_are_those_that_the_process_may_use():
    assert 1 <= usable_cores() <= os.cpu_count()
