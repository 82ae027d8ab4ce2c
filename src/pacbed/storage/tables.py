"""Tables in files, Parquet or CSV, which say of which study they are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from pacbed.exceptions import DamagedStoreError, PacbedError
from pacbed.storage.files import appearing_whole
from pacbed.storage.nested import flat

try:
    import pyarrow as pa
    import pyarrow.parquet as pq
except ImportError:  # then tables are CSV
    pa = pq = None

STUDY = "study"
"""Column with the digest of the study."""

_FACTS = b"pacbed_study"
# What reading raises for damaged contents, and for nothing else.
_OF_CONTENTS = (
    *([pa.ArrowInvalid] if pa else []),
    pd.errors.ParserError,
    pd.errors.EmptyDataError,
    UnicodeDecodeError,
)
# Columns of CSV files that are text though they may look like numbers.
_TEXT = {STUDY: str, "state": str, "unit": str, "dose": str}


@dataclass(frozen=True)
class Study:
    """What tables of one study have in common.

    Parameters
    ----------
    digest
        Eight hexadecimal digits that stand for what all tables of a study say; empty if nothing is
        known. It is in every row of a table.
    facts
        Values by name, such as ``crystal.energy_keV``. Parquet files keep them, CSV files have the
        digest only.
    """

    digest: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, common: Mapping[str, Any], others: Mapping[str, Any] | None = None) -> Study:
        """Make a study of plain values that may be nested.

        Parameters
        ----------
        common
            What all tables of a study say.
        others
            What only some of them say: two that do must agree.
        """
        common, others = (json.loads(json.dumps(one)) for one in (common, others or {}))
        text = json.dumps(common, sort_keys=True)
        return cls(hashlib.sha256(text.encode()).hexdigest()[:8], dict(flat({**common, **others})))


UNKNOWN = Study()


def one_study(*paths: Path) -> Study:
    """Return of which study some tables are.

    Raises
    ------
    PacbedError
        If a file is missing or damaged or does not say of which study it is, or if they are of
        different studies, naming two of them and in what these differ.
    """
    known: dict[str, Any] = {}
    for path in paths:
        study = read_study(path)
        if not study.digest:
            raise PacbedError(
                f"{path} does not say of which study it is: it was made by another version; delete "
                "it and run again"
            )
        known = {STUDY: study.digest, **known}
        differing = {n: v for n, v in study.facts.items() if known.get(n, v) != v}
        if differing or study.digest != known[STUDY]:
            differing = differing or {STUDY: study.digest}
            said = "; ".join(f"{name}: {known[name]} and {v}" for name, v in differing.items())
            raise PacbedError(
                f"{paths[0]} and {path} are of different studies ({said}): make both with one "
                "configuration, each study in a folder of its own"
            )
        known |= study.facts
    return Study(known.pop(STUDY), known)


def write_table(table: pd.DataFrame, path: Path, study: Study = UNKNOWN) -> Path:
    """Write a table as Parquet or, by its ending, CSV; it appears whole or not at all.

    Without PyArrow all tables are CSV, with that ending.

    Parameters
    ----------
    table
        Its index is not written.
    path
        The file.
    study
        Of which study it is; if given, every row gets its digest.

    Returns
    -------
    pathlib.Path
        The file that was written.

    Raises
    ------
    PacbedError
        If it cannot be written.
    """
    if pq is None:
        path = path.with_suffix(".csv")
    if study.digest:
        table = table.assign(**{STUDY: study.digest})
    with appearing_whole(path) as temporary:
        if path.suffix == ".csv":
            table.to_csv(temporary, index=False)
        else:
            content = pa.Table.from_pandas(table, preserve_index=False)
            noted = {_FACTS: json.dumps(asdict(study))} if study.digest else {}
            content = content.replace_schema_metadata({**content.schema.metadata, **noted})
            pq.write_table(content, temporary)
    return path


def read_table(path: Path) -> pd.DataFrame:
    """Read a table, Parquet or, by its ending, CSV.

    Raises
    ------
    PacbedError
        If it is missing or cannot be read.
    DamagedStoreError
        If its contents are damaged.
    """
    with _reading(path):
        return pd.read_csv(path, dtype=_TEXT) if path.suffix == ".csv" else pd.read_parquet(path)


def read_study(path: Path) -> Study:
    """Return of which study the table in a file is.

    Raises
    ------
    PacbedError
        If it is missing, cannot be read, or has rows of several studies.
    DamagedStoreError
        If its contents are damaged.
    """
    if path.suffix != ".csv":
        with _reading(path):
            noted = (pq.read_schema(path).metadata or {}).get(_FACTS)
            if noted:
                return Study(**json.loads(noted))
    table = read_table(path)
    digests = table[STUDY].unique().tolist() if STUDY in table else [""]
    if len(digests) > 1:
        raise PacbedError(f"{path} has rows of several studies: {', '.join(map(str, digests))}")
    return Study(*digests)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        if pq is None and path.suffix != ".csv":
            path.stat()
            raise PacbedError(
                f"cannot read {path} without PyArrow: pip install pyarrow, or give a table in CSV"
            )
        yield
    except FileNotFoundError as error:
        raise PacbedError(
            f"{path} does not exist: run the workflow, which makes it, or name another"
        ) from error
    except (*_OF_CONTENTS, OSError) as error:
        # pyarrow has no number for an error of the contents, the file system has.
        if isinstance(error, OSError) and error.errno is not None:
            raise PacbedError(f"cannot read {path}: {error.strerror}") from error
        raise DamagedStoreError(path, f"no table can be read ({str(error).rstrip('.')})") from error
    except ValueError as error:
        raise PacbedError(f"cannot read {path}: {error}") from error
