"""Write what is made of the configuration models: table of keys and JSON schema."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from pacbed.study.configuration import schema

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# Configuration

`config.yaml` is the protocol of Yankovich, Röding & Olsson, Ultramicroscopy 279 (2026) 114246,
complete. Do not edit it for a study of your own: write an overlay with the keys that differ, as
`demo.yaml`, `laptop.yaml` and `recommended.yaml` do, and give it to Snakemake:

    snakemake --profile profiles/local --configfile my-study.yaml

Several files may follow; the last one wins. Mappings are merged key by key; lists are replaced. An
unknown key, a key that is there twice, a wrong type or values that do not fit together stop the run
before anything is planned, with a message that names key, value and what is allowed. Changing a key
reruns what depends on it and nothing else; a larger `draws.count` keeps all draws that exist. A
folder of results that has patterns refuses a configuration that would simulate them again. YAML
reads `1e6` as text: write `1.0e+6`. Single keys can be given on the command line:

    snakemake --profile profiles/local --config draws='{count: 200}'

The defaults are those of `config.yaml`, also for `pacbed` commands in any other folder.
This table, and the JSON schema `workflow/schemas/config.schema.yaml`, are made from
`src/pacbed/study/sections.py` by `make docs`.

| key | type | default | meaning |
| --- | --- | --- | --- |
"""


def rows(whole: dict[str, Any], node: dict[str, Any], key: str = "") -> Iterator[str]:
    """Yield a table row for every key below a node of the schema."""
    for name, child in node["properties"].items():
        full = f"{key}.{name}" if key else name
        if "$ref" in child:
            yield from rows(whole, whole["$defs"][child["$ref"].rpartition("/")[2]], full)
            continue
        default = child["default"]
        if isinstance(default, list) and isinstance(default[0], dict):
            default = "see file"
        default = "null" if default is None else default
        yield f"| `{full}` | {' or '.join(kinds(child))} | {default} | {child['description']} |\n"


def kinds(node: dict[str, Any]) -> list[str]:
    """Return what a value may be."""
    if "anyOf" in node:
        return [kind for one in node["anyOf"] for kind in kinds(one)]
    if "$ref" in node:
        return ["mapping"]
    if "const" in node:
        return [f"`{node['const']}`"]
    if "enum" in node:
        return [f"`{value}`" for value in node["enum"]]
    return [node["type"]]


def pages() -> dict[Path, str]:
    """Return the files and their contents."""
    made = schema()
    return {
        ROOT / "config/README.md": HEAD + "".join(rows(made, made)),
        ROOT / "workflow/schemas/config.schema.yaml": (
            "# Made from src/pacbed/study/sections.py by make docs.\n"
            + yaml.safe_dump(
                made, sort_keys=False, allow_unicode=True, default_flow_style=None, width=100
            )
        ),
    }


if __name__ == "__main__":
    for path, text in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
