"""Parquet files, which may come from anywhere."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import parquet


def read_parquet(
    file: Path, schema: pa.Schema | None = None, optional: Sequence[pa.Field] = ()
) -> list[dict[str, Any]]:
    """
    Read the rows of a Parquet file.

    :param schema: The columns that are read, as these types; None reads all as they are.
    :param optional: Columns that are read beside them, where they are there.
    :raises FileNotFoundError: If there is no such file.
    :raises ValueError: If it is no Parquet file, is damaged, or lacks a column.
    """
    if not file.is_file():
        msg = f"{file} is missing."
        raise FileNotFoundError(msg)
    try:
        table = parquet.read_table(file)
        lacking = sorted(set(schema.names) - set(table.column_names)) if schema else []
        if not lacking and schema:
            wanted = pa.schema([*schema, *(column for column in optional if column.name in table.column_names)])
            table = table.select(wanted.names).cast(wanted)
        if not lacking:
            return table.to_pylist()
    except (pa.ArrowException, OSError, ValueError, TypeError, LookupError, OverflowError) as error:
        msg = f"{file} can't be read as Parquet ({' '.join(str(error).split())}): it is damaged, or something else."
        raise ValueError(msg) from error
    msg = f"{file} lacks the column {lacking[0]!r}."
    raise ValueError(msg)
