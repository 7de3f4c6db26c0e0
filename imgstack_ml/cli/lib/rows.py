"""Rows of numbers about all images, kept in a file, and the memory that a classifier of them needs."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...errors import MemoryLimitError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["RowFile", "plan_dtype"]

_PART_BYTES = 2**23  # of rows that are read at a time
_BUFFER_BYTES = 2**25  # parts of rows, and what is computed of them
_N_TREES = 200
_NODE_BYTES = 64
_CACHE_BYTES = 200 * 2**20  # of scikit-learn's SVC


class RowFile:
    """Rows (n_rows, n_columns) in a temporary file without a name, which is gone when the process ends.

    Parameters
    ----------
    folder : str
        The folder on whose disk the file is.
    n_columns : int
    dtype : str
        Dtype in which the rows are kept.
    """

    def __init__(self, folder: str, n_columns: int, dtype: str):
        import numpy as np

        self.n_columns, self.dtype = n_columns, np.dtype(dtype)
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed with this object)

    def __enter__(self) -> RowFile:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def n_bytes(self, n_rows: int) -> int:
        """Bytes of so many rows."""
        return self.dtype.itemsize * self.n_columns * n_rows

    def append(self, rows: np.ndarray) -> None:
        """Write more rows at the end."""
        self._file.write(rows.astype(self.dtype, order="C", copy=False).data)

    def parts(self, positions: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
        """Read some rows, a few at a time, not by a memory map: its pages would count as memory of the process.

        Parameters
        ----------
        positions : ndarray of int
            In ascending order.

        Yields
        ------
        place : slice
            Of these rows in `positions`.
        rows : ndarray
        """
        import numpy as np

        row_bytes = self.n_bytes(1)
        step = max(1, _PART_BYTES // row_bytes)
        first = 0
        while first < len(positions):
            start = int(positions[first])
            last = int(np.searchsorted(positions, start + step))
            rows = np.empty((int(positions[last - 1]) + 1 - start, self.n_columns), self.dtype)
            self._file.seek(start * row_bytes)
            self._file.readinto(rows.data.cast("B"))
            yield slice(first, last), rows[positions[first:last] - start]
            first = last

    def take(self, positions: np.ndarray) -> np.ndarray:
        """Read some rows into one array; `positions` are in ascending order."""
        import numpy as np

        from ...passes.memory import return_freed_memory

        return_freed_memory()  # of blocks and features, before the largest array of all
        found = np.empty((len(positions), self.n_columns), self.dtype)
        for place, rows in self.parts(positions):
            found[place] = rows
        return found


def plan_dtype(
    classifier: str, *, n_images: int, n_features: int, n_classes: int, memory_limit: str | int | float
) -> tuple[str, int]:
    """Choose the dtype of the rows that a classifier learns from, before any image is read.

    It is float64 where that fits within the memory limit (for ``"auto"`` within 512 MiB), and float32 otherwise.

    Returns
    -------
    dtype : str
    n_bytes : int
        Memory that the largest fit takes, at most.

    Raises
    ------
    MemoryLimitError
        Even float32 takes more memory than the limit, which is half of the available memory for ``"auto"``.
    """
    from ...passes.memory import allowance, format_bytes

    allowed = allowance(memory_limit)
    needs = {
        dtype: _bytes_of_fit(classifier, n_images, n_features, n_classes, size)
        for dtype, size in (("float64", 8), ("float32", 4))
    }
    if needs["float64"] <= allowed.keep:
        return "float64", needs["float64"]
    if needs["float32"] <= allowed.limit:
        return "float32", needs["float32"]
    raise MemoryLimitError(
        f"the classifier {classifier!r} of {n_images:,} images by {n_features:,} features in {n_classes:,} classes may "
        f"need {format_bytes(needs['float32'])} of memory, and {format_bytes(allowed.limit)} are allowed"
    )


def _bytes_of_fit(classifier: str, n: int, p: int, n_classes: int, itemsize: int) -> int:
    """Bytes of a fit to all rows, at most: the rows, once, and what the classifier makes of them."""
    from dask.system import CPU_COUNT

    rows = n * p * itemsize + _BUFFER_BYTES
    if classifier == "logistic":
        n_outputs = n_classes if n_classes > 2 else 1
        # The Hessian of one output and its factor; L-BFGS keeps ten steps and ten gradients, a thread one.
        return rows + 2 * p * p * 8 + (30 + CPU_COUNT) * n_outputs * p * 8
    if classifier == "svm":  # a copy in float64, and the support vectors
        return rows + 2 * n * p * 8 + _CACHE_BYTES
    # A copy in float32; a tree may have two nodes for each image that it learns from, with a number for each class.
    return rows + n * p * 4 + _N_TREES * 2 * n * (_NODE_BYTES + 8 * n_classes)
