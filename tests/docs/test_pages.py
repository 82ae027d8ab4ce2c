"""What the pages of the documentation show can be used."""

import re
from pathlib import Path

import pytest

from pacbed.study.configuration import load

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]


def anchors(page):
    """The names by which GitHub links to the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for link in re.findall(r"\]\((?!http)([^)\s]+)\)", text):
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_the_map_names_every_page_of_the_documentation():
    index = (ROOT / "docs/index.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages <= set(re.findall(r"\]\((\S+?\.md)\)", index))


def test_the_site_has_every_page_of_the_documentation():
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert pages <= set(re.findall(r": (\S+\.md)$", site, re.M))


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
    load([*demo, file])


def test_python_in_the_documentation_imports_what_there_is():
    found = [block for name in ("tutorial", "how-to") for block in blocks(name, "python")]
    assert len(found) == 2
    for block in found:
        compile(block, "how-to.md", "exec")
        imports = [line for line in block.splitlines() if re.match("from pacbed", line)]
        exec("\n".join(imports), {})
