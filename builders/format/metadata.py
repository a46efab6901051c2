"""Reading the rows of a shard out of a metadata file that nobody should trust; memory is bounded."""

from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

MAX_BYTES = 256 * 1024 * 1024
"""Of a shard's rows in memory; more is no metadata of pictures."""
ROWS_AT_A_TIME = 1000


def read_rows(file: BinaryIO, row_group: int, columns: list[str] | None = None) -> pa.Table:
    """A row group, read a little at a time: a few bytes on the disk may stand for any number in memory.

    Raises:
        ArrowException, OSError, IndexError, KeyError, OverflowError: it is damaged, too large, or not in UTF-8.
    """
    parquet = pq.ParquetFile(file)
    parquet.metadata.row_group(row_group)  # an IndexError where there is none
    batches, num_bytes = [], 0
    for batch in parquet.iter_batches(batch_size=ROWS_AT_A_TIME, row_groups=[row_group], columns=columns):
        num_bytes += batch.nbytes
        if num_bytes > MAX_BYTES:
            raise pa.ArrowInvalid(f"the rows of a shard take more than {MAX_BYTES} bytes")
        batches.append(batch)
    table = pa.Table.from_batches(batches, None if batches else parquet.schema_arrow)
    table.validate(full=True)
    return table
