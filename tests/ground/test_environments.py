"""The environments of conda have the versions of the lock, and what the library asks for."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
PYTHON = "3.11"  # of conda's environments; the oldest that the library allows
HERE = {
    "python_version": PYTHON,
    "python_full_version": f"{PYTHON}.9",
    "sys_platform": "linux",
    "platform_machine": "x86_64",
    "os_name": "posix",
    "platform_python_implementation": "CPython",
}
# Of conda alone; and what the lock has under another name.
CONDA_ONLY = {"python", "pip", "pyprismatic"}
LOCKED_AS = {"tensorflow": "tensorflow-cpu"}
ENVIRONMENTS = sorted((ROOT / "workflow/envs").glob("*.yaml"))


def requirements(lines):
    return [Requirement(line) for line in lines if not line.startswith("#")]


LOCKED = {
    canonicalize_name(one.name): one.specifier
    for one in requirements((ROOT / "requirements.lock").read_text().splitlines())
    if one.marker is None or one.marker.evaluate(HERE)
}
ASKED = {
    canonicalize_name(one.name): one.specifier
    for lines in (PROJECT["dependencies"], *PROJECT["optional-dependencies"].values())
    for one in requirements(lines)
}


def content(path):
    """The packages of an environment, each with what it says of the version."""
    found = {}
    for one in yaml.safe_load(path.read_text(encoding="utf-8"))["dependencies"]:
        for line in one["pip"] if isinstance(one, dict) else [one]:
            name, version = re.fullmatch(r"([\w-]+)(?:\[[\w,-]+\])?(.*)", line).groups()
            assert name not in found, f"{name} is there twice"
            found[name] = version
    return found


def version_of(specifier):
    [one] = specifier
    assert one.operator == "=="
    return Version(one.version)


@pytest.fixture(params=ENVIRONMENTS, ids=lambda path: path.stem)
def environment(request):
    return content(request.param)


def test_environments_have_the_oldest_python_that_the_library_allows(environment):
    assert environment["python"] == f"={PYTHON}"
    assert f">={PYTHON}" in PROJECT["requires-python"]


def test_environments_have_the_versions_of_the_lock(environment):
    for name, version in environment.items():
        if name in CONDA_ONLY:
            continue
        assert name in ASKED, f"{name} is in no list of pyproject.toml"
        locked = version_of(LOCKED[LOCKED_AS.get(name, name)])
        if version.startswith(">="):  # left to the solver, as pyproject.toml has it
            lower = [one.version for one in ASKED[name] if one.operator == ">="]
            assert version == f">={lower[0]}", name
        else:
            assert Version(version.lstrip("=")) == locked, name


def test_where_versions_are_left_to_the_solver_the_reason_is_pyprismatic(environment):
    free = {name for name, version in environment.items() if version.startswith(">=")}
    assert not free or "pyprismatic" in environment


def test_every_environment_can_read_stores_and_a_configuration(environment):
    assert {"numpy", "scipy", "zarr", "pydantic", "pyyaml", "threadpoolctl"} <= set(environment)


def test_recipes_of_images_have_these_environments_and_the_lock():
    recipe = (ROOT / "workflow/Dockerfile").read_text(encoding="utf-8")
    for path in ENVIRONMENTS:
        if path.stem != "simulate-prismatic-gpu":  # nodes without a card cannot make it
            shown = "".join(f"#   {line}\n" for line in path.read_text().splitlines())
            assert shown in recipe, f"{path} has changed: make workflow/Dockerfile, where conda is"
    alone = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    assert "--requirement requirements.lock" in alone
    python = re.search(r"^FROM python:([\d.]+)", alone, re.M)[1]
    assert python in SpecifierSet(PROJECT["requires-python"])


def test_rules_name_environments_that_there_are():
    rules = [path.read_text() for path in (ROOT / "workflow/rules").glob("*.smk")]
    named = set(re.findall(r"\.\./envs/([\w{}()-]+)\.yaml", "".join(rules)))
    names = {path.stem for path in ENVIRONMENTS}
    for name in named:
        pattern = re.sub(r"\{[^}]*\}", ".+", name)
        assert any(re.fullmatch(pattern, one) for one in names), name


def test_the_lock_has_what_the_library_asks_for():
    for name, specifier in ASKED.items():
        if name == "snakemake-logger-plugin-budget":  # part of this repository
            continue
        name = {"tensorflow": "tensorflow-cpu"}.get(name, name)
        assert version_of(LOCKED[name]) in specifier, name
