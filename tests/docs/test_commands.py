"""Commands that the pages show are commands that there are; tests/cli has those of pacbed.

Those of the README are run.
"""

import re
import shlex
import signal
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from reading.synthetic_map import synthetic_map

from pacbed.cli import main
from pacbed.cli.app import application
from pacbed.patterns.store import read_patterns
from pacbed.reading.maps.example_scan import Ripple, small_ripple
from pacbed.runs.snakemake_adapter import options
from pacbed.study.configuration import load

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / ".test/README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "profiles/README.md",
    *sorted((ROOT / "docs/notebooks").glob("*.py")),
]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
# Files that a reader writes.
OWN = ("my-study.yaml", "scans.yaml", "ten.yaml")


def commands(page):
    """The commands in the blocks of a page, without comments and with their continued lines."""
    text = page.read_text(encoding="utf-8")
    if page.suffix == ".py":
        cells = re.findall(r"^# !((?:.*\\\n#)*.*)$", text, re.M)
        found = [cell.replace("\\\n#", " ") for cell in cells]
    else:
        blocks = re.findall(r"^```console\n(.*?)^```", text, re.S | re.M)
        lines = "\n".join(blocks).replace("\\\n", " ")
        found = re.findall(r"^\$ (.*)$", lines, re.M)
    split = (
        shlex.split(one.replace("<this repository>", "REPOSITORY"), comments=True) for one in found
    )
    for words in split:
        ends = [i for i, word in enumerate(words) if word in ("&&", "|", ";")]
        for start, end in zip([0, *(i + 1 for i in ends)], [*ends, len(words)], strict=True):
            yield [word for word in words[start:end] if word != "2>/dev/null"]


SHOWN = [(page, words) for page in PAGES for words in commands(page)]


def of(*programs):
    chosen = [(page, words) for page, words in SHOWN if words[0] in programs]
    return pytest.mark.parametrize(
        ("page", "words"), chosen, ids=[f"{p.name}: {' '.join(w)[:60]}" for p, w in chosen]
    )


def test_every_command_is_of_a_program_that_is_tested_here():
    known = {"make", "pacbed", "pip", "snakemake", "source", "git", "cd", "tmux", "docker"}
    assert len(SHOWN) > 40
    assert [words for _, words in SHOWN if words[0] not in known] == []


@of("make")
def test_targets_of_make_are_in_its_file(page, words):
    assert {word for word in words[1:] if "=" not in word} <= TARGETS


@pytest.mark.parametrize("notebook", [p for p in PAGES if p.suffix == ".py"], ids=lambda p: p.stem)
def test_commands_of_notebooks_can_be_given(notebook):
    found = [words for page, words in SHOWN if page == notebook and words[0] == "pacbed"]
    assert len(found) >= 2
    for _, *words in found:
        command, _, _ = application(words[:1]).parse_args(
            words, print_error=False, exit_on_error=False
        )
        assert command.__name__ == words[0]


@of("snakemake")
def test_calls_of_snakemake_are_understood_and_their_files_are_there(page, words, monkeypatch):
    monkeypatch.chdir(ROOT)
    given = options([*words[1:], "--cores", "1"])
    files = [Path(file) for file in given.configfile or ()]
    assert all(file.is_file() or file.name in OWN for file in files)


def test_extras_that_are_named_exist():
    texts = [path.read_text(encoding="utf-8") for path in [*PAGES, *ROOT.glob("src/**/*.py")]]
    named = re.findall(r"pacbed\[([a-z,]+)\]|'\.\[([a-z,]+)\]'", "\n".join(texts))
    assert len(named) > 2
    assert {one for pair in named for one in "".join(pair).split(",")} <= set(EXTRAS)


def study_of_the_readme(folder):
    [block] = re.findall(r"^```yaml\n(.*?)^```", (ROOT / "README.md").read_text(), re.S | re.M)
    (folder / "my-study.yaml").write_text(block, encoding="utf-8")
    return folder / "my-study.yaml"


def test_the_study_of_the_readme_is_a_configuration(tmp_path):
    load([study_of_the_readme(tmp_path)])


# What makes commands of the README small.
COARSE = "--supercell 3 2 --diffuse-waves 16 --incident-step 4"
SMALLER = {
    "make": "--dry-run",
    "snakemake": "--dry-run --quiet",
    "pacbed scan": "--points 6 5 --pixels 64",
    "pacbed scatter": f"--states 6 --layers 10 --semiangle 18.13 --tilt 5 --fov 120 {COARSE}",
    "pacbed design": "--layers 5",
}


def given(words):
    """Give a command of the README, smaller, and return its status."""
    more = SMALLER.get(" ".join(words[:2]), SMALLER.get(words[0], ""))
    words = [*words, *more.split()]
    if words[:2] == ["pacbed", "view"]:
        command = [sys.executable, "-m", *words, "--no-browser"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as page:
            assert "http" in page.stdout.readline()
            page.send_signal(signal.SIGINT)
        return page.returncode
    if words[0] == "pacbed":
        return main(words[1:])
    return subprocess.run(words, stdout=subprocess.DEVNULL).returncode


@pytest.mark.slow
def test_commands_of_the_readme_run(tmp_path, monkeypatch):
    pytest.importorskip("bokeh", reason="for pacbed view")
    for name in ("Makefile", "Snakefile", "config", "profiles", "requirements.lock", "workflow"):
        (tmp_path / name).symlink_to(ROOT / name)
    study_of_the_readme(tmp_path)
    monkeypatch.chdir(tmp_path)
    # Only points are not fitted here, which tests/reading has.
    monkeypatch.setattr("pacbed.cli.map._made", lambda *_: synthetic_map(6, 5))
    monkeypatch.setattr("pacbed.learning.training.configure", lambda *_, **__: None)
    whole, coarse = Ripple.simulate, small_ripple()
    small = {"motion": coarse.motion, "settings": coarse.settings}
    monkeypatch.setattr(
        Ripple, "simulate", lambda asked, report: whole(replace(asked, **small), report)
    )
    for words in commands(ROOT / "README.md"):
        if words[0] == "source":
            continue
        if "measured.npy" in words:
            image = read_patterns(tmp_path / "strained.zarr.zip").patterns[4, 64:192, 64:192]
            np.save("measured.npy", np.random.default_rng(0).poisson(1e7 * np.maximum(image, 0)))
        expected = {"pacbed": 2, "pacbed view": 130}.get(" ".join(words[:2]), 0)
        assert given(words) == expected, words
    made = "mos2.png strained.zarr.zip scan.png map.png read.json read.png any-strain.zarr.zip"
    assert all((tmp_path / name).stat().st_size for name in made.split())


def test_public_continuous_integration_gives_the_commands_of_the_projects_own():
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    given = "\n".join(step.get("run", "") for step in steps)
    targets = set(re.findall(r"^make (\w+)", given, re.M))
    assert targets <= TARGETS
    own = re.findall(r"^make (\w+)", (ROOT / ".ci/run").read_text(), re.M)
    assert set(own) <= targets
    matrix = workflow["jobs"]["check"]["strategy"]["matrix"]
    assert matrix["python"] == ["3.11", "3.12", "3.13"]
    assert [name.partition("-")[0] for name in matrix["os"]] == ["ubuntu", "macos"]
