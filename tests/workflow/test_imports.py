"""A job imports what it needs: its start is a good part of a short one."""

import ast
import re
import subprocess
import sys
from importlib import metadata

import pytest
import yaml
from hiding import HIDE
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from workspace import ROOT

SCRIPTS = ROOT / "workflow" / "scripts"
DRAWING, LEARNING = {"matplotlib.pyplot", "seaborn"}, {"tensorflow", "keras"}
# Half a second each.
NEEDLESS = {"IPython", "jax", "scipy.stats"}


def imported(*scripts, hidden=()):
    """The modules that are there when a process has done the imports of some scripts."""
    bodies = [ast.parse((SCRIPTS / f"{name}.py").read_text()).body for name in scripts]
    imports = [n for body in bodies for n in body if isinstance(n, ast.Import | ast.ImportFrom)]
    there = "print(*(name for name, module in sys.modules.items() if module))"
    hide = HIDE.format(hidden=set(hidden)) if hidden else ""
    code = "\n".join(["import sys", hide, *map(ast.unparse, imports), there])
    done = subprocess.run([sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("scripts", "needless"),
    [
        (
            ("draws", "simulate", "scatter", "series", "pool_of_draws"),
            DRAWING | LEARNING | NEEDLESS | {"pandas"},
        ),
        (("discs", "bounds", "errors", "fits", "calibration"), DRAWING | LEARNING | NEEDLESS),
        (("pool", "augment", "train", "predict"), DRAWING | NEEDLESS),
        (("figure_of_tables", "figure_of_patterns", "report"), LEARNING),
    ],
)
def test_jobs_import_nothing_that_they_do_not_need(scripts, needless):
    assert imported(*scripts) & needless == set()


def environments():
    """Which scripts run in which environment of conda."""
    found = {}
    for file in (ROOT / "workflow/rules").glob("*.smk"):
        for rule in re.split(r"^ *rule\b", file.read_text(), flags=re.M)[1:]:
            rule = rule.partition("\nuse rule")[0]
            environment = re.search(r"\.\./envs/(.+?)\.yaml", rule)
            if script := re.search(r"\.\./scripts/(\w+)\.py", rule):
                name = re.sub(r"\{.*?\}", "planewave", environment[1])
                found.setdefault(name, set()).add(script[1])
    return found


def installed_with(names):
    """These packages and all that they need."""
    found, left = set(), [canonicalize_name(name) for name in names]
    while left:
        if (name := left.pop()) not in found:
            found.add(name)
            try:
                needed = map(Requirement, metadata.requires(name) or ())
            except metadata.PackageNotFoundError:
                continue
            here = [one for one in needed if not one.marker or one.marker.evaluate({"extra": ""})]
            left += [canonicalize_name(one.name) for one in here]
    return found


ENVIRONMENTS = environments()


@pytest.mark.parametrize("name", sorted(ENVIRONMENTS))
def test_environments_have_what_their_scripts_import(name):
    content = yaml.safe_load((ROOT / f"workflow/envs/{name}.yaml").read_text())["dependencies"]
    lines = [line for one in content for line in (one["pip"] if isinstance(one, dict) else [one])]
    names = {re.match(r"[\w-]+", line)[0] for line in lines}
    if "tensorflow" in names:
        names.add("tensorflow-cpu")  # what tests have of it
    there = installed_with(names) | {"pacbed", "snakemake-logger-plugin-budget"}  # of the checkout
    owners = metadata.packages_distributions()
    absent = {
        module
        for module, [owner, *_] in owners.items()
        if canonicalize_name(owner) not in there | {"pip", "setuptools"}
    }
    assert {"snakemake", "pytest"} <= absent
    assert "numpy" in imported(*ENVIRONMENTS[name], hidden=absent)
