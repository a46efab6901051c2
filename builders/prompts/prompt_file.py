"""Reads a prompt file as a table: lines of text, CSV, JSON lines or Parquet, on this machine or at a URL.

A file may be named by a pattern, as in hf://datasets/user/captions/data/*.parquet; its files are read in sorted order.
"""

import fnmatch
import io
import json
import os
import posixpath
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from builders.command_line.text_list import parse_list
from builders.errors import UserError, first_line
from builders.storage.base import open_storage

NAMES = {
    "class": ("class", "wnid"), "text": ("text", "prompt", "caption"), "weight": ("weight",), "skip": ("skip",),
    "source": ("source",),
}  # fmt: skip
"""What a column may be called in a file, by its name in the table."""
TYPES = {
    "class": pa.string(), "text": pa.string(), "weight": pa.float64(), "skip": pa.bool_(), "source": pa.string(),
}  # fmt: skip
MAX_COLUMNS = 1000
MAX_HEADER = 1 << 20
"""Upper limit in bytes for the line with the names of the columns."""
MAX_ROW = 1 << 22
"""Upper limit in bytes for one row of CSV or JSON lines; readers take as much at a time."""


def read_prompt_file(where: str) -> pa.Table:
    """Returns the rows of a prompt file with those columns of `TYPES` that it has; values may be null.

    Raises:
        UserError: the file cannot be read, its name has another ending, or it has no column of texts.
        UnreachableError: the server does not answer.
    """
    reader = _reader(where)
    try:
        tables = [reader(name, source) for name, source in _open_all(where)]
        table = pa.concat_tables(tables, promote_options="permissive")
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError, UnicodeError) as error:
        raise UserError(f"prompt file '{where}' cannot be read ({_reason(error)})") from None
    if not table.num_rows:
        raise UserError(f"prompt file '{where}' has no rows; give it a prompt in each")
    return table


def _reader(where: str) -> Callable[[str, Any], pa.Table]:
    name = where.partition("?")[0].removesuffix(".gz").lower()
    readers = {
        ".txt": _read_text, ".csv": _read_csv, ".tsv": _read_csv, ".jsonl": _read_json, ".ndjson": _read_json,
        ".json": _read_json, ".parquet": _read_parquet,
    }  # fmt: skip
    ending = posixpath.splitext(name)[1]
    if os.path.isdir(where):
        raise UserError(f"'{where}' is a folder; give --prompts a file, or a pattern such as '{where}/*.parquet'")
    if ending not in readers:
        raise UserError(f"prompt file '{where}' is none of {', '.join(readers)}; save it as one of these")
    return readers[ending]


def _open_all(where: str) -> list[tuple[str, Any]]:
    """Returns the names and contents of the files that a path, URL or pattern names: a path here, or bytes from a server."""
    folder, name = posixpath.split(where)
    if "://" not in where:
        if any(mark in name for mark in "*?[") and not os.path.exists(where):
            names = sorted(fnmatch.filter(os.listdir(folder or "."), name))
            found: list[tuple[str, Any]] = [(os.path.join(folder, one), os.path.join(folder, one)) for one in names]
        else:
            found = [(where, where)]
    else:
        storage = open_storage(folder)
        is_pattern = any(mark in name for mark in "*[")
        names = fnmatch.filter(storage.names(""), name) if is_pattern else [name]
        found = [(f"{folder}/{one}", io.BytesIO(storage.read(one))) for one in names]
    if not found:
        raise UserError(f"no file matches '{where}'; check the pattern")
    return found


def _stream(name: str, source: Any) -> Any:
    return pa.input_stream(source, compression="gzip" if name.lower().endswith(".gz") else None)


def _read_text(name: str, source: Any) -> pa.Table:
    with _stream(name, source) as stream:
        lines = parse_list(stream.read(), name, "a prompt template in each line")
    return pa.table({"text": [line.text for line in lines]})


def _read_csv(name: str, source: Any) -> pa.Table:
    delimiter = "\t" if name.removesuffix(".gz").lower().endswith(".tsv") else ","
    columns = _columns(name, _header(name, source).decode("utf-8-sig").rstrip("\r\n").split(delimiter))
    return _renamed(
        pyarrow.csv.read_csv(
            _stream(name, source),
            read_options=pyarrow.csv.ReadOptions(block_size=MAX_ROW),
            parse_options=pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                include_columns=list(columns.values()),
                column_types={column: TYPES[role] for role, column in columns.items()},
                null_values=[""],
                strings_can_be_null=False,
            ),
        ),
        columns,
    )


def _read_json(name: str, source: Any) -> pa.Table:
    header = _header(name, source, MAX_ROW)
    first = json.loads(header) if header.strip() else {}
    if not isinstance(first, dict):
        raise UserError(f"prompt file '{name}' does not hold JSON lines, an object in each; save it as such")
    # A first row may lack what later ones have.
    columns = {**{role: role for role in TYPES}, **_columns(name, list(first))}
    schema = pa.schema([(column, TYPES[role]) for role, column in columns.items()])
    return _renamed(
        pyarrow.json.read_json(
            _stream(name, source),
            read_options=pyarrow.json.ReadOptions(block_size=MAX_ROW),
            parse_options=pyarrow.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
        ),
        columns,
    )


def _read_parquet(name: str, source: Any) -> pa.Table:
    with pq.ParquetFile(source) as file:
        columns = _columns(name, file.schema_arrow.names)
        table = _renamed(file.read(columns=list(columns.values())), columns)
    return table.cast(pa.schema([(role, TYPES[role]) for role in table.column_names]))


def _header(name: str, source: Any, most: int = MAX_HEADER) -> bytes:
    """Returns the first line of a file."""
    stream = _stream(name, source)
    head = stream.read(most)
    if isinstance(source, io.BytesIO):
        source.seek(0)
    line, end, _ = bytes(head).partition(b"\n")
    if not end and len(head) == most:
        raise UserError(f"the first line of prompt file '{name}' has more than {most:,} bytes; give it fewer columns")
    return line


def _columns(name: str, found: Sequence[str]) -> dict[str, str]:
    """Returns the file's column for each column of the table that it has."""
    if len(found) > MAX_COLUMNS:
        raise UserError(f"prompt file '{name}' has {len(found):,} columns; keep class, text, weight, skip and source")
    present = [column.strip().strip('"') for column in found]
    columns = {}
    for role, choices in NAMES.items():
        fitting = [choice for choice in choices if choice in present]
        if len(fitting) > 1:
            raise UserError(f"prompt file '{name}' has the columns {' and '.join(fitting)}; keep one of them")
        if fitting:
            columns[role] = fitting[0]
    if "text" not in columns:
        shown = ", ".join(present[:5])[:100]
        raise UserError(f"prompt file '{name}' has no column text, prompt or caption, but {shown}; name one of them so")
    return columns


def _renamed(table: pa.Table, columns: dict[str, str]) -> pa.Table:
    """Returns the table with our names for its columns, without those that hold nothing."""
    roles = {column: role for role, column in columns.items()}
    table = table.rename_columns([roles[column] for column in table.column_names])
    empty = [name for name in table.column_names if name != "text" and table[name].null_count == table.num_rows]
    return table.drop_columns(empty)


def _reason(error: Exception) -> str:
    reason = first_line(error)[:200]
    return f"it has a row of more than {MAX_ROW:,} bytes" if "straddl" in reason else reason
