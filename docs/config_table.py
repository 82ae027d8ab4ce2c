"""Write config/README.md: the table of configuration keys, from the JSON schema."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# Configuration

`config.yaml` is the protocol of Yankovich, Röding & Olsson, Ultramicroscopy 279 (2026) 114246,
complete. Do not edit it for a study of your own: write an overlay with the keys that differ, as
`demo.yaml` does, and give it to Snakemake:

    snakemake --profile profiles/local --configfile my-study.yaml

Several files may follow; the last one wins. Mappings are merged key by key; lists are replaced. An
unknown key, a wrong type or values that do not fit together stop the run before anything is
planned, with a message that names key, value and what is allowed. Changing a key reruns what
depends on it and nothing else; a larger `draws.count` keeps all draws that exist. A folder of
results that has patterns refuses a configuration that would simulate them again. YAML reads `1e6`
as text: write `1.0e+6`.

The table is made from `src/pacbed/study/config.schema.yaml` by `make docs`.

| key | type | default | meaning |
| --- | --- | --- | --- |
"""


def rows(schema: dict[str, Any], node: dict[str, Any], key: str = "") -> Iterator[str]:
    """Yield a table row for every key below a node of the schema."""
    for name, child in node.get("properties", {}).items():
        full = f"{key}.{name}" if key else name
        resolved = child
        if "$ref" in child:
            target = schema["$defs"][child["$ref"].rsplit("/", 1)[1]]
            resolved = {**target, **child}
        if "properties" in resolved:
            yield from rows(schema, resolved, full)
            continue
        kind = " or ".join(kinds(resolved))
        default = resolved.get("default", "see file")
        default = "null" if default is None else default
        yield f"| `{full}` | {kind} | {default} | {resolved.get('description', '')} |\n"


def kinds(node: dict[str, Any]) -> list[str]:
    """Return what a value may be."""
    if "oneOf" in node:
        return [kind for one in node["oneOf"] for kind in kinds(one)]
    if "const" in node:
        return [f"`{node['const']}`"]
    if "enum" in node:
        return [f"`{value}`" for value in node["enum"]]
    kind = node.get("type", "")
    return kind if isinstance(kind, list) else [kind]


def table() -> str:
    """Return the contents of config/README.md."""
    schema = yaml.safe_load((ROOT / "src/pacbed/study/config.schema.yaml").read_text())
    return HEAD + "".join(rows(schema, schema))


if __name__ == "__main__":
    (ROOT / "config/README.md").write_text(table(), encoding="utf-8")
