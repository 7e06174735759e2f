"""Structures written in Python."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _native
from ._structures import Structure, _whole

#: Structures by their keys, for operators that are given texts.
known: weakref.WeakValueDictionary[str, Custom] = weakref.WeakValueDictionary()
_numbers = itertools.count(1)


class Custom(Structure):
    """A structure of one's own: a class with an arg max and statistics, for estimators that ask for no more.

    Write two methods over rows, and a third if all assignments can be listed:

    - ``argmax_rows(theta)``: for potentials ``[B, P]`` (float32, read-only; NaN and +inf are refused before) the
      assignments ``[B, n]`` of the largest scores ``<theta, s(z)>``, whole numbers from 0 on;
    - ``statistics_rows(z)``: ``s(z)`` ``[B, P]`` of assignments ``[B, n]`` (uint32); the first U of them, the code, are
      zeros and ones;
    - ``states_rows()``: all assignments ``[states, n]``, at most 32768: then estimators that go through all states
      work, and :func:`gumbel_argmax.testing.check` compares with enumeration.

    Estimators call them with single rows, with the interpreter lock, which takes some dozens of microseconds: a
    structure of the library is faster by far.
    Exceptions come through. Sums (marginals, entropy, samples) there are none.

    Args:
        potentials: number of potentials P.
        variables: number of variables n of an assignment.
        unary: number of leading potentials U that receive noise and losses; all by default.
        values: the number of values K of each variable, if codes are one-hot rows ``[n, K]`` of which every combination
            is an assignment.

    >>> class Window(Custom):
    ...     '''k neighbours of n elements: the assignment is the place of the first.'''
    ...     def __init__(self, n, k):
    ...         super().__init__(potentials=n, variables=1)
    ...         self.rows = np.array([[i <= j < i + k for j in range(n)] for i in range(n - k + 1)], np.float32)
    ...     def argmax_rows(self, theta):
    ...         return (theta @ self.rows.T).argmax(axis=-1)[:, None]
    ...     def statistics_rows(self, z):
    ...         return self.rows[z[:, 0]]
    ...     def states_rows(self):
    ...         return np.arange(len(self.rows))[:, None]
    >>> window = Window(5, 2)
    >>> window.solve([1.0, 0.0, 2.0, 3.0, 0.0]) # doctest: +NORMALIZE_WHITESPACE
    Solution(assignments=array([2], dtype=uint32), values=np.float64(5.0), proved=np.True_)
    >>> window.encode([2]).tolist()
    [0.0, 0.0, 1.0, 1.0, 0.0]
    """

    _made: _native.Structure | None = None

    def __init__(self, potentials: int, variables: int, unary: int | None = None, values: int | None = None):
        potentials = _whole("potentials", potentials)
        unary = potentials if unary is None else _whole("unary", unary)
        values = None if values is None else _whole("values", values)
        self._sizes = (potentials, unary, _whole("variables", variables), values)
        self._register()

    def _register(self) -> None:
        self.key = f"{type(self).__name__}#{next(_numbers)}"
        known[self.key] = self

    @property
    def _inner(self) -> _native.Structure: # type: ignore[override]
        if self._made is None:
            if not hasattr(self, "_sizes"):
                raise TypeError(f"{type(self).__name__} has no sizes: expected super().__init__(potentials, variables)")
            potentials, unary, variables, values = self._sizes
            listed = self.states_rows()
            states = None if listed is None else self._rows_of("states_rows", listed, None)
            # Weak: the native part must not keep its owner.
            own = weakref.ref(self)
            self._made = _native.Structure.custom(own, potentials, unary, variables, values, states)
        return self._made

    def argmax_rows(self, theta: NDArray[np.float32]) -> ArrayLike:
        """Assignments ``[B, n]`` of the largest scores for potentials ``[B, P]``: to be written."""
        raise NotImplementedError(f"{type(self).__name__} has no argmax_rows: expected one for rows of potentials")

    def statistics_rows(self, z: NDArray[np.uint32]) -> ArrayLike:
        """Statistics ``[B, P]`` of assignments ``[B, n]``: to be written."""
        raise NotImplementedError(f"{type(self).__name__} has no statistics_rows: expected one for rows of assignments")

    def states_rows(self) -> ArrayLike | None:
        """All assignments ``[states, n]``; ``None``, as here, where they are not listed."""
        return None

    def _rows_of(self, name: str, found: ArrayLike, count: int | None) -> NDArray[np.uint32]:
        """Assignments ``[count, n]`` that a method has given."""
        array, n = np.asarray(found), self._sizes[2]
        where = f"{type(self).__name__}.{name}"
        if array.ndim != 2 or array.shape[1] != n or (count is not None and len(array) != count):
            rows = "states" if count is None else count
            raise ValueError(f"{where} has given an array of shape {array.shape}: expected ({rows}, {n})")
        if array.dtype.kind not in "iub":
            raise TypeError(f"{where} has given numbers of dtype {array.dtype}: expected whole numbers")
        if array.size and not 0 <= int(array.min()) <= int(array.max()) < 2**32:
            raise ValueError(f"{where} has given values from {array.min()} to {array.max()}: expected 0 to 2**32 - 1")
        return np.require(array, np.uint32, ["C", "A"])

    def _statistics_of(self, z: NDArray[np.uint32]) -> NDArray[np.float32]:
        """Statistics ``[B, P]`` of rows."""
        array, expected = np.asarray(self.statistics_rows(z)), (len(z), self._sizes[0])
        where = f"{type(self).__name__}.statistics_rows"
        if array.shape != expected:
            raise ValueError(f"{where} has given an array of shape {array.shape}: expected {expected}")
        if array.dtype.kind not in "fiub":
            raise TypeError(f"{where} has given numbers of dtype {array.dtype}: expected real numbers")
        return np.require(array, np.float32, ["C", "A"])

    def _best(self, rows: NDArray[np.float32]) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
        """Assignments and scores of rows of potentials."""
        bad = np.isnan(rows) | (rows == np.inf)
        if bad.any():
            b, i = np.argwhere(bad)[0]
            what = "NaN" if np.isnan(rows[b, i]) else "+inf"
            raise ValueError(f"example {b} of the batch: potential {i} is {what}: expected a number, or -inf")
        if not len(rows):
            return np.empty((0, self._sizes[2]), np.uint32), np.empty(0)
        shown = rows.view()
        shown.flags.writeable = False
        z = self._rows_of("argmax_rows", self.argmax_rows(shown), len(rows))
        values = self._scores(rows, z)
        if (values == -np.inf).any():
            raise ValueError(f"example {int(values.argmin())} of the batch: no assignment is allowed")
        return z, values

    def _scores(self, rows: NDArray[np.float32], z: NDArray[np.uint32]) -> NDArray[np.float64]:
        statistics = self._statistics_of(z).astype(np.float64)
        # What is forbidden and not used is not 0 * -inf.
        used = np.where(statistics == 0, np.float32(0), rows)
        scores: NDArray[np.float64] = np.einsum("bp,bp->b", statistics, used, dtype=np.float64)
        return scores

    # What estimators ask, of one example.

    def _argmax(self, theta: NDArray[np.float32]) -> tuple[NDArray[np.uint32], float]:
        z, values = self._best(theta[None])
        return z[0], float(values[0])

    def _statistics(self, z: NDArray[np.uint32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = self._statistics_of(z[None])[0]
        return found

    # What the library does for its own structures.

    def _solve(
        self, rows: NDArray[np.float32], out: NDArray[np.uint32], threads: int, limit: float | None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        z, values = self._best(rows)
        out[...] = z
        return values, np.ones(len(rows), np.bool_)

    def _score(self, rows: NDArray[np.float32], z: NDArray[np.uint32]) -> NDArray[np.float64]:
        return self._scores(rows, z)

    def _encode(self, z: ArrayLike, width: int, all: bool) -> NDArray[np.float32]:
        rows, batch = self._assignments(z)
        return self._statistics_of(rows)[:, :width].reshape(*batch, width)

    def enumerate(self) -> NDArray[np.uint32]:
        """All assignments ``[states, n]`` as :meth:`states_rows` lists them, where they are at most 32768."""
        if self.states is None:
            raise ValueError(f"{type(self).__name__} lists no states: expected a method states_rows")
        return super().enumerate()

    def neighbours(self, z: ArrayLike) -> NDArray[np.float32]:
        """The codes ``[..., C, U]`` of all one-coordinate changes of assignments, as :meth:`Structure.neighbours`."""
        code = self.encode(z)
        _, u, n, k = self._sizes
        if k is None:
            flipped: NDArray[np.float32] = np.abs(code[..., None, :] - np.eye(u, dtype=np.float32))
            return flipped
        # Every variable with every other value, in the order of the values.
        hot = code.reshape(-1, n, k).argmax(axis=-1)
        near = np.repeat(code.reshape(-1, 1, n, k), n * (k - 1), axis=1)
        for b, row in enumerate(hot):
            others = [(i, v) for i in range(n) for v in range(k) if v != row[i]]
            for c, (i, v) in enumerate(others):
                near[b, c, i] = np.eye(k, dtype=np.float32)[v]
        return near.reshape(*code.shape[:-1], n * (k - 1), u)

    # One is equal to itself only; copies are others.

    def __reduce__(self) -> tuple[Any, ...]:
        return object.__new__, (type(self),), self.__getstate__()

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_made", "key")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._register()
