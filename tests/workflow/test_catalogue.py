"""What the catalogue of Snakemake workflows, snakedeploy and other workflows expect of this one."""

import os
import shutil
import subprocess
import sys

import pytest
import yaml
from test_plan import EVERYTHING
from workspace import ROOT, TINY, Outcome

MAIN = ROOT / "workflow/Snakefile"

# As snakedeploy writes it, with rules of its own.
OUTER = """
configfile: "config/config.yaml"

module pacbed:
    snakefile: {snakefile}
    config: config{key}

use rule * from pacbed as pacbed_*

rule own:
    output: "own.txt"
    shell: "touch {{output}}"

rule all:
    default_target: True
    input: "own.txt", rules.pacbed_all.input
"""


def snakemake(folder, *arguments):
    clean = {k: v for k, v in os.environ.items() if not k.startswith("SNAKEMAKE")}
    return subprocess.run(
        [sys.executable, "-m", "snakemake", "--cores", "1", *arguments],
        cwd=folder,
        env=clean,
        capture_output=True,
        text=True,
    )


def git(*arguments):
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def outer(folder, snakefile, key=""):
    """A workflow that has this one as a module."""
    (folder / "config").mkdir()
    config = {**TINY, "results": "results/tiny"}
    shown = {"pacbed": config} if key else config
    (folder / "config/config.yaml").write_text(yaml.safe_dump(shown))
    (folder / "Snakefile").write_text(OUTER.format(snakefile=snakefile, key=key))
    return folder


def test_what_the_catalogue_needs_is_there():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert set(usage) == {"mandatory-flags", "software-stack-deployment", "report"}
    assert set(usage["mandatory-flags"]) == {"desc", "flags"}
    assert usage["software-stack-deployment"]["conda"]
    words = usage["mandatory-flags"]["flags"].split()
    assert all((ROOT / word).exists() for word in words if not word.startswith("--"))
    for name in (
        "README.md",
        "LICENSE",
        "workflow/Snakefile",
        "workflow/schemas/config.schema.yaml",
        "config/config.yaml",
        "config/README.md",
        ".test/config/config.yaml",
    ):
        assert (ROOT / name).exists(), name


def test_the_main_file_of_the_catalogue_plans_what_the_one_at_the_top_plans(workspace):
    assert workspace.plan("--snakefile", str(MAIN)).jobs == EVERYTHING


@pytest.mark.parametrize("key", ["", '["pacbed"]'])
def test_another_workflow_uses_this_one_as_a_module(tmp_path, key):
    arguments = [] if key else ["--config", "draws={count: 5}"]
    done = snakemake(outer(tmp_path, repr(str(MAIN)), key), "--dry-run", *arguments)
    assert done.returncode == 0, done.stderr
    expected = {f"pacbed_{name}": n for name, n in EVERYTHING.items() if name != "all"}
    expected["pacbed_simulate"] += 0 if key else 1  # numbers of --config reach the module
    assert Outcome(done.returncode, done.stdout).jobs == {**expected, "own": 1, "all": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="another folder of caches")
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="no git repository")
def test_a_module_from_a_forge_runs(tmp_path, monkeypatch):
    # Snakemake keeps clones in its cache, and asks no forge for a commit that is in one.
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cache = tmp_path / "cache/snakemake/snakemake/source-cache/snakemake-git-cache"
    clone = cache / "github.com/someone/pacbed"
    git("clone", "--quiet", "--bare", str(ROOT), str(clone))
    commit = git("-C", str(ROOT), "rev-parse", "HEAD")
    file = f"github('someone/pacbed', path='workflow/Snakefile', commit={commit!r})"
    outer(tmp_path, file)
    done = snakemake(tmp_path, "results/tiny/draws.csv")
    log = tmp_path / "results/tiny/logs/draws.log"
    assert done.returncode == 0, done.stderr + (log.read_text() if log.exists() else "")
    assert (tmp_path / "results/tiny/draws.csv").read_text().startswith("semiangle_mrad")


@pytest.mark.parametrize("profile", [[], ["--profile", str(ROOT / "profiles/local")]])
def test_the_graph_of_the_rules_is_all_that_is_printed(tmp_path, profile):
    file = ROOT / ".test/config/config.yaml"
    arguments = "--snakefile", str(ROOT / "Snakefile"), "--configfile", str(file), "--rulegraph"
    done = snakemake(tmp_path, *profile, *arguments)
    text = done.stdout.strip()
    assert done.returncode == 0, done.stderr
    assert text.startswith("digraph")
    assert text.endswith("}")
    assert text.count("{") == text.count("}") == 1
    if dot := shutil.which("dot"):
        subprocess.run([dot, "-Tsvg", "-o", "/dev/null"], input=text, text=True, check=True)
