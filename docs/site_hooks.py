"""Pages of the site that do not stand in this folder, and a reference of every package."""

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src/pacbed"
# Pages of the site, and the files that they show.
ELSEWHERE = {
    "configuration.md": "config/README.md",
    "profiles.md": "profiles/README.md",
    "reference-patterns.md": "tests/data/README.md",
    "changelog.md": "CHANGELOG.md",
}
LINK = re.compile(r"\]\((?!https?:|#)([^)#\s]+)(#[^)\s]*)?\)")


def packages() -> list[str]:
    """Return the packages and modules of the library, in their order on the page of the house."""
    table = (ROOT / "docs/architecture.md").read_text(encoding="utf-8").split("| package |")[1]
    return re.findall(r"^\| `(\w+)` \|", table.split("\n\n")[0], re.M)


def reference(package: str) -> str:
    """Return the page of a package: what it is for, and its modules."""
    folder = SOURCE / package
    if not folder.is_dir():
        return f"# pacbed.{package}\n\n::: pacbed.{package}\n"
    files = sorted(folder.rglob("*.py"))
    dotted = [".".join(f.relative_to(SOURCE.parent).with_suffix("").parts) for f in files]
    modules = [name.removesuffix(".__init__") for name in dotted]
    public = [name for name in modules if "._" not in name]
    return f"# pacbed.{package}\n\n" + "\n".join(f"::: {name}\n" for name in public)


def on_config(config: Any) -> Any:
    """Fill the part of the navigation that lists the packages."""
    for part in config.nav:
        if "Library" in part:
            part["Library"] = [{f"pacbed.{one}": f"library/{one}.md"} for one in packages()]
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages."""
    for page, source in ELSEWHERE.items():
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    for one in packages():
        files.append(File.generated(config, f"library/{one}.md", content=reference(one)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Let links to files of the repository lead to their pages, or to nowhere if they have none."""
    here = ROOT / ELSEWHERE.get(page.file.src_uri, f"docs/{page.file.src_uri}")
    pages = {(ROOT / source).resolve(): name for name, source in ELSEWHERE.items()}

    def replaced(found: re.Match[str]) -> str:
        target, anchor = (here.parent / found[1]).resolve(), found[2] or ""
        if target in pages:
            return f"]({pages[target]}{anchor})"
        if target.is_relative_to(ROOT / "docs"):
            return f"]({target.relative_to(ROOT / 'docs').as_posix()}{anchor})"
        return "]()" if target.exists() else found[0]

    markdown = re.sub(r"\[([^\]]*)\]\(\)", r"\1", LINK.sub(replaced, markdown))
    return markdown.replace("] [default:", "] \\[default:")  # which would be a reference


def on_page_content(html: str, **_: Any) -> str:
    """Show names in docstrings without their roles."""
    return re.sub(r":(?:class|func|mod|meth|data|attr|exc):(?=<code>)", "", html)
