"""Structures over NumPy arrays."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _native

_LARGEST = 2**31


def _whole(name: str, value: Any, most: int = _LARGEST) -> int:
    """A whole number from 0 on; what is larger than ``most`` fits no machine."""
    try:
        found = operator.index(value)
    except TypeError:
        raise TypeError(f"{name} = {value!r}: expected a whole number") from None
    if not 0 <= found <= most:
        raise ValueError(f"{name} = {found}: expected a whole number from 0 to {most}")
    return found


def _threads(threads: Any) -> int:
    return _whole("threads", threads, 1024)


def _seconds(limit: Any) -> float | None:
    if limit is not None and not isinstance(limit, (int, float, np.integer, np.floating)):
        raise TypeError(f"limit = {limit!r}: expected a number of seconds")
    return None if limit is None else float(limit)


def _edges(edges: Iterable[Sequence[int]]) -> list[tuple[int, int]]:
    made = []
    for e, edge in enumerate(edges):
        ends = tuple(edge)
        if len(ends) != 2:
            raise ValueError(f"edge {e} is {ends}: expected two nodes")
        made.append((_whole("a node of an edge", ends[0]), _whole("a node of an edge", ends[1])))
    return made


def _single(array: NDArray[Any]) -> bool:
    return array.dtype == np.float32 and array.flags.c_contiguous and array.flags.aligned


def _float32(name: str, values: ArrayLike) -> NDArray[np.float32]:
    """A float32 C-contiguous array: the same one if it is that already, else a copy."""
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array, whose mask is not read: expected numbers, or -inf where forbidden")
    array = np.asarray(values)
    if _single(array):
        return array
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name} has dtype {array.dtype}: expected real numbers")
    with np.errstate(over="ignore"):
        made = np.require(array, np.float32, ["C", "A"])
    # A large number is no infinity, which would forbid something.
    if array.dtype.kind == "f" and array.dtype.itemsize > 4:
        over = np.isinf(made) & np.isfinite(array)
        if over.any():
            raise ValueError(f"{name} has the value {array[over].flat[0]}: expected at most {np.finfo(np.float32).max}")
    return made


def gumbel(shape: int | Sequence[int], seed: int = 0, index: int = 0) -> NDArray[np.float32]:
    """Standard Gumbel variables (mean 0.5772): a function of (seed, index, position), on every machine.

    The stream is that of the library's training noise, ``Noise::new(seed, Purpose::Noise, index)``; ``index`` is
    commonly the training step. A shorter array holds the beginning of a longer one.

    >>> a, b = gumbel(8, seed=7, index=42), gumbel((2, 2), seed=7, index=42)
    >>> bool((a[:4] == b.ravel()).all()), a.dtype
    (True, dtype('float32'))
    """
    sizes = (shape,) if isinstance(shape, (int, np.integer)) else tuple(shape)
    sizes = tuple(_whole("shape", size) for size in sizes)
    if math.prod(sizes) > 2**40:
        raise ValueError(f"shape = {sizes}: expected at most 2**40 numbers")
    out = np.empty(sizes, np.float32)
    _native.gumbel_noise(out.reshape(-1), _whole("seed", seed, 2**64 - 1), _whole("index", index, 2**64 - 1))
    return out


class Solution(NamedTuple):
    """What :meth:`Structure.solve` has found; ``...`` are the batch axes of the potentials."""

    assignments: NDArray[np.uint32]
    """Best assignments ``[..., n]``."""
    values: NDArray[np.float64]
    """Their scores ``[...]``."""
    proved: NDArray[np.bool_]
    """Whether no assignment is better ``[...]``: always, unless a time limit ended the search."""


class Unproved(ValueError):
    """A time limit ended a search that had to end with a proof; ``solution`` is what it had found by then."""

    def __init__(self, message: str, solution: Solution):
        super().__init__(message, solution)
        self.solution = solution

    def __str__(self) -> str:
        return str(self.args[0])


class Structure:
    """A finite set of assignments with an exact arg max: the base of all structures, not to be made itself.

    Wherever potentials are asked for, an array ``[..., P]`` of real numbers is taken, the axes before the last being
    a batch. float32 C-contiguous arrays are used where they lie, others are converted once. ``-inf`` forbids a choice;
    NaN, ``+inf`` and wrong shapes are a ``ValueError`` that names the example, counted over the flattened batch.

    ``threads`` is the number of threads of a pool of their own that examples are shared among, 0 for all cores; answers
    do not depend on it. The interpreter lock is released. A structure may be used by several threads at once.
    """

    _inner: _native.Structure
    _args: tuple[Any, ...]

    def __init__(self, *_: Any):
        raise TypeError("Structure is no structure itself: expected one of its subclasses, such as Chain or Custom")

    def _set(self, native: _native.Structure, *args: Any) -> None:
        self._inner = native
        self._args = args
        #: A text that stands for this structure: equal ones have equal texts.
        self.key: str = f"{type(self).__name__}({', '.join(map(repr, args))})"

    def __repr__(self) -> str:
        return self.key

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Structure) and self.key == other.key

    def __hash__(self) -> int:
        return hash(self.key)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._args

    @property
    def potentials(self) -> int:
        """Number of potentials P: the length of the last axis of ``theta``."""
        return self._inner.potentials

    @property
    def unary(self) -> int:
        """Number of leading potentials U that belong to choices of single variables: the length of a code."""
        return self._inner.unary

    @property
    def variables(self) -> int:
        """Number of variables n of an assignment."""
        return self._inner.variables

    @property
    def states(self) -> int | None:
        """Number of assignments, or ``None`` where they are too many for an integer of 64 bits."""
        return self._inner.states

    @property
    def ln_states(self) -> float:
        """The logarithm of the number of assignments, in nats."""
        return self._inner.ln_states

    @property
    def has_sums(self) -> bool:
        """Whether log-partition, marginals, entropy, KL, covariance and samples are tractable."""
        return self._inner.has_sums

    @property
    def one_hot(self) -> bool:
        """Whether codes are one-hot rows ``[n, K]`` of which every combination is an assignment, else indicators."""
        return self._inner.one_hot

    def _rows(self, name: str, values: ArrayLike) -> tuple[NDArray[np.float32], tuple[int, ...]]:
        """Potentials as ``[B, P]``, and their batch axes."""
        array = _float32(name, values)
        shape, p = array.shape, self._inner.potentials
        if not shape or shape[-1] != p:
            raise ValueError(f"{name} has shape {shape}: expected [..., {p}], the potentials of {self!r}")
        return array.reshape(-1, p), shape[:-1]

    def _assignments(self, z: ArrayLike) -> tuple[NDArray[np.uint32], tuple[int, ...]]:
        """Assignments as ``[B, n]``, and their batch axes."""
        array, n = np.asarray(z), self._inner.variables
        if array.dtype.kind not in "iub":
            raise TypeError(f"z has dtype {array.dtype}: expected whole numbers")
        if not array.shape or array.shape[-1] != n:
            raise ValueError(f"z has shape {array.shape}: expected [..., {n}], the variables of {self!r}")
        if array.dtype != np.uint32 and array.size and not 0 <= int(array.min()) <= int(array.max()) < 2**32:
            raise ValueError(f"z has values from {array.min()} to {array.max()}: expected values of variables")
        return np.require(array, np.uint32, ["C", "A"]).reshape(-1, n), array.shape[:-1]

    def solve(
        self,
        theta: ArrayLike,
        out: NDArray[np.uint32] | None = None,
        threads: int = 0,
        limit: float | None = None,
        must_prove: bool = False,
    ) -> Solution:
        """The assignments of the largest scores, exactly.

        Args:
            theta: potentials ``[..., P]``.
            out: a C-contiguous uint32 array ``[..., n]`` for the assignments; by default a new one.
            threads: threads to work on, 0 for all cores.
            limit: seconds for each example, after which the search of a :class:`Pairwise` model ends with the best
                assignment that it knows, unproved; other structures need none and ignore it.
            must_prove: whether an answer without a proof is an error, :class:`Unproved`.

        >>> Pairwise(2).solve([0.0, 1.0, 0.0, 1.0, -3.0]) # both would rather be 1, but not together
        ... # doctest: +NORMALIZE_WHITESPACE
        Solution(assignments=array([1, 0], dtype=uint32), values=np.float64(1.0), proved=np.True_)
        """
        rows, batch = self._rows("theta", theta)
        count, shape = len(rows), (*batch, self._inner.variables)
        if out is None:
            out = np.empty(shape, np.uint32)
        elif not isinstance(out, np.ndarray) or out.dtype != np.uint32 or out.shape != shape:
            found = f"{out.dtype} {out.shape}" if isinstance(out, np.ndarray) else type(out).__name__
            raise ValueError(f"out is {found}: expected a uint32 array of shape {shape}")
        elif not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
            raise ValueError("out is not writeable, or not C-contiguous: expected an array of its own")
        elif np.may_share_memory(out, rows):
            raise ValueError("out overlaps theta: expected an array of its own")
        flat = out.reshape(count, self._inner.variables)
        values, proved = self._solve(rows, flat, _threads(threads), _seconds(limit))
        solution = Solution(out, values.reshape(batch)[()], proved.reshape(batch)[()])
        if must_prove and not proved.all():
            first = int(np.argmin(proved))
            message = f"example {first} of the batch: not proved within {limit} seconds"
            raise Unproved(message, solution)
        return solution

    def _solve(
        self, rows: NDArray[np.float32], out: NDArray[np.uint32], threads: int, limit: float | None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        values, proved = np.empty(len(rows), np.float64), np.empty(len(rows), np.bool_)
        self._inner.solve(rows, out, values, proved, threads, limit)
        return values, proved

    def score(self, theta: ArrayLike, z: ArrayLike) -> NDArray[np.float64]:
        """The scores ``<theta, s(z)>`` ``[...]`` of assignments ``z`` ``[..., n]``; batch axes are those of both.

        >>> float(Categorical(3).score([0.5, 1.0, 2.0], [2]))
        2.0
        """
        z_rows, z_batch = self._assignments(z)
        rows, batch = self._rows("theta", theta)
        if batch != z_batch:
            both = np.broadcast_shapes(batch, z_batch)
            rows = np.ascontiguousarray(np.broadcast_to(rows.reshape(*batch, -1), (*both, rows.shape[1])))
            z_rows = np.ascontiguousarray(np.broadcast_to(z_rows.reshape(*z_batch, -1), (*both, z_rows.shape[1])))
            rows, z_rows, batch = rows.reshape(-1, rows.shape[-1]), z_rows.reshape(-1, z_rows.shape[-1]), both
        return self._score(rows, z_rows).reshape(batch)[()]

    def _score(self, rows: NDArray[np.float32], z: NDArray[np.uint32]) -> NDArray[np.float64]:
        out = np.empty(len(rows), np.float64)
        self._inner.score(rows, z, out)
        return out

    def log_partition(self, theta: ArrayLike, threads: int = 0) -> NDArray[np.float64]:
        """``ln sum_z exp <theta, s(z)>`` ``[...]`` in nats.

        >>> float(Categorical(4).log_partition([0, 0, 0, 0]).round(4)) # ln 4
        1.3863
        """
        rows, batch = self._rows("theta", theta)
        out = np.empty(len(rows), np.float64)
        self._inner.sums(rows, out, False, _threads(threads))
        return out.reshape(batch)[()]

    def entropy(self, theta: ArrayLike, threads: int = 0) -> NDArray[np.float64]:
        """Entropy ``[...]`` in nats of the Gibbs distribution ``q(z)`` proportional to ``exp <theta, s(z)>``.

        >>> float(Subset(4, 2).entropy([0, 0, 0, 0]).round(4)) # ln 6
        1.7918
        """
        rows, batch = self._rows("theta", theta)
        out = np.empty(len(rows), np.float64)
        self._inner.sums(rows, out, True, _threads(threads))
        return out.reshape(batch)[()]

    def marginals(self, theta: ArrayLike, threads: int = 0) -> NDArray[np.float32]:
        """Marginals ``E_q[s(z)]`` ``[..., P]``: the gradient of the log-partition.

        >>> Subset(4, 2).marginals([0, 0, 0, 0])
        array([0.5, 0.5, 0.5, 0.5], dtype=float32)
        """
        return self.marginals_and_log_partition(theta, threads)[0]

    def marginals_and_log_partition(
        self, theta: ArrayLike, threads: int = 0
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        """Both at the price of one: ``[..., P]`` and ``[...]``.

        >>> marginals, log_partition = Categorical(2).marginals_and_log_partition([[0, 0], [0, float("-inf")]])
        >>> marginals.tolist(), log_partition.round(4).tolist()
        ([[0.5, 0.5], [1.0, 0.0]], [0.6931, 0.0])
        """
        return self._two(theta, False, threads)

    def kl_to_uniform(
        self, theta: ArrayLike, threads: int = 0
    ) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """``KL(q || uniform)`` ``[...]`` in nats, and its gradient at the potentials ``[..., P]``.

        >>> kl, gradient = Categorical(2).kl_to_uniform([0.0, 0.0])
        >>> float(kl), gradient.tolist()
        (0.0, [0.0, 0.0])
        """
        gradient, kl = self._two(theta, True, threads)
        return kl, gradient

    def _two(
        self, theta: ArrayLike, kl: bool, threads: int
    ) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
        rows, batch = self._rows("theta", theta)
        out, sums = np.empty_like(rows), np.empty(len(rows), np.float64)
        self._inner.marginals(rows, out, sums, kl, _threads(threads))
        return out.reshape(*batch, rows.shape[1]), sums.reshape(batch)[()]

    def covariance(self, theta: ArrayLike, direction: ArrayLike, threads: int = 0) -> NDArray[np.float32]:
        """``Cov_q[s(z)] direction`` ``[..., P]``: how the marginals change along a direction ``[..., P]``.

        >>> Categorical(2).covariance([0.5, 0.5], [0.0, 2.0]).tolist() # q (1 - q) = 1/4
        [-0.5, 0.5]
        """
        rows, batch = self._rows("theta", theta)
        directions, other = self._rows("direction", direction)
        if batch != other:
            raise ValueError(f"direction has batch axes {other}: expected those of theta, {batch}")
        out = np.empty_like(rows)
        self._inner.covariance(rows, directions, out, _threads(threads))
        return out.reshape(*batch, rows.shape[1])

    def sample(
        self, theta: ArrayLike, seed: int, samples: int | None = None, index: int = 0, threads: int = 0
    ) -> NDArray[np.uint32]:
        """Exact samples of q, ``[..., n]``, or independent ones ``[samples, ..., n]``.

        They are a function of the potentials, ``(seed, index)`` and the place in the batch, whatever ``threads`` is.

        >>> Categorical(3).sample([0.0, float("-inf"), float("-inf")], seed=1, samples=4).ravel()
        array([0, 0, 0, 0], dtype=uint32)
        """
        rows, batch = self._rows("theta", theta)
        count, n = 1 if samples is None else _whole("samples", samples), self._inner.variables
        if count == 0:
            raise ValueError("samples = 0: expected at least 1")
        out = np.empty((len(rows), count * n), np.uint32)
        seed, index = _whole("seed", seed, 2**64 - 1), _whole("index", index, 2**64 - 1)
        self._inner.sample(rows, out, seed, index, _threads(threads))
        if samples is None:
            return out.reshape(*batch, n)
        return np.ascontiguousarray(out.reshape(-1, count, n).swapaxes(0, 1)).reshape(count, *batch, n)

    def encode(self, z: ArrayLike) -> NDArray[np.float32]:
        """The codes ``[..., U]`` of assignments ``[..., n]``: zeros and ones.

        >>> Product(2, 3).encode([2, 0])
        array([0., 0., 1., 1., 0., 0.], dtype=float32)
        """
        return self._encode(z, self._inner.unary, False)

    def statistics(self, z: ArrayLike) -> NDArray[np.float32]:
        """The statistics ``s(z)`` ``[..., P]`` of assignments ``[..., n]``; their first U are the code.

        >>> Pairwise(2).statistics([1, 1])
        array([0., 1., 0., 1., 1.], dtype=float32)
        """
        return self._encode(z, self._inner.potentials, True)

    def _encode(self, z: ArrayLike, width: int, all: bool) -> NDArray[np.float32]:
        rows, batch = self._assignments(z)
        out = np.empty((len(rows), width), np.float32)
        self._inner.encode(rows, out, all)
        return out.reshape(*batch, width)

    def neighbours(self, z: ArrayLike) -> NDArray[np.float32]:
        """The codes ``[..., C, U]`` of all one-coordinate changes of assignments ``[..., n]``.

        Of one-hot rows: every variable with every other value, ``C = n (K - 1)``. Of indicators: every one of them
        switched, ``C = U``; such a code need not be that of an assignment.

        >>> Binary(2).neighbours([0, 1])
        array([[0., 1., 0., 1.],
               [1., 0., 1., 0.]], dtype=float32)
        """
        rows, batch = self._assignments(z)
        changes, u = self._inner.changes, self._inner.unary
        out = np.empty((len(rows), changes * u), np.float32)
        self._inner.neighbours(rows, out)
        return out.reshape(*batch, changes, u)

    def enumerate(self) -> NDArray[np.uint32]:
        """All assignments ``[states, n]`` in a fixed order, where they are at most 32768.

        >>> Subset(3, 2).enumerate().tolist()
        [[1, 1, 0], [1, 0, 1], [0, 1, 1]]
        """
        return self._inner.enumerate().reshape(-1, self._inner.variables)

    def to_potentials(self, raw: ArrayLike) -> NDArray[np.float32]:
        """Potentials ``[..., P]`` of any real numbers, such as an encoder's: other than the numbers themselves only
        for :class:`Supermodular`, whose weights must be at least 0: their softplus.

        >>> Supermodular(2).to_potentials([1, 2, 3, 4, 0]).round(2)
        array([1.  , 2.  , 3.  , 4.  , 0.69], dtype=float32)
        """
        rows, batch = self._rows("raw", raw)
        rows = rows.copy()
        self._inner.to_potentials(rows)
        return rows.reshape(*batch, rows.shape[1])

    def to_raw_gradient(self, potentials: ArrayLike, gradient: ArrayLike) -> NDArray[np.float32]:
        """The gradient at the raw numbers from that at the potentials that :meth:`to_potentials` has made of them.

        >>> Supermodular(2).to_raw_gradient([0, 0, 0, 0, np.log(2)], [1, 1, 1, 1, 1]).round(4).tolist()
        [1.0, 1.0, 1.0, 1.0, 0.5]
        """
        rows, batch = self._rows("potentials", potentials)
        gradients, other = self._rows("gradient", gradient)
        if batch != other:
            raise ValueError(f"gradient has batch axes {other}: expected those of potentials, {batch}")
        gradients = gradients.copy()
        self._inner.to_raw_gradient(rows, gradients)
        return gradients.reshape(*batch, rows.shape[1])


class _Pairs(Structure):
    """What models of pairs share."""

    def pair(self, i: int, j: int) -> int:
        """The place of the weight of variables ``i < j`` among the potentials.

        >>> Pairwise(3).pair(0, 2)
        7
        """
        n = self.variables
        if not 0 <= i < j < n:
            raise ValueError(f"pair ({i}, {j}): expected 0 <= i < j < {n}")
        return 2 * n + i * (2 * n - i - 1) // 2 + j - i - 1

    def pack(self, unary: ArrayLike, weights: ArrayLike) -> NDArray[np.float32]:
        """Potentials ``[..., P]`` of scores ``[..., n]`` of the ones and of weights ``[..., n, n]`` of the pairs, of
        which the entries ``i < j`` are read.

        >>> Pairwise(2).pack([1, 2], [[0, -3], [0, 0]])
        array([ 0.,  1.,  0.,  2., -3.], dtype=float32)
        """
        u, w, n = _float32("unary", unary), _float32("weights", weights), self.variables
        if u.shape[-1:] != (n,):
            raise ValueError(f"unary has shape {u.shape}: expected [..., {n}]")
        if w.shape[-2:] != (n, n):
            raise ValueError(f"weights has shape {w.shape}: expected [..., {n}, {n}]")
        batch = np.broadcast_shapes(u.shape[:-1], w.shape[:-2])
        theta = np.zeros((*batch, self.potentials), np.float32)
        theta[..., 1 : 2 * n : 2] = u
        i, j = np.triu_indices(n, 1)
        theta[..., 2 * n :] = w[..., i, j]
        return theta


class Pairwise(_Pairs):
    """n binary variables, with a weight of any sign for every pair of them that are both 1.

    Potentials: ``[n, 2]`` for the values of each variable, then the weights of the pairs ``(0, 1), (0, 2), ...,
    (n - 2, n - 1)``: ``P = 2 n + n (n - 1) / 2``; see :meth:`pack`. The arg max is a branch and bound search: fast up
    to some dozens of variables, and however long it takes unless :meth:`solve` is given a ``limit``. Sums: up to 20.

    >>> model = Pairwise(3)
    >>> model.potentials, model.unary, model.variables, model.states
    (9, 6, 3, 8)
    """

    def __init__(self, n: int):
        n = _whole("n", n)
        self._set(_native.Structure.pairwise(n), n)


class Supermodular(_Pairs):
    """n binary variables whose pairs have weights of at least 0: solved by a maximum flow, for a thousand of them too.

    Potentials as those of :class:`Pairwise`; a negative weight is an error. Sums: up to 20 variables.

    >>> model = Supermodular(2)
    >>> model.solve(model.pack([-1, -1], [[0, 3], [0, 0]])).assignments
    array([1, 1], dtype=uint32)
    """

    def __init__(self, n: int):
        n = _whole("n", n)
        self._set(_native.Structure.supermodular(n), n)


class _Tables(Structure):
    """What models with tables of edges share."""

    def pack(self, unary: ArrayLike, tables: ArrayLike) -> NDArray[np.float32]:
        """Potentials ``[..., P]`` of ``unary`` ``[..., n, K]`` and the tables of the edges ``[..., edges, K, K]``.

        >>> Chain(2, 2).pack([[1, 2], [3, 4]], [[[5, 6], [7, 8]]])
        array([1., 2., 3., 4., 5., 6., 7., 8.], dtype=float32)
        """
        u, t, n = _float32("unary", unary), _float32("tables", tables), self.variables
        k = self.unary // n
        edges = (self.potentials - self.unary) // (k * k)
        if u.shape[-2:] != (n, k):
            raise ValueError(f"unary has shape {u.shape}: expected [..., {n}, {k}]")
        if t.shape[-3:] != (edges, k, k):
            raise ValueError(f"tables has shape {t.shape}: expected [..., {edges}, {k}, {k}]")
        batch = np.broadcast_shapes(u.shape[:-2], t.shape[:-3])
        theta = np.empty((*batch, self.potentials), np.float32)
        theta[..., : self.unary] = u.reshape(*u.shape[:-2], n * k)
        theta[..., self.unary :] = t.reshape(*t.shape[:-3], edges * k * k)
        return theta


class Chain(_Tables):
    """T variables with K values each in a row, each coupled with the next (a linear-chain CRF).

    Potentials: ``[T, K]``, then transitions ``[T - 1, K, K]`` with the earlier variable as the row.

    >>> Chain(3, 2).solve([0, 1, 0, 0, 0, 1, 5, 0, 0, 5, 5, 0, 0, 5]).assignments # who stays is paid
    array([1, 1, 1], dtype=uint32)
    """

    def __init__(self, T: int, K: int):
        T, K = _whole("T", T), _whole("K", K)
        self._set(_native.Structure.chain(T, K), T, K)


class Tree(_Tables):
    """n variables with K values each, coupled along the edges of a tree or a forest.

    Potentials: ``[n, K]``, then ``[edges, K, K]`` in the order of the edges, with their first end as the row.

    >>> Tree(3, 2, [(0, 1), (0, 2)]).log_partition(np.zeros(14)).round(4) # ln 8
    np.float64(2.0794)
    """

    def __init__(self, n: int, K: int, edges: Iterable[Sequence[int]]):
        n, K, made = _whole("n", n), _whole("K", K), _edges(edges)
        self._set(_native.Structure.tree(n, K, made), n, K, made)


class Product(Structure):
    """n independent variables with K values each. Potentials: ``[n, K]``.

    >>> Product(2, 3).solve([0, 1, 2, 2, 1, 0]).assignments
    array([2, 0], dtype=uint32)
    """

    def __init__(self, n: int, K: int):
        n, K = _whole("n", n), _whole("K", K)
        self._set(_native.Structure.product(n, K), n, K)


class Categorical(Structure):
    """One variable with K values. Potentials: ``[K]``.

    >>> Categorical(3).marginals([0.0, 0.0, float("-inf")])
    array([0.5, 0.5, 0. ], dtype=float32)
    """

    def __init__(self, K: int):
        K = _whole("K", K)
        self._set(_native.Structure.product(1, K), K)


class Binary(Structure):
    """n independent binary variables. Potentials: ``[n, 2]``.

    >>> Binary(3).states
    8
    """

    def __init__(self, n: int):
        n = _whole("n", n)
        self._set(_native.Structure.product(n, 2), n)


class Subset(Structure):
    """Exactly k of n elements; assignments are n zeros and ones. Potentials: a score of each element, ``[n]``.

    >>> Subset(4, 2).solve([1, 4, 2, 3]).assignments
    array([0, 1, 0, 1], dtype=uint32)
    """

    def __init__(self, n: int, k: int):
        n, k = _whole("n", n), _whole("k", k)
        self._set(_native.Structure.subset(n, k), n, k)


class Permutation(Structure):
    """Permutations of n: ``z[i]`` is the column of row i. Potentials: ``[n, n]``, ``[row][column]``. No sums.

    >>> Permutation(3).solve([1, 9, 0, 9, 9, 0, 0, 0, 1]).assignments
    array([1, 0, 2], dtype=uint32)
    """

    def __init__(self, n: int):
        n = _whole("n", n)
        self._set(_native.Structure.permutation(n), n)


class SpanningTree(Structure):
    """Spanning trees of a connected graph: ``z[e]`` says whether edge e is in it. Potentials: one of each edge.

    Without ``edges`` it is the complete graph, its edges ``(0, 1), (0, 2), ..., (nodes - 2, nodes - 1)``.

    >>> SpanningTree(4).states # Cayley: 4^2
    16
    >>> SpanningTree(3, [(0, 1), (1, 2), (2, 0)]).solve([3, 1, 2]).assignments
    array([1, 0, 1], dtype=uint32)
    """

    def __init__(self, nodes: int, edges: Iterable[Sequence[int]] | None = None):
        nodes = _whole("nodes", nodes)
        if edges is None:
            self._set(_native.Structure.spanning_tree(nodes, None), nodes)
        else:
            made = _edges(edges)
            self._set(_native.Structure.spanning_tree(nodes, made), nodes, made)


class Arborescence(Structure):
    """Directed trees that come from a root: ``z[child]`` is its parent, ``z[root]`` the root itself.

    Potentials: ``[n, n]``, ``[parent][child]``; the diagonal and the column of the root are ignored.

    >>> Arborescence(3, 0).solve([0, 5, 1, 0, 0, 5, 0, 9, 0]).assignments # 0 -> 1 -> 2
    array([0, 0, 1], dtype=uint32)
    """

    def __init__(self, n: int, root: int = 0):
        n, root = _whole("n", n), _whole("root", root)
        self._set(_native.Structure.arborescence(n, root), n, root)
