"""Draw docs/images/house.svg: the packages of pacbed in their order, and what imports what."""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import grimp

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "docs/images/house.svg"
ROW, ROOM, ROOF, STEP = 36, 250, 70, 42  # pixels: height and width of a room, the roof, a column
COLOURS = ["#0b5c8e", "#a8480a", "#0a6e52", "#8c3a6b", "#3d6fb6", "#7a6210"]


def rooms() -> list[str]:
    """Return the packages and modules of pacbed, highest first, as pyproject.toml orders them."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    [order] = [c for c in settings["tool"]["importlinter"]["contracts"] if c["id"] == "order"]
    names = [name.strip() for layer in order["layers"] for name in layer.split("|")]
    return [name for name in names if name != "__main__"]


def imports() -> Counter[tuple[str, str]]:
    """Count the imports from a module of one package into a module of another."""
    graph = grimp.build_graph("pacbed", cache_dir=None)
    pairs = (
        (importer.split(".")[1], imported.split(".")[1])
        for importer in graph.modules - {"pacbed"}
        for imported in graph.find_modules_directly_imported_by(importer) - {"pacbed"}
    )
    return Counter((importer, imported) for importer, imported in pairs if importer != imported)


def lines(room: str) -> int:
    """Return the lines of Python in a package or module."""
    path = ROOT / "src/pacbed" / room
    files = path.rglob("*.py") if path.is_dir() else [path.with_suffix(".py")]
    return sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)


def picture() -> str:
    """Return the picture as SVG."""
    names, counts = rooms(), imports()
    middle = {name: ROOF + (row + 0.5) * ROW for row, name in enumerate(names)}
    # The higher a package, the further right its line, so that no line crosses another.
    importers = [name for name in reversed(names) if any(pair[0] == name for pair in counts)]
    column = {name: ROOM + (i + 1) * STEP for i, name in enumerate(importers)}
    width, height = ROOM + (len(importers) + 1) * STEP, ROOF + len(names) * ROW + 30
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="Helvetica, Arial, sans-serif" font-size="15">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<path d="M4 {ROOF} L{ROOM / 2 + 4} 8 L{ROOM + 4} {ROOF} Z" fill="#b5523b"/>',
        f'<text x="{ROOM / 2 + 4}" y="{ROOF - 14}" fill="white" font-weight="bold" '
        'text-anchor="middle">pacbed</text>',
    ]
    for name, y in middle.items():
        parts += [
            f'<line x1="{ROOM}" y1="{y}" x2="{width - 8}" y2="{y}" stroke="#e4e4e4"/>',
            f'<rect x="4" y="{y - ROW / 2}" width="{ROOM}" height="{ROW}" fill="#fbf3e4" '
            'stroke="#8a7a5c"/>',
            f'<text class="room" x="16" y="{y + 5}" font-weight="bold">{name}</text>',
            f'<text x="{ROOM - 8}" y="{y + 5}" fill="#555555" text-anchor="end">'
            f"{lines(name):,} lines</text>",
        ]
    for i, name in enumerate(importers):
        x, y, colour = column[name], middle[name], COLOURS[i % len(COLOURS)]
        imported = [other for other in names if (name, other) in counts]
        parts.append(
            f'<path d="M{ROOM + 4} {y} H{x} V{middle[imported[-1]]}" fill="none" '
            f'stroke="{colour}" stroke-width="2"/>'
        )
        for other in imported:
            parts += [
                f'<circle cx="{x}" cy="{middle[other]}" r="12" fill="{colour}"/>',
                f'<text x="{x}" y="{middle[other] + 5}" fill="white" font-size="14" '
                f'text-anchor="middle">{counts[name, other]}</text>',
            ]
    parts += [
        f'<text x="4" y="{height - 9}" fill="#555555">A line goes from a package down to '
        "those that it imports; the numbers are its imports from each.</text>",
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
