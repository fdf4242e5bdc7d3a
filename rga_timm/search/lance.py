"""LanceDB, which is imported only by those who search."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def import_lancedb() -> Any:
    """The module.

    Raises:
        ImportError: it is not installed; says how to install it.
    """
    try:
        import lancedb
        import pyarrow  # noqa: F401 - what LanceDB takes and gives
    except ImportError as error:
        raise ImportError("searching needs LanceDB: pip install 'rga-timm[search]'") from error
    return lancedb


@contextmanager
def streamed(
    schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatchReader]:
    """Batches that LanceDB reads in a thread of its own and commits at once, or not at all.

    An error of the batches comes out of the block as what it is: LanceDB makes text of it. When
    the block is left by another one, such as Ctrl-C, the thread that still reads gets no further
    batch, so that it cannot commit what nobody waits for.
    """
    import pyarrow as pa

    failure: list[BaseException] = []
    is_stopped = False

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                yield batch
                if is_stopped:
                    raise InterruptedError("the writing was stopped")
        except (Exception, KeyboardInterrupt) as error:
            failure.append(error)
            raise

    try:
        yield pa.RecordBatchReader.from_batches(schema, watched())
    except Exception:
        if failure:
            raise failure[0] from None
        raise
    finally:
        is_stopped = True
