"""Documentation that is made from the code is that of this code, and its links lead somewhere."""

import importlib.util
import re
from pathlib import Path

import pytest
import yaml

from pacbed import __version__

ROOT = Path(__file__).resolve().parents[2]
ARCHITECTURE = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")


def script(name):
    """A program in docs, as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def packages():
    """The packages and modules of pacbed, but for the command's entry."""
    found = {p.stem for p in (ROOT / "src/pacbed").iterdir() if p.suffix == ".py" or p.is_dir()}
    return found - {"__init__", "__main__", "__pycache__"}


def test_the_table_of_configuration_keys_and_the_schema_are_those_of_the_models():
    for path, text in script("config_table").pages().items():
        assert path.read_text(encoding="utf-8") == text, f"{path} is out of date: run make docs"


def test_changes_and_citation_are_of_this_version():
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest, date = re.search(r"^## \[(\d\S*)\] - (\S+)$", changes, re.M).groups()
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert newest == citation["version"] == __version__
    assert date == citation["date-released"]


def test_the_picture_of_the_packages_shows_all_there_are_in_their_order():
    house = script("house")
    rooms = r'<text class="room"[^>]*>(\w+)</text>'
    drawn = re.findall(rooms, house.PICTURE.read_text(encoding="utf-8"))
    assert drawn == re.findall(rooms, house.picture()), "house.svg is out of date: make docs"
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == packages()


def test_the_table_of_the_packages_has_all_there_are():
    table = ARCHITECTURE.split("| package |")[1].split("\n\n")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.M)) == packages()


@pytest.mark.parametrize(
    "page", ["README.md", "CONTRIBUTING.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md"))]
)
def test_files_that_the_documentation_names_exist(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:src|workflow|config|profiles|benchmarks|tests)/[\w./-]*)`", text)
    assert not [name for name in named if not (ROOT / name).exists() and "NAME" not in name]


def test_names_of_modules_in_the_documentation_are_those_of_modules():
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for name in re.findall(r"`(pacbed(?:\.\w+)+)", page.read_text(encoding="utf-8")):
            path = ROOT / "src" / name.replace(".", "/")
            within = [path.parent.with_suffix(".py"), path.parent / "__init__.py"]
            assert (
                path.exists()
                or path.with_suffix(".py").exists()
                or any(p.exists() and path.name in p.read_text(encoding="utf-8") for p in within)
            ), (page.name, name)
