"""Tables as text, as CSV and as Excel workbooks, row by row: memory does not grow with the rows.

Must not query. Invariants: numbers, dates and durations are such in a workbook; nothing that a
client could choose, such as the name of a file, is ever taken for a formula by a spreadsheet.
"""

from __future__ import annotations

import csv
import enum
import io
import tempfile
from contextlib import closing
from datetime import UTC, datetime, timedelta, tzinfo
from typing import IO, TYPE_CHECKING, Any, TypeVar

from holdfast.base.errors import Unsupported
from holdfast.base.units import format_count, format_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from holdfast.control.jobs.activity import Column, Value

Row = TypeVar("Row")

ROWS_OF_A_SHEET = 1_048_575
"""A sheet of a workbook has so many, beside its titles (Excel's specification); then begins
another."""

LONGEST_CELL = 32_767
"""In characters, by the same specification."""

_FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a cell begins with that spreadsheets take for a formula, in wide letters too."""

_CHUNK_BYTES = 256 << 10
_CHUNK_ROWS = 200


class Format(enum.StrEnum):
    """What a table is written as."""

    TEXT = "text"
    CSV = "csv"
    EXCEL = "xlsx"

    @property
    def media_type(self) -> str:
        """For HTTP."""
        return _MEDIA_TYPES[self]

    @property
    def suffix(self) -> str:
        """Of a file's name."""
        return ".txt" if self is Format.TEXT else f".{self}"


