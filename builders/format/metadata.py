"""Reads the rows of a shard from a metadata file that may be damaged or hostile; memory is bounded."""

from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

MAX_BYTES = 256 * 1024 * 1024
"""Upper limit in bytes for the rows of one shard in memory; metadata of images never takes as much."""
ROWS_AT_A_TIME = 1000


def read_rows(file: BinaryIO, row_group: int, columns: list[str] | None = None) -> pa.Table:
    """Reads a row group in small batches, since a few bytes on disk may expand to any number of bytes in memory.

    Raises:
        ArrowException, OSError, IndexError, KeyError, OverflowError: the file is damaged, too large, or not in UTF-8.
    """
    parquet = pq.ParquetFile(file)
    # Raises an IndexError if there is no such row group.
    parquet.metadata.row_group(row_group)
    batches, num_bytes = [], 0
    for batch in parquet.iter_batches(batch_size=ROWS_AT_A_TIME, row_groups=[row_group], columns=columns):
        num_bytes += batch.nbytes
        if num_bytes > MAX_BYTES:
            raise pa.ArrowInvalid(f"the rows of a shard take more than {MAX_BYTES} bytes")
        batches.append(batch)
    table = pa.Table.from_batches(batches, None if batches else parquet.schema_arrow)
    table.validate(full=True)
    return table
