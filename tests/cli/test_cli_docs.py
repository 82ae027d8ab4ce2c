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


COMMANDS_IN_DOCUMENTATION = sorted(
    {
        command.replace("\\\n", " ")
        for page in [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *ROOT.glob("profiles/*.md")]
        for command in re.findall(
            r"^ *(?:\$ )?(pacbed [a-z]+(?:\\\n|[^#\n])*)", page.read_text(encoding="utf-8"), re.M
        )
        if "…" not in command
    }
)


@pytest.mark.parametrize("line", COMMANDS_IN_DOCUMENTATION)
def test_commands_in_the_documentation_can_be_given(line):
    words = shlex.split(line)[1:]
    app = application(words[:1])
    command, bound, _ = app.parse_args(words, print_error=False, exit_on_error=False)
    assert command.__name__ == words[0]
    assert bound.arguments or words == ["doctor"]
