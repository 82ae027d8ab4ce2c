"""A real SLURM cluster of one node on this machine, for tests: in a folder with a short name.

Everything it has lies in one folder: nothing of an installed cluster is read or changed. Its node
claims more than the machine has, so that jobs as large as those of a study can run, several at a
time. There is no accounting: `squeue --states=all` and `scontrol` know the finished jobs.
"""

import contextlib
import ctypes
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

NODE = "node"
GPUS = 2

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scancel", "scontrol")

# Daemons are where a user's PATH may not lead.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={hostname}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmUser=root
# A requeued job may start again when its credential has expired: two minutes, if not said.
AuthInfo=socket={folder}/munge.socket,cred_expire=10
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MailProg=/bin/true

# Without cgroups, which a container may not have.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none

# At once what takes a while on a cluster that many use.
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
PriorityType=priority/basic
KillWait=5

# Finished jobs stay known for a day.
MinJobAge=86400
# A node that a test takes down stays down.
ReturnToService=1

SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=100
GresTypes=gpu
SlurmdParameters=config_overrides

NodeName={node} NodeHostname={hostname} NodeAddr=127.0.0.1 Port={node_port} \
CPUs=160 SocketsPerBoard=1 CoresPerSocket=160 ThreadsPerCore=1 \
RealMemory=512000 Gres=gpu:a100:{gpus} State=UNKNOWN
PartitionName=cpu Nodes={node} MaxTime=INFINITE DefaultTime=60 State=UP Default=YES
PartitionName=gpu Nodes={node} MaxTime=INFINITE DefaultTime=60 State=UP
"""


ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "TIMEOUT"}


class ClusterError(RuntimeError):
    """The cluster could not do what was asked."""


@dataclass(frozen=True)
class Job:
    """What SLURM knows of a job."""

    id: str
    state: str
    partition: str
    cpus: int
    memory_mb: float
    gpus: int
    time_limit_s: int
    comment: str
    requeue: bool
    restarts: int
    work_dir: Path

    @classmethod
    def of(cls, line: str) -> "Job":
        """Read a line of `scontrol show job --oneliner --details`."""
        fields = _fields(line)
        tres = dict(item.split("=") for item in fields.get("TRES", "").split(",") if "=" in item)
        memory = tres.get("mem", "0M")
        requested = " ".join(fields.get(key, "") for key in ("TresPerJob", "TresPerNode"))
        return cls(
            id=fields["JobId"],
            state=fields["JobState"],
            partition=fields["Partition"],
            cpus=int(fields["NumCPUs"].partition("-")[0]),
            memory_mb=float(memory[:-1]) * {"K": 2**-10, "M": 1, "G": 2**10}[memory[-1]],
            gpus=sum(int(n) for n in re.findall(r"gpu(?::\w+)?:(\d+)", requested)),
            time_limit_s=_seconds(fields["TimeLimit"]),
            comment=fields.get("Comment", ""),
            requeue=fields["Requeue"] == "1",
            restarts=int(fields["Restarts"]),
            work_dir=Path(fields["WorkDir"]),
        )


def _fields(line: str) -> dict[str, str]:
    # Values may have spaces and signs of equality, and empty ones are followed by two spaces.
    found = re.findall(r"(\S+?)=(.*?)(?= [A-Z][\w/:]*=|\s*$)", line)
    return {key: value.strip() for key, value in found}


def _seconds(text: str) -> int:
    days, _, clock = text.rpartition("-")
    hours, minutes, seconds = map(int, clock.split(":"))
    return ((int(days or 0) * 24 + hours) * 60 + minutes) * 60 + seconds


@dataclass
class Cluster:
    """A cluster in a folder, which must be empty and have a short name."""

    folder: Path
    _guards: list[subprocess.Popen] = field(default_factory=list, repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """What leads the programs of SLURM to this cluster."""
        path = os.pathsep.join([str(self.folder / "bin"), PATH])
        return {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    # Its life

    def __enter__(self) -> "Cluster":
        self._configure()
        try:
            self._start_daemons()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_) -> None:
        """End all daemons and all processes of all jobs."""
        for guard in self._guards:
            guard.stdin.close()
        for guard in self._guards:
            guard.wait(timeout=30)
        self._guards.clear()

    # Jobs

    def jobs(self) -> list[Job]:
        """All jobs since the start, in order, the finished ones too."""
        text = self.call("scontrol", "show", "job", "--oneliner", "--details")
        return [Job.of(line) for line in text.splitlines() if line.startswith("JobId=")]

    def wait_for(self, job_id: str, state: str, timeout: float = 60) -> None:
        """Wait until a job is in a state."""

        def job() -> Job:
            return next(job for job in self.jobs() if job.id == job_id)

        wait_until(lambda: job().state == state, timeout, lambda: f"{state} of {job()}")

    def clear(self) -> None:
        """Have no job and an idle node, whatever a test left."""
        if "DOWN" in self.node_state():
            self.node_up()

        def idle() -> bool:
            left = [job.id for job in self.jobs() if job.state not in ENDED]
            for job in left:
                # It may end by itself at this moment.
                with contextlib.suppress(ClusterError):
                    self.call("scancel", job)
            return not left and self.node_state() == "IDLE"

        wait_until(idle, 60, lambda: f"idle: {self.node_state()}, {self.jobs()}")

    # The node

    def node_state(self) -> str:
        """State of the node, such as IDLE, MIXED or DOWN."""
        return _fields(self.call("scontrol", "show", "node", "--oneliner", NODE))["State"]

    def node_down(self) -> None:
        """Take the node down: its jobs fail or are requeued."""
        self.call("scontrol", "update", f"NodeName={NODE}", "State=DOWN", "Reason=test")

    def node_up(self) -> None:
        """Bring the node back and wait until it takes jobs."""
        self.call("scontrol", "update", f"NodeName={NODE}", "State=RESUME")
        wait_until(self._node_is_up, 60, lambda: f"the node: {self.node_state()}")

    # How it is done

    def call(self, *command: str) -> str:
        """Run one of SLURM's programs; what it prints."""
        done = subprocess.run(
            command,
            env={**_without_slurm(os.environ), **self.environment},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def _configure(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("state", "spool"):
            (self.folder / name).mkdir(mode=0o755)
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        self._configure_srun()
        controller_port, node_port = _free_ports(2)
        configuration = CONFIGURATION.format(
            folder=self.folder,
            # The part by which slurmd looks for its own node.
            hostname=socket.gethostname().partition(".")[0],
            controller_port=controller_port,
            node_port=node_port,
            node=NODE,
            gpus=GPUS,
        )
        (self.folder / "slurm.conf").write_text(configuration)
        # They must be devices and have numbers, but nobody opens them.
        devices = [self.folder / f"gpu{i}" for i in range(GPUS)]
        for device in devices:
            device.symlink_to("/dev/null")
        (self.folder / "gres.conf").write_text(
            "".join(f"NodeName={NODE} Name=gpu Type=a100 File={d}\n" for d in devices)
        )

    def _configure_srun(self) -> None:
        # Snakemake calls it in a job without SLURM_CONF: it expects the configuration in /etc.
        srun = self.folder / "bin" / "srun"
        srun.parent.mkdir()
        srun.write_text(
            f"#!/bin/sh\nexport SLURM_CONF='{self.folder}/slurm.conf'\n"
            f'exec {shutil.which("srun", path=PATH)} "$@"\n'
        )
        srun.chmod(0o755)

    def _start_daemons(self) -> None:
        at = self.folder
        self._start_daemon(
            *("munged", "--foreground", "--force", f"--key-file={at}/munge.key"),
            *(f"--socket={at}/munge.socket", f"--pid-file={at}/munged.pid"),
            f"--seed-file={at}/munged.seed",
            ready=(at / "munge.socket").exists,
        )
        self._start_daemon("slurmctld", "-D", "-c", ready=self._controller_is_up)
        self._start_daemon("slurmd", "-D", "-c", ready=self._node_is_up)

    def _start_daemon(self, name: str, *arguments: str, ready: Callable[[], bool]) -> None:
        log = self.folder / f"{name}.log"
        with log.open("wb") as output:
            guard = subprocess.Popen(
                [sys.executable, __file__, name, *arguments],
                env={**_without_slurm(os.environ), **self.environment},
                cwd=self.folder,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                # An interrupt from the keyboard is for the tests, which then stop the cluster.
                start_new_session=True,
            )
        self._guards.append(guard)

        def ready_or_dead() -> bool:
            return guard.poll() is not None or ready()

        wait_until(ready_or_dead, 60, lambda: f"{name} to start:\n{_end_of(log)}")
        if guard.poll() is not None:
            raise ClusterError(f"{name} did not start:\n{_end_of(log)}")

    def _controller_is_up(self) -> bool:
        try:
            return "is UP" in self.call("scontrol", "ping")
        except ClusterError:
            return False

    def _node_is_up(self) -> bool:
        return self.node_state() in ("IDLE", "MIXED", "ALLOCATED")


def missing() -> list[str]:
    """Why no cluster can run here; nothing when it can."""
    reasons = []
    if absent := [name for name in PROGRAMS if not shutil.which(name, path=PATH)]:
        reasons.append(
            f"SLURM is not installed: {', '.join(absent)}. "
            "On Debian: apt-get install munge slurmctld slurmd slurm-client."
        )
    if sys.platform != "linux" or os.geteuid() != 0:
        reasons.append("Only root on Linux can start a SLURM cluster.")
    return reasons


def wait_until(condition: Callable[[], bool], timeout: float, awaited: Callable[[], str]) -> None:
    """Wait until a condition is met; after the timeout, fail and say what was awaited."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {timeout:g} s for {awaited()}")
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _without_slurm(environment) -> dict[str, str]:
    # Tests may themselves run in a job of another cluster.
    ours = ("SLURM_", "SBATCH_", "SRUN_", "SCANCEL_", "SQUEUE_")
    return {k: v for k, v in environment.items() if not k.startswith(ours)}


def _end_of(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-20:])


# A daemon runs under a guard, a process of its own: this file as a program. When the standard
# input of the guard ends, because the cluster is stopped or the tests were killed, the guard ends
# the daemon and all it started. Jobs are among these: SLURM's are made to outlive its daemons.


def guard(command: list[str]) -> None:
    """Run a command and end it, with all its descendants, when the standard input ends."""
    adopt_orphans = 36  # PR_SET_CHILD_SUBREAPER
    if ctypes.CDLL(None, use_errno=True).prctl(adopt_orphans, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    subprocess.Popen(command, stdin=subprocess.DEVNULL)
    threading.Thread(target=_end_all_with_input, daemon=True).start()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _end_all_with_input() -> None:
    os.read(sys.stdin.fileno(), 1)
    while True:
        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        time.sleep(0.02)


if __name__ == "__main__":
    guard(sys.argv[1:])
