"""Make the gallery of the figures of the demo: python docs/gallery.py, after make demo."""

import sys
import textwrap
from pathlib import Path

from PIL import Image

from pacbed.figures import TITLES
from pacbed.figures.report import read_captions
from pacbed.study.configuration import load

HERE = Path(__file__).resolve().parent
IMAGES = HERE / "images/demo"
WIDTH_px = 1200
BEGINNING = """\
# Gallery

The figures of the [demo](tutorial.md), as `make demo` draws them in ten minutes. A study of full
size draws the same ones. `python docs/gallery.py` makes this page from the results.
"""


def main(results: Path) -> None:
    """Write the page and its images."""
    IMAGES.mkdir(exist_ok=True)
    config = load([HERE.parent / "config/demo.yaml"]).plain()
    captions = read_captions(HERE.parent / "workflow/report", config)
    parts = [BEGINNING]
    for name, title in TITLES.items():
        image = Image.open(results / f"figures/{name}.png").convert("RGB")
        image.thumbnail((WIDTH_px, 2 * WIDTH_px))
        image.quantize(128).save(IMAGES / f"{name}.png", optimize=True)
        parts.append(f"## {title}\n\n![{title}](images/demo/{name}.png)\n")
        parts.append(textwrap.fill(captions[name], 119, break_on_hyphens=False) + "\n")
    (HERE / "gallery.md").write_text("\n".join(parts), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else HERE.parent / "results/demo")
