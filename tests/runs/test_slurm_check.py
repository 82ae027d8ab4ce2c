"""SLURM is asked whether it would take the jobs; stand-ins answer as it does."""

from types import SimpleNamespace

import pytest

from pacbed.exceptions import PacbedError
from pacbed.runs.results_folder import Submitted
from pacbed.runs.slurm import JobRequest, check_cluster, check_requests, end_jobs

NO_ACCOUNT = "Invalid account or account/partition combination specified"
# As SLURM 22.05 answers.
SBATCH = f"""
echo "$@" >> "$RECORD"
case "$*" in
  *"-p nowhere"*)
    echo "sbatch: error: invalid partition specified: nowhere" >&2
    echo "allocation failure: Invalid partition name specified" >&2; exit 1;;
  *"-A proj"*) echo "sbatch: Job 1 to start at 2026-11-26T12:12:03" >&2; exit 0;;
  *) echo "allocation failure: {NO_ACCOUNT}" >&2; exit 1;;
esac"""
GOOD = {"slurm_account": "proj"}


class Slurm:
    """Stand-ins for the programs of SLURM."""

    def __init__(self, folder):
        self.programs, self.record, self.folder = folder / "programs", folder / "record", folder
        self.programs.mkdir()
        self.program("sbatch", SBATCH)
        self.program("sinfo", "echo cpu\necho gpu")
        self.program("squeue", "")  # without it the plugin cannot be imported

    def program(self, name, script):
        (self.programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.programs / name).chmod(0o755)

    def settings(self, **changes):
        """Options of the SLURM plugin of Snakemake."""
        given = {"logdir": self.folder / "logs", "status_command": None, "qos": None}
        given |= {"requeue": True, "no_requeue": False, "reservation": None}
        return SimpleNamespace(**given | changes)

    def check(self, resources, rule="simulate", threads=1, **settings):
        check_cluster([JobRequest(rule, threads, resources)], self.settings(**settings))

    def complaint(self, resources, **how):
        with pytest.raises(PacbedError) as error:
            self.check(resources, **how)
        return str(error.value)

    def asked(self):
        return [line.split() for line in self.record.read_text().splitlines()]


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    made = Slurm(tmp_path)
    monkeypatch.setenv("RECORD", str(made.record))
    monkeypatch.setenv("PATH", f"{made.programs}:/usr/bin:/bin")
    return made


def test_slurm_is_asked_for_what_the_plugin_will_submit(slurm):
    resources = GOOD | {
        "slurm_partition": "gpu",
        "slurm_extra": "--signal=TERM@120 --exclusive",
        "mem_mb": 29000,
        "runtime": 4320,
        "gres": "gpu:a100:1",
        "constraint": "big",
        "expected_s": "5",
    }
    slurm.check(resources, threads=8, qos="long")
    (asked,) = slurm.asked()
    for words in (
        "--test-only --parsable",
        "-A proj -p gpu",
        "-t 4320 -C big --mem 29000 --requeue --qos=long --cpus-per-task=8",
        "--signal=TERM@120 --exclusive --gres=gpu:a100:1",
        "--wrap=true",
    ):
        assert words in " ".join(asked)


def test_equal_jobs_are_asked_about_once_and_larger_ones_too(slurm):
    jobs = [JobRequest("augment", 8, GOOD | {"mem_mb": mb}) for mb in (1000, 2000, 1000)]
    check_cluster(jobs, slurm.settings())
    assert len(slurm.asked()) == 2


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ({"gres": "gpu:a100-80gb:1"}, "Invalid GRES format: gpu:a100-80gb:1"),
        ({"gpu_model": "a100-80gb"}, "Invalid GPU model format: a100-80gb"),
        ({"slurm_extra": "--mem=5"}, "--memory option is not allowed"),
    ],
)
def test_what_the_plugin_will_refuse_is_refused_before_anything_is_submitted(
    slurm, resources, said
):
    text = slurm.complaint(GOOD | resources, rule="train")
    assert "The SLURM plugin of Snakemake would refuse jobs" in text
    assert "train: " in text
    assert said in text
    assert not slurm.record.exists()


