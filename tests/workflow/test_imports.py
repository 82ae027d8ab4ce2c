"""A job imports what it needs: its start is a good part of a short one."""

import ast
import subprocess
import sys

import pytest
from workspace import ROOT

SCRIPTS = ROOT / "workflow" / "scripts"
DRAWING, LEARNING = {"matplotlib.pyplot", "seaborn"}, {"tensorflow", "keras"}
# Half a second each.
NEEDLESS = {"IPython", "jax", "scipy.stats"}


def imported(*scripts):
    """The modules that are there when a process has done the imports of some scripts."""
    bodies = [ast.parse((SCRIPTS / f"{name}.py").read_text()).body for name in scripts]
    imports = [n for body in bodies for n in body if isinstance(n, ast.Import | ast.ImportFrom)]
    there = "print(*(name for name, module in sys.modules.items() if module))"
    code = "\n".join(["import sys", *map(ast.unparse, imports), there])
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=SCRIPTS, capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


@pytest.mark.parametrize(
    ("scripts", "needless"),
    [
        (
            ("draws", "simulate", "scatter", "scatter_draw", "series", "pool_of_draws"),
            DRAWING | LEARNING | NEEDLESS | {"pandas"},
        ),
        (("discs", "bounds", "errors", "fits", "calibration"), DRAWING | LEARNING | NEEDLESS),
        (("pool", "augment", "train", "predict"), DRAWING | NEEDLESS),
        (("figure_of_tables", "figure_of_patterns", "report"), LEARNING),
    ],
)
def test_jobs_import_nothing_that_they_do_not_need(scripts, needless):
    assert imported(*scripts) & needless == set()
