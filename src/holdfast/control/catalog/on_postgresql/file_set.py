"""One set of rows: its number, and the partitions that it lies in.

Pure. A statement that names a partition is planned for one table; one that names what is
partitioned, for as many as there are, which takes longer than most answers.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from typing import LiteralString

PARTS = 8
"""How many partitions there are; the migration that made them has the same number."""

PART_OF = f"""(
    SELECT n FROM generate_series(0, {PARTS - 1}) n
    WHERE satisfies_hash_partition('file_rows.versions'::regclass, {PARTS}, n, f.id)
)"""  # noqa: S608
"""SQL for the partition of a row ``f`` of ``file_rows.sets``."""

_PARTITIONED = re.compile(r"\bfile_rows\.(names|directories|versions)\b")


@dataclass(frozen=True, slots=True)
class FileSet:
    """A generation of a source's rows."""

    id: int
    part: int

    def sql(self, statement: LiteralString) -> LiteralString:
        """A statement about what is partitioned, as one about this set's partitions."""
        return _of_part(statement, self.part)


@functools.cache
def _of_part(statement: LiteralString, part: int) -> LiteralString:
    return _PARTITIONED.sub(rf"file_rows.\1_{part}", statement)