_MEDIA_TYPES = {
    Format.TEXT: "text/plain; charset=utf-8",
    Format.CSV: "text/csv; charset=utf-8; header=present",
    Format.EXCEL: "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


def chunks(
    form: Format, columns: Sequence[Column[Row]], rows: Iterable[Row], zone: tzinfo = UTC
) -> Iterator[bytes]:
    """Write a table in pieces, as rows come.

    Args:
        form: What it is written as.
        columns: Which columns it has.
        rows: In their order. A workbook is complete only when all have come.
        zone: Whose time is written in text and workbooks; in CSV it is always UTC.

    Raises:
        Unsupported: There is no openpyxl to write workbooks with.
    """
    if form is Format.EXCEL:
        return _excel_chunks(columns, rows, zone)
    lines = _csv(columns, rows) if form is Format.CSV else _text(columns, rows, zone)
    return _gathered(lines)


def write(
    file: IO[bytes],
    form: Format,
    columns: Sequence[Column[Row]],
    rows: Iterable[Row],
    zone: tzinfo = UTC,
) -> None:
    """Write a table into a file; see `chunks`."""
    for chunk in chunks(form, columns, rows, zone):
        file.write(chunk)


# -- text and CSV -------------------------------------------------------------------------------


def _text(columns: Sequence[Column[Row]], rows: Iterable[Row], zone: tzinfo) -> Iterator[str]:
    yield "  ".join(one.title.ljust(one.width) for one in columns).rstrip() + "\n"
    for row in rows:
        cells = []
        for one in columns:
            value = one.value(row)
            words = _words(value, zone, is_size=one.is_size)
            number = isinstance(value, int | timedelta)
            cells.append(words.rjust(one.width) if number else words.ljust(one.width))
        yield "  ".join(cells).rstrip() + "\n"


def _words(value: Value, zone: tzinfo, *, is_size: bool) -> str:
    if value is None:
        return "-"
    if isinstance(value, datetime):
        return f"{value.astimezone(zone):%Y-%m-%d %H:%M:%S}"
    if isinstance(value, timedelta):
        return _clock(value)
    if isinstance(value, int):
        return format_size(value) if is_size else format_count(value)
    return _one_line(value)


def _clock(value: timedelta) -> str:
    minutes, seconds = divmod(round(value.total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}"


def _csv(columns: Sequence[Column[Row]], rows: Iterable[Row]) -> Iterator[str]:
    line = io.StringIO()
    # Text is quoted, so that nothing in it begins another cell.
    writer = csv.writer(line, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\r\n")

    def written(cells: list[str | int | float]) -> str:
        line.seek(0)
        line.truncate()
        writer.writerow(cells)
        return line.getvalue()

    yield written([one.name for one in columns])
    for row in rows:
        yield written([_csv_cell(one.value(row)) for one in columns])


def _csv_cell(value: Value) -> str | int | float:
    if value is None:
        return ""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, int):
        return value
    return _harmless(_one_line(value))


def _harmless(text: str) -> str:
    """Put an apostrophe before what a spreadsheet would take for a formula."""
    return f"'{text}" if text.lstrip().startswith(_FORMULA) else text


def _one_line(text: str) -> str:
    """Escape what is no letter, sign or space: no line ends, no bad characters."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text
    )


def _gathered(lines: Iterable[str]) -> Iterator[bytes]:
    some: list[str] = []
    for line in lines:
        some.append(line)
        if len(some) == _CHUNK_ROWS:
            yield "".join(some).encode()
            some.clear()
    if some:
        yield "".join(some).encode()


# -- Excel --------------------------------------------------------------------------------------


def _excel_chunks(
    columns: Sequence[Column[Row]], rows: Iterable[Row], zone: tzinfo
) -> Iterator[bytes]:
    with tempfile.TemporaryFile() as file:
        _excel(file, columns, rows, zone)
        file.seek(0)
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk


def _excel(
    file: IO[bytes], columns: Sequence[Column[Row]], rows: Iterable[Row], zone: tzinfo
) -> None:
    try:
        from openpyxl import Workbook
    except ImportError as error:
        raise Unsupported(
            "workbooks can't be written here: openpyxl is not installed",
            "install holdfast[site], or ask for CSV",
        ) from error
    with closing(Workbook(write_only=True)) as book:
        sheet, written = None, 0
        for row in rows:
            if sheet is None or written == ROWS_OF_A_SHEET:
                sheet, written = _sheet(book, columns, zone), 0
            sheet.append([_excel_cell(sheet, one, one.value(row), zone) for one in columns])
            written += 1
        if sheet is None:
            _sheet(book, columns, zone)
        book.save(file)


def _sheet(book: Any, columns: Sequence[Column[Row]], zone: tzinfo) -> Any:
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    sheet = book.create_sheet(f"Sheet {len(book.worksheets) + 1}")
    sheet.freeze_panes = "A2"
    titles = []
    for place, one in enumerate(columns, start=1):
        sheet.column_dimensions[get_column_letter(place)].width = one.width + 3
        in_zone = f" ({zone})" if one.name.endswith("at") else ""
        in_bytes = " (bytes)" if one.is_size else ""
        title = WriteOnlyCell(sheet, value=f"{one.title}{in_zone}{in_bytes}")
        title.font = Font(bold=True)
        titles.append(title)
    sheet.append(titles)
    return sheet


def _excel_cell(sheet: Any, column: Column[Row], value: Value, zone: tzinfo) -> Any:
    from openpyxl.cell import WriteOnlyCell

    if value is None:
        return None
    if isinstance(value, datetime):
        # Excel knows no time zones.
        cell = WriteOnlyCell(sheet, value=value.astimezone(zone).replace(tzinfo=None))
        cell.number_format = "yyyy-mm-dd hh:mm:ss"
        return cell
    if isinstance(value, timedelta):
        cell = WriteOnlyCell(sheet, value=value)
        cell.number_format = "[h]:mm:ss"
        return cell
    if isinstance(value, int):
        cell = WriteOnlyCell(sheet, value=value)
        cell.number_format = "0" if column.name.endswith("id") else "#,##0"
        return cell
    text = _one_line(value)[:LONGEST_CELL]
    cell = WriteOnlyCell(sheet, value=text)
    # Whatever it looks like it is text, and stays text if somebody edits it.
    cell.data_type = "s"
    cell.quotePrefix = text.lstrip().startswith(_FORMULA)
    return cell
