"""The reference of the commands is that of the command line."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from pacbed.cli.app import COMMANDS, application
from pacbed.study.configuration import load

ROOT = Path(__file__).resolve().parents[2]
MAKER = ROOT / "docs/cli_reference.py"
WRITTEN = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## pacbed (\w+)\n(.*?)(?=^## |\Z)", WRITTEN, re.S | re.M))


def test_the_reference_is_made_from_the_command_line():
    spec = importlib.util.spec_from_file_location("cli_reference", MAKER)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.reference() == WRITTEN, "docs/cli.md is out of date: run make docs"


def test_every_command_has_a_section_that_describes_its_options():
    assert list(SECTIONS) == list(COMMANDS)
    for name, section in SECTIONS.items():
        described = re.findall(r"^\* `([^`]+)`: (.*)", section, re.M)
        assert described, name
        assert not [option for option, text in described if text.startswith(("[", "*"))], name


def test_the_list_of_commands_says_what_their_sections_begin_with():
    for name, (_, summary) in COMMANDS.items():
        assert SECTIONS[name].strip().startswith(f"{summary}\n"), name


def test_the_reference_does_not_depend_on_the_machine(tmp_path):
    code = (
        "import os, runpy, sys; os.sched_getaffinity = os.cpu_count = lambda *_: range(977);"
        "print(runpy.run_path(sys.argv[1])['reference'](), end='')"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "COLUMNS": "40"}
    command = [sys.executable, "-c", code, str(MAKER)]
    made = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert made.stdout.decode() == WRITTEN
    assert "PosixPath" not in WRITTEN


def test_the_examples_are_commands_that_can_be_given():
    examples = re.findall(r"^pacbed .*", WRITTEN, re.M)
    assert len(examples) == len(COMMANDS)
    for example in examples:
        words = shlex.split(example)[1:]
        command, _, _ = application(words[:1]).parse_args(words, exit_on_error=False)
        assert command.__name__ == words[0]


# The pages beside it

PAGES = [ROOT / f"docs/{name}.md" for name in ("index", "tutorial", "how-to", "physics", "cli")]


def anchors(page):
    """The names by which GitHub links to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_the_map_names_every_page_of_the_documentation():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= set(re.findall(r"\]\((\S+?\.md)\)", index))


def blocks(name, language):
    text = (ROOT / f"docs/{name}.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


OVERLAYS = [(name, block) for name in ("tutorial", "how-to") for block in blocks(name, "yaml")]


@pytest.mark.parametrize(("name", "overlay"), OVERLAYS)
def test_overlays_in_the_documentation_can_be_used(name, overlay, tmp_path):
    file = tmp_path / "my-study.yaml"
    file.write_text(overlay, encoding="utf-8")
    # The tutorial begins with the demo; what has results of its own overlays the paper's protocol.
    demo = [ROOT / "config/demo.yaml"] if name == "tutorial" and "results:" not in overlay else []
    load([ROOT / "config/config.yaml", *demo, file])


def test_python_in_the_documentation_imports_what_there_is():
    found = [block for name in ("tutorial", "how-to") for block in blocks(name, "python")]
    assert len(found) == 2
    for block in found:
        compile(block, "how-to.md", "exec")
        imports = [line for line in block.splitlines() if re.match("from pacbed", line)]
        exec("\n".join(imports), {})
