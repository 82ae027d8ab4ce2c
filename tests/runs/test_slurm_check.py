"""SLURM is asked whether it would take the jobs; stand-ins answer as it does."""

import pytest

from pacbed.exceptions import PacbedError
from pacbed.runs.slurm import JobRequest, check_cluster, end_jobs, queued

NO_ACCOUNT = "Invalid account or account/partition combination specified"
# As SLURM 22.05 answers.
SBATCH = f"""#!/bin/sh
echo "$@" >> "$RECORD"
case "$*" in
  *--partition=nowhere*)
    echo "sbatch: error: invalid partition specified: nowhere" >&2
    echo "allocation failure: Invalid partition name specified" >&2; exit 1;;
  *--account=proj*) echo "sbatch: Job 1 to start at 2026-11-26T12:12:03" >&2; exit 0;;
  *) echo "allocation failure: {NO_ACCOUNT}" >&2; exit 1;;
esac
"""


@pytest.fixture
def record(tmp_path, monkeypatch):
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in {"sbatch": SBATCH, "sinfo": "#!/bin/sh\necho cpu\necho gpu\n"}.items():
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)
    record = tmp_path / "record"
    monkeypatch.setenv("RECORD", str(record))
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return record


def complaint(requests, folder):
    with pytest.raises(PacbedError) as error:
        check_cluster(requests, folder)
    return str(error.value)


def test_what_is_asked_is_what_a_job_of_the_rule_reserves(record, tmp_path):
    resources = {
        "slurm_partition": "gpu",
        "slurm_account": "proj",
        "slurm_extra": "--signal=TERM@120 --exclusive",
        "mem_mb": 29000,
        "runtime": 4320,
        "gres": "gpu:a100:1",
        "constraint": "big",
        "expected_s": "5",
    }
    check_cluster([JobRequest.of("train", 8, resources)], tmp_path / "logs")
    (asked,) = record.read_text().splitlines()
    assert set(asked.split()) == {
        "--test-only",
        "--ntasks=1",
        "--cpus-per-task=8",
        "--mem=29000",
        "--time=4320",
        "--partition=gpu",
        "--account=proj",
        "--gres=gpu:a100:1",
        "--constraint=big",
        "--signal=TERM@120",
        "--exclusive",
        "--wrap=true",
    }


def test_a_missing_account_is_named(record, tmp_path):
    text = complaint([JobRequest("simulate", partition="cpu")], tmp_path)
    assert f"simulate: {NO_ACCOUNT}; " in text
    assert "the account is not given" in text
    assert "top of the profile" in text


def test_a_wrong_account_is_named(record, tmp_path):
    text = complaint([JobRequest("simulate", partition="cpu", account="other")], tmp_path)
    assert "the account is 'other'" in text


def test_a_partition_that_does_not_exist_is_named_with_those_that_do(record, tmp_path):
    text = complaint([JobRequest("train", partition="nowhere", account="proj")], tmp_path)
    assert "train: invalid partition specified: nowhere" in text
    assert "there are: cpu, gpu" in text


def test_all_rules_are_asked_about_before_anything_is_said(record, tmp_path):
    requests = [JobRequest(r, partition="nowhere") for r in ("simulate", "train")]
    text = complaint(requests, tmp_path)
    assert "simulate: " in text
    assert "train: " in text


@pytest.mark.parametrize(("keeps_accounts", "follows"), [(True, "sacct"), (False, "squeue")])
def test_a_program_that_answers_is_good_enough(record, tmp_path, keeps_accounts, follows):
    write_sacct(tmp_path, keeps_accounts)
    check_cluster([JobRequest("simulate", account="proj")], tmp_path, follows)


def test_a_program_that_would_never_tell_of_an_end_is_refused(record, tmp_path):
    write_sacct(tmp_path, keeps_accounts=False)
    with pytest.raises(PacbedError, match=r"storage is disabled.*slurm-status-command: squeue"):
        check_cluster([JobRequest("simulate", account="proj")], tmp_path, "sacct")


def write_sacct(folder, keeps_accounts):
    script = "exit 0" if keeps_accounts else "echo Slurm accounting storage is disabled >&2; exit 1"
    program = folder / "programs" / "sacct"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_a_machine_without_slurm_is_told_what_to_do(record, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    text = complaint([JobRequest("simulate")], tmp_path)
    assert "there is no sbatch on this machine" in text
    assert "profiles/local" in text


def test_a_machine_whose_slurm_does_not_answer_is_told_so(record, tmp_path):
    answer = "#!/bin/sh\necho 'sinfo: error: Unable to contact slurm controller' >&2; exit 1\n"
    (tmp_path / "programs" / "sinfo").write_text(answer)
    text = complaint([JobRequest("simulate", account="proj")], tmp_path)
    assert "SLURM does not answer on this machine" in text
    assert "Unable to contact slurm controller" in text
    assert not record.exists()


def test_a_folder_for_logs_that_cannot_be_made_is_named(record, tmp_path):
    (tmp_path / "logs").write_text("in the way")
    text = complaint([JobRequest("simulate", account="proj")], tmp_path / "logs" / "slurm")
    assert str(tmp_path / "logs" / "slurm") in text
    assert not record.exists()


SQUEUE = """#!/bin/sh
[ -e "$RECORD.cancelled" ] && exit 0
case "$*" in *--name=a-name*) echo 17; echo 18;; esac
"""


@pytest.fixture
def queue(record, tmp_path):
    for name, script in {
        "squeue": SQUEUE,
        "scancel": '#!/bin/sh\ntouch "$RECORD.cancelled"\n',
    }.items():
        (tmp_path / "programs" / name).write_text(script)
        (tmp_path / "programs" / name).chmod(0o755)


def test_jobs_of_an_earlier_run_are_found_by_its_name_and_ended(queue):
    assert queued("another") == []
    assert queued("a-name") == ["17", "18"]
    end_jobs("a-name")
    assert queued("a-name") == []


def test_jobs_that_do_not_end_are_named(queue, tmp_path):
    (tmp_path / "programs" / "scancel").write_text("#!/bin/sh\n")
    with pytest.raises(PacbedError, match="do not end: 17 18"):
        end_jobs("a-name", timeout_s=0)
