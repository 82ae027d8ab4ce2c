"""What a controller costs: thousands of jobs, and a study in which nothing is to be done.

    python benchmarks/controller.py                 # 5000 trivial jobs with profiles/local
    python benchmarks/controller.py --jobs 500 --seconds 0.1
    python benchmarks/controller.py --rate 100/1s   # with the rate limit of Snakemake
    python benchmarks/controller.py --complete      # the paper's study, all of it there already

The second writes a tiny file for every output of the study and has Snakemake take note of them
(some minutes), then asks it to run the study again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
PROFILE = ("--profile", str(ROOT / "profiles" / "local"))
WORKFLOW = """
from pacbed.runs.snakemake_adapter import lift_rate_limit

onstart:
    lift_rate_limit(workflow)

rule all:
    input:
        expand("made/{{number}}", number=range({jobs})),

rule trivial:
    output:
        "made/{{number}}",
    benchmark:
        "benchmarks/{{number}}.tsv"
    shell:
        "sleep {seconds}; touch {{output}}"
"""


def main() -> None:
    """Run the benchmark that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=5000, help="number of trivial jobs")
    parser.add_argument("--seconds", type=float, default=0, help="length of a job")
    parser.add_argument("--rate", help="jobs that may be started in a time, such as 1000/3s")
    parser.add_argument("--complete", action="store_true", help="a study that is complete")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="pacbed-controller-") as folder:
        if options.complete:
            complete(Path(folder))
        else:
            trivial(Path(folder), options.jobs, options.seconds, options.rate)


def trivial(folder: Path, jobs: int, seconds: float, rate: str | None) -> None:
    """Measure many jobs that do nothing, and a tenth of them."""
    limit = ["--max-jobs-per-timespan", rate] if rate else []
    print(f"{'jobs':>6} {'s per job':>10} {'CPU s per job':>14} {'peak memory MB':>15}")
    for number in (jobs // 10, jobs):
        place = folder / str(number)
        place.mkdir()
        (place / "Snakefile").write_text(WORKFLOW.format(jobs=number, seconds=seconds))
        took_s, cpu_s, memory_MB = measure([*PROFILE, "--cores", "2", *limit], place)
        assert len(list((place / "made").iterdir())) == number
        print(f"{number:6} {took_s / number:10.4f} {cpu_s / number:14.4f} {memory_MB:15.0f}")


def complete(folder: Path) -> None:
    """Measure the paper's study when nothing is to be done."""
    study = ["--snakefile", str(ROOT / "Snakefile"), "--cores", "2"]
    summary = subprocess.run(
        [*snakemake(), *study, "--summary"], cwd=folder, capture_output=True, text=True, check=True
    )
    files = [line.split("\t")[0] for line in summary.stdout.splitlines()]
    for file in (folder / name for name in files if name.startswith("results/")):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"there")
    print(f"{len(files)} files; Snakemake takes note of them", flush=True)
    quiet = ["--quiet", "rules", "progress", "--max-jobs-per-timespan", "100000/60s"]
    measure([*study, "--touch", "--forceall", *quiet], folder)
    seconds, cpu_s, memory_MB = measure([*study, *PROFILE], folder)
    print(f"nothing to be done: {seconds:.1f} s, {cpu_s:.1f} s of CPU, {memory_MB:.0f} MB")


def snakemake() -> list[str]:
    """Return the command."""
    return [sys.executable, "-m", "snakemake"]


def measure(arguments: list[str], folder: Path) -> tuple[float, float, float]:
    """Run Snakemake; return its seconds, its own CPU seconds and its largest memory in MB."""
    started = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        process = subprocess.Popen([*snakemake(), *arguments], cwd=folder, stdout=log, stderr=log)
        peak, cpu_s = [0.0], [0.0]

        def watch() -> None:
            controller = psutil.Process(process.pid)
            while process.poll() is None:
                try:
                    peak[0] = max(peak[0], controller.memory_info().rss / 1e6)
                    times = controller.cpu_times()
                    cpu_s[0] = times.user + times.system
                except psutil.NoSuchProcess:
                    return
                time.sleep(0.2)

        watcher = threading.Thread(target=watch)
        watcher.start()
        status = process.wait()
        watcher.join()
    if status:
        sys.exit(f"Snakemake failed:\n{(folder / 'log.txt').read_text()[-2000:]}")
    return time.perf_counter() - started, cpu_s[0], peak[0]


if __name__ == "__main__":
    os.environ.pop("SNAKEMAKE_PROFILE", None)
    main()
