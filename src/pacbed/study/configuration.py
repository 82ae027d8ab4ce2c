"""From files to a configuration: read, laid over the paper's protocol, and checked."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pacbed.exceptions import ConfigError
from pacbed.study.model import Configuration, merge
from pacbed.study.problems import problems
from pacbed.study.sections import canonical


def load(paths: Sequence[Path] = ()) -> Configuration:
    """Read overlays of the paper's protocol, and check the result.

    Parameters
    ----------
    paths
        YAML files; later ones are merged over earlier ones, mappings key by key. A file need not
        have all keys: what no file has is as in ``config/config.yaml``.

    Raises
    ------
    ConfigError
        If a file cannot be read or the result cannot be used.

    Examples
    --------
    Without a file it is the paper's protocol.

    >>> study = load()
    >>> study.microscope.energy_keV, study.simulation.engine, study.dataset.layers
    (80, 'prismatic', (1, 2, 3, 4, 5, 10, 15, 20))
    """
    return checked(overlaid(paths), paths)


def overlaid(paths: Sequence[Path]) -> dict[str, Any]:
    """Read overlays of the paper's protocol, and return all keys with their values, unchecked.

    Raises
    ------
    ConfigError
        If a file cannot be read.
    """
    merged = Configuration().plain()
    for path in paths:
        merge(merged, _read(Path(path)))
    return merged


def of_workflow(
    config: Mapping[str, Any], files: Sequence[Path | str], arguments: Mapping[str, Any]
) -> Configuration:
    """Check the configuration that Snakemake has put together.

    Parameters
    ----------
    config
        The configuration.
    files
        Of what it is made: of two equal keys in one file, Snakemake takes the last without a word.
    arguments
        Values of ``--config``: in nested ones, Snakemake takes all numbers for text.

    Raises
    ------
    ConfigError
        If it cannot be used.
    """
    for file in map(Path, files):
        if file.suffix != ".json":
            _read(file)
    merged = Configuration().plain()
    merge(merged, config)
    # As a module of another workflow, this one may have no part in them.
    nested = {key: v for key, v in arguments.items() if key in config and not isinstance(v, str)}
    merge(merged, {key: _typed(value) for key, value in nested.items()})
    return checked(merged, files)


def of_record(values: Mapping[str, Any]) -> Configuration:
    """Make a configuration of what a run has written down.

    Raises
    ------
    ConfigError
        If it is none.
    """
    study = _made(values, ())
    absent = [name for name in Configuration.model_fields if name not in study.model_fields_set]
    _refuse([f"'{name}' is missing" for name in absent], ())
    return study


def checked(values: Mapping[str, Any], files: Sequence[Path | str] = ()) -> Configuration:
    """Make a configuration of plain values, which some files gave.

    Raises
    ------
    ConfigError
        Naming the files and listing every problem, one line each: key, value, what is allowed.
    """
    from pacbed.study.checks import conflicts

    study = _made(values, files)
    _refuse(list(conflicts(study)), files)
    return study


def _made(values: Any, files: Sequence[Path | str]) -> Configuration:
    try:
        return Configuration.model_validate(values)
    except ValidationError as error:
        _refuse(list(problems(error, values, Configuration)), files)
        raise


def _refuse(found: Sequence[str], files: Sequence[Path | str]) -> None:
    if found:
        given = f" ({', '.join(map(str, files))})" if files else ""
        raise ConfigError("\n  - ".join([f"the configuration{given} cannot be used:", *found]))


def _typed(value: Any) -> Any:
    """Return nested values of ``--config`` as YAML reads them, not all as text."""
    if isinstance(value, Mapping):
        return {key: _typed(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_typed(one) for one in value]
    if not isinstance(value, str):
        return value
    loader = yaml.SafeLoader("")
    tag = loader.resolve(yaml.ScalarNode, value, (True, False))
    return loader.construct_object(yaml.ScalarNode(tag, value))


def _read(path: Path) -> dict[str, Any]:
    """Read a YAML file whose keys are all different."""
    try:
        with path.open(encoding="utf-8") as file:  # whose name is in errors of YAML
            loader = yaml.SafeLoader(file)
            node = loader.get_single_node()
        repeated = list(_repeated(node))
        content = loader.construct_document(node) if node else None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not text in UTF-8: save it in that encoding") from error
    except RecursionError as error:
        raise ConfigError(f"{path} is not valid YAML: something holds itself") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    if repeated:
        raise ConfigError("\n".join(f"{path}: {line}" for line in repeated))
    if not isinstance(content, dict):
        raise ConfigError(f"{path} must be a mapping of keys to values")
    return content


def _repeated(node: yaml.Node | None, above: str = "") -> Iterator[str]:
    """Yield the keys that are there twice in a mapping."""
    lines: dict[str, int] = {}
    for number, item in enumerate(node.value if isinstance(node, yaml.CollectionNode) else ()):
        key, value = item if isinstance(node, yaml.MappingNode) else (None, item)
        name = f"{above}{number if key is None else key.value}"
        yield from _repeated(value, f"{name}.")
        line = (key or value).start_mark.line + 1
        if name in lines:
            yield (
                f"'{name}' is there twice, in lines {lines[name]} and {line}: keep one of them, "
                "with all that belongs to it"
            )
        lines.setdefault(name, line)


def schema() -> dict[str, Any]:
    """Return the JSON schema of a configuration."""
    made = Configuration.model_json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": made.pop("description"),
        **_without_titles(made),
    }


def _without_titles(node: Any) -> Any:
    """Return a schema without the titles that pydantic adds, and every text in one line."""
    if isinstance(node, list):
        return [_without_titles(one) for one in node]
    if isinstance(node, dict):
        return {key: _without_titles(one) for key, one in node.items() if key != "title"}
    return " ".join(node.split()) if isinstance(node, str) else canonical(node)
