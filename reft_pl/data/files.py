"""Read rows from JSON, JSON lines and CSV files of any suffix, UTF encoding or compression."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from reft_pl.damage import kind_of
from reft_pl.errors import UserError

_GZIP = b"\x1f\x8b"
_OTHER = {
    b"PK\x03\x04": "a ZIP archive: unpack it",
    b"BZh": "a bzip2 archive: unpack it",
    b"\xfd7zXZ": "an xz archive: unpack it",
    b"\x28\xb5\x2f\xfd": "a Zstandard archive: unpack it",
    b"PAR1": "a Parquet file: rename it to .parquet",
    b"ARROW1": "an Arrow file: name the folder that save_to_disk wrote",
    b"%PDF": "a PDF: convert it to JSON lines",
    b"SQLite format 3": "an SQLite database: convert it to JSON lines",
}
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_MAX_FIELD = 2**31 - 1  # characters in a CSV field; the csv module's default limit is 131,072


class RowError(Exception):
    """A row that is not a valid problem. ``reason`` is a category to count; ``detail`` names the location and the fault."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason
        self.detail = detail


def format_of(path: Path) -> str:
    """Return the suffix that names the file format, in lower case and without ``.gz``: ``.jsonl`` for ``train.jsonl.gz``."""
    return Path(path.name.lower().removesuffix(".gz")).suffix


def read_json_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | RowError]]:
    """Yield the location and the object of every row of a JSON list or of JSON lines, whatever the file's suffix.

    A broken line, or a row that is not an object, is yielded as a ``RowError``.

    Raises:
        UserError: the file cannot be read, or is neither a JSON list nor JSON lines.
    """
    text = read_text(path)
    if text.lstrip()[:1] == "[":
        rows = _json_list(path, text)
        if rows is not None:
            for number, row in enumerate(rows, start=1):
                yield _checked(f"item {number}", row)
            return
    elif _is_one_value(text):
        value = _parsed(path, text)
        if isinstance(value, dict) and "\n" not in text.strip() and (format_of(path) == ".jsonl" or text.endswith("\n")):
            yield "line 1", value
            return
        names = [name for name, rows in value.items() if isinstance(rows, list)] if isinstance(value, dict) else []
        kind = "one object" if isinstance(value, dict) else f"a single {type(value).__name__}"
        hint = f"keep only the list under {names[0]!r}" if names else "write a list of objects, or one object per line"
        raise UserError(f"{path} is not a list of rows but {kind}; {hint}")
    yield from _json_lines(text)


def read_csv_rows(path: Path) -> Iterator[tuple[str, dict[str, Any] | RowError]]:
    """Yield the location and the fields of every row of a CSV file with a header.

    Columns are separated by commas, or by the semicolons, tabs or bars that the header uses instead. A row with more fields
    than the header is yielded as a ``RowError``.

    Raises:
        UserError: the file cannot be read, its header names a column twice, or a quote is not closed.
    """
    limit = csv.field_size_limit(_MAX_FIELD)
    text = read_text(path)
    header = text.partition("\n")[0]
    delimiter = next((sign for sign in ",;\t|" if sign in header), ",")
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    try:
        names = [name.strip() for name in reader.fieldnames or []]
        reader.fieldnames = names
        if repeated := next((name for name in names if names.count(name) > 1), None):
            raise UserError(f"{path} has two columns {repeated!r}: rename one")
        for row in reader:
            place = f"line {reader.line_num}"
            if None in row:
                yield place, RowError("too many fields", f"{place} has more fields than the header")
            else:
                yield place, row
    except csv.Error as error:
        raise UserError(f"{path} is broken after line {reader.line_num}: {error}; correct the file") from None
    finally:
        csv.field_size_limit(limit)


def read_text(path: Path) -> str:
    """Read a text file, decompressing gzip: UTF-8, UTF-16, or UTF-32 with a byte order mark.

    Raises:
        UserError: the file cannot be read as text; the message names the actual file type if it is known.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"file not found: {path}; check the path in the config") from None
    except IsADirectoryError:
        raise UserError(f"cannot read {path}: it is a folder; give the path of a file") from None
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    if data.startswith(_GZIP):
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise UserError(f"{path} is a damaged gzip file ({error}): copy it again") from None
    what = kind_of(data) or next((what for begin, what in _OTHER.items() if data.lstrip(b" \r\n\t").startswith(begin)), None)
    if what is not None:
        raise UserError(f"{path} is {what}")
    encoding = next((name for bom, name in _BOMS.items() if data.startswith(bom)), None) or _without_bom(data)
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not {encoding.removesuffix('-sig').upper()} text (byte {error.start}); convert it to UTF-8"
        ) from None


def _without_bom(data: bytes) -> str:
    """Detect the encoding without a byte order mark: JSON and CSV start with ASCII, which has a zero byte in UTF-16."""
    return {(True, False): "utf-16-be", (False, True): "utf-16-le"}.get((data[:1] == b"\0", data[1:2] == b"\0"), "utf-8")


def _json_lines(text: str) -> Iterator[tuple[str, dict[str, Any] | RowError]]:
    for number, line in enumerate(text.split("\n"), start=1):  # not splitlines(): texts may contain U+2028
        if not line.strip():
            continue
        place = f"line {number}"
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            yield place, RowError("broken JSON", f"broken JSON at {place}: {error.msg}")
        except (ValueError, RecursionError) as error:
            yield place, RowError("broken JSON", f"{place} cannot be read as JSON: {error}")
        else:
            yield _checked(place, value)


def _checked(place: str, row: Any) -> tuple[str, dict[str, Any] | RowError]:
    return place, row if isinstance(row, dict) else RowError("not an object", f"{place} is not a JSON object")


def _json_list(path: Path, text: str) -> list[Any] | None:
    """Parse the text as one list; None if each line is a list, which ``_json_lines`` reports line by line."""
    first = text.lstrip().partition("\n")[0]
    if first.rstrip().endswith("]") and not _is_one_value(text) and _is_one_value(first):
        return None
    rows: list[Any] = _parsed(path, text)
    return rows


def _is_one_value(text: str) -> bool:
    try:
        json.loads(text)
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(path: Path, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{path}: broken JSON at line {error.lineno}, column {error.colno}: {error.msg}; correct the file"
        ) from None
    except (ValueError, RecursionError) as error:  # a number with thousands of digits, brackets nested thousands deep
        raise UserError(f"{path} cannot be read as JSON: {error}; correct the file") from None