@pytest.mark.parametrize("gres", ["gpu:3090:1", "gpu:1g.5gb:1", "gpu:a100:2", "gpu"])
def test_what_the_plugin_will_send_is_not_refused(gres):
    assert len(check_requests([JobRequest("train", 8, {"gres": gres})])) == 1


def test_a_missing_or_wrong_account_is_named(slurm):
    text = slurm.complaint({"slurm_partition": "cpu"})
    assert f"simulate: {NO_ACCOUNT}; " in text
    assert "the account is not given" in text
    assert "top of the profile" in text
    assert "the account is 'other'" in slurm.complaint({"slurm_account": "other"})


def test_a_partition_that_does_not_exist_is_named_with_those_that_do_for_all_rules(slurm):
    wrong = GOOD | {"slurm_partition": "nowhere"}
    jobs = [JobRequest("simulate", 1, wrong), JobRequest("train", 8, wrong)]
    with pytest.raises(PacbedError) as error:
        check_cluster(jobs, slurm.settings())
    for rule in ("simulate", "train"):
        said = f"{rule}: invalid partition specified: nowhere"
        assert f"{said}; Invalid partition name specified; there are: cpu, gpu" in str(error.value)


@pytest.mark.parametrize(("keeps_accounts", "follows"), [(True, "sacct"), (False, "squeue")])
def test_a_program_that_answers_is_good_enough(slurm, keeps_accounts, follows):
    slurm.program("sacct", f"exit {0 if keeps_accounts else 1}")
    slurm.check(GOOD, status_command=follows)


def test_a_program_that_would_never_report_an_end_is_refused(slurm):
    slurm.program("sacct", "echo Slurm accounting storage is disabled >&2; exit 1")
    text = slurm.complaint(GOOD, status_command="sacct")
    assert "storage is disabled" in text
    assert "slurm-status-command: squeue" in text


def test_a_machine_without_slurm_is_told_what_to_do(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    text = slurm.complaint(GOOD)
    assert "there is no sbatch on this machine" in text
    assert "profiles/local" in text


def test_a_machine_whose_slurm_does_not_answer_is_told_so(slurm):
    slurm.program("sinfo", "echo 'sinfo: error: Unable to contact slurm controller' >&2; exit 1")
    text = slurm.complaint(GOOD)
    assert "SLURM does not answer on this machine" in text
    assert "Unable to contact slurm controller" in text
    assert not slurm.record.exists()


def test_a_folder_for_logs_that_cannot_be_made_is_named(slurm, tmp_path):
    (tmp_path / "logs").write_text("in the way")
    text = slurm.complaint(GOOD, logdir=tmp_path / "logs" / "slurm")
    assert str(tmp_path / "logs" / "slurm") in text
    assert not slurm.record.exists()


# Jobs of an earlier run

OURS = Submitted("a-name", "process 7 on login1", has_ended=True)


@pytest.fixture
def queue(slurm):
    """Two jobs of the earlier run."""
    listing = '[ -e "$RECORD.cancelled" ] || case "$*" in *--name=a-name*) echo 17; echo 18;; esac'
    slurm.program("squeue", listing)
    slurm.program("scancel", 'touch "$RECORD.cancelled"')
    return slurm


def test_jobs_of_an_earlier_run_are_found_by_its_name_and_ended(queue):
    assert end_jobs(None) == 0
    assert end_jobs(Submitted("another", OURS.owner, True)) == 0
    assert end_jobs(OURS) == 2
    assert end_jobs(OURS) == 0


def test_jobs_of_a_run_that_may_be_at_work_are_left(queue):
    with pytest.raises(PacbedError, match=r"2 jobs of process 7 on login1 .*--name=a-name"):
        end_jobs(Submitted(OURS.name, OURS.owner, has_ended=False))
    assert not (queue.folder / "record.cancelled").exists()


def test_jobs_that_do_not_end_are_named(queue):
    queue.program("scancel", "")
    with pytest.raises(PacbedError, match="do not end: 17 18"):
        end_jobs(OURS, timeout_s=0)


def test_a_queue_that_does_not_answer_is_not_taken_for_an_empty_one(queue):
    queue.program("squeue", "echo 'slurm_load_jobs error: Socket timed out' >&2; exit 1")
    with pytest.raises(PacbedError, match=r"which jobs are in the queue .*Socket timed out"):
        end_jobs(OURS)
