"""Estimators of the registry over NumPy arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _native
from ._structures import Structure, _float32, _threads, _whole, gumbel

Losses = Callable[[NDArray[np.float32], NDArray[np.uint32]], ArrayLike]
Slopes = Callable[[NDArray[np.float32], NDArray[np.uint32]], tuple[ArrayLike, ArrayLike]]


class SettingInfo(NamedTuple):
    """A setting of an estimator."""

    name: str
    default: str
    """As text; ``auto`` where it depends on the structure."""
    range: str
    """What it may be, in words."""
    help: str


class EstimatorInfo(NamedTuple):
    """An estimator in the registry."""

    name: str
    help: str
    settings: tuple[SettingInfo, ...]


def estimators() -> dict[str, EstimatorInfo]:
    """All estimators by their names, with their settings.

    >>> all = estimators()
    >>> [(s.name, s.default) for s in all["reinforce"].settings if s.name == "baseline"]
    [('baseline', 'average')]
    """
    found = _native.estimators()
    return {name: EstimatorInfo(name, text, tuple(SettingInfo(*s) for s in settings)) for name, text, settings in found}


class Estimate(NamedTuple):
    """What :meth:`Estimator.estimate` has found; ``...`` are the batch axes of the potentials."""

    gradient: NDArray[np.float32]
    """The estimate of the gradient of each example's expected loss at its potentials ``[..., P]``."""
    codes: NDArray[np.float32] | None
    """What the decoder is to follow, ``[rows, ..., U]``: codes of samples, or relaxed ones. ``None``: all states."""
    weights: NDArray[np.float32]
    """Their weights in an example's objective, ``[rows, ...]``; of all states ``[..., states]``."""
    measures: dict[str, float]
    """What the estimator measures, by name."""


def _text(value: Any) -> str:
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    return str(value)


def _restored(structure: Structure, name: str, settings: dict[str, Any], state: NDArray[np.float32]) -> Estimator:
    """A copy of an estimator."""
    made = Estimator(structure, name, **settings)
    made.restore(state)
    return made


class Estimator:
    """An estimator of the registry, by name, for a structure.

    Settings are those of the program, with ``_`` for ``-``; what is not given has its default, which for some depends
    on the structure. :func:`estimators` lists names, settings and ranges. It keeps what it learns (:meth:`state`), and
    its working memory from call to call: one estimator serves one thread at a time.

    >>> Estimator(Categorical(3), "direct", epsilon=0.5).settings["epsilon"]
    '0.5'
    """

    def __init__(self, structure: Structure, name: str = "direct", **settings: Any):
        if not isinstance(structure, Structure):
            raise TypeError(f"structure is {type(structure).__name__}: expected a structure, such as Chain(5, 3)")
        texts = [(key.replace("_", "-"), _text(value)) for key, value in settings.items()]
        self.structure = structure
        self.name = name
        self._chosen = settings
        self._inner = _native.Estimator(structure._inner, name, texts)

    def __repr__(self) -> str:
        return f"Estimator({self.structure!r}, {self.name!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (self.structure, self.name, self._chosen, self.state())

    @property
    def settings(self) -> dict[str, str]:
        """All settings, chosen or not, as texts."""
        return dict(self._inner.settings)

    @property
    def follows(self) -> str:
        """What a decoder follows: ``assignments`` (codes of zeros and ones), relaxed ``codes``, or all ``states``."""
        return self._inner.follows

    @property
    def kl(self) -> str:
        """Where the KL term is in what it estimates: ``apart`` (add its gradient), ``within`` (do not), or ``either``:
        within with the weight ``kl_weight`` of a step, which is 0 unless it is given."""
        return self._inner.kl

    @property
    def least_samples(self) -> int:
        """The fewest samples of each example that it can do with."""
        return self._inner.least_samples

    @property
    def noise_width(self) -> int:
        """Gumbel variables of one example and sample; 0 where nothing is random."""
        return self._inner.noise_width

    def state(self) -> NDArray[np.float32]:
        """What it has learned, for a checkpoint."""
        return self._inner.state()

    def restore(self, state: ArrayLike) -> None:
        """Puts a stored state back."""
        self._inner.restore(_float32("state", state).reshape(-1))

    def _noise(
        self, batch: tuple[int, ...], noise: ArrayLike | None, samples: int | None, seed: int, index: int
    ) -> NDArray[np.float32]:
        width = self.noise_width
        if width == 0:
            return np.empty(0, np.float32)
        if noise is None:
            count = self.least_samples if samples is None else _whole("samples", samples)
            if count < self.least_samples:
                raise ValueError(f"samples = {count}: {self.name} expected at least {self.least_samples}")
            return gumbel((count, *batch, width), seed, index).reshape(-1)
        array = _float32("noise", noise)
        if array.shape[1:] != (*batch, width) or (samples is not None and len(array) != samples):
            axes = ", ".join(map(str, ("samples" if samples is None else samples, *batch, width)))
            raise ValueError(f"noise has shape {array.shape}: {self.name} expected [{axes}]")
        return array.reshape(-1)

    def estimate(
        self,
        theta: ArrayLike,
        losses: Losses,
        slopes: Slopes | None = None,
        *,
        noise: ArrayLike | None = None,
        samples: int | None = None,
        seed: int = 0,
        index: int = 0,
        step: int | None = None,
        kl_weight: float | None = None,
        learn: bool | None = None,
        chunk: int = 4096,
        threads: int = 0,
    ) -> Estimate:
        """Estimates the gradient of ``E[loss(z)]`` at the potentials.

        Args:
            theta: potentials ``[..., P]``.
            losses: ``losses(codes, of)`` gives the losses ``[rows]`` in nats of codes ``[rows, U]`` of the examples
                ``of`` ``[rows]``, places in the flattened batch. It is called on this thread, as often as the estimator
                asks, with at most ``chunk`` rows; what it raises comes through.
            slopes: ``slopes(codes, of)`` gives losses and their derivatives in the codes, ``[rows]`` and ``[rows, U]``;
                for estimators that ask for them.
            noise: standard Gumbel variables ``[samples, ..., noise_width]``; by default those of ``(seed, index)``.
            samples: samples of each example; by default as few as the estimator can do with.
            step: the training step, from 0, of which scheduled settings are a function; ``None``: the step before.
            kl_weight: weight of the KL term that the estimator is to take into its objective, see :attr:`kl`; with a
                ``step`` only, 0 if it is not given.
            learn: whether the estimator is to learn from this call; by default if a ``step`` is given.
            chunk: the most rows of a question.
            threads: threads of the solvers, 0 for all cores.

        >>> exact = Estimator(Categorical(3), "exact")
        >>> exact.estimate([0.0, 0.0, 0.0], lambda codes, of: codes @ [3.0, 0.0, 0.0]).gradient
        array([ 0.6666667 , -0.33333334, -0.33333334], dtype=float32)
        """
        if kl_weight is not None and step is None:
            raise ValueError(f"kl_weight = {kl_weight} without a step: expected both, or none")
        rows, batch = self.structure._rows("theta", theta)
        flat = self._noise(batch, noise, samples, seed, index)
        u = self.structure.unary

        def ask(codes: NDArray[np.float32], of: NDArray[np.uint32]) -> NDArray[np.float32]:
            found = _float32("losses", losses(codes.reshape(-1, u), of))
            if found.shape != of.shape:
                raise ValueError(f"losses has shape {found.shape}: expected [{len(of)}], one of each row")
            return found

        def ask_slopes(
            codes: NDArray[np.float32], of: NDArray[np.uint32]
        ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
            assert slopes is not None
            values, derivatives = slopes(codes.reshape(-1, u), of)
            found, slope = _float32("losses", values), _float32("slopes", derivatives)
            if found.shape != of.shape:
                raise ValueError(f"losses has shape {found.shape}: expected [{len(of)}], one of each row")
            if slope.shape != (len(of), u):
                raise ValueError(f"slopes has shape {slope.shape}: expected [{len(of)}, {u}]")
            return found, slope.reshape(-1)

        found = self._inner.estimate(
            rows,
            flat,
            ask,
            None if slopes is None else ask_slopes,
            _whole("chunk", chunk),
            None if step is None else _whole("step", step, 2**64 - 1),
            float(kl_weight or 0.0),
            step is not None if learn is None else bool(learn),
            _threads(threads),
        )
        return self._made(found, batch)

    def estimate_linear(
        self,
        theta: ArrayLike,
        slopes: ArrayLike,
        *,
        noise: ArrayLike | None = None,
        samples: int | None = None,
        seed: int = 0,
        index: int = 0,
        step: int | None = None,
        learn: bool | None = None,
        threads: int = 0,
    ) -> Estimate:
        """The same of the losses ``<slopes, code>`` with ``slopes`` ``[..., U]``: no question is asked of Python.

        >>> Estimator(Categorical(3), "exact").estimate_linear([0.0, 0.0, 0.0], [3.0, 0.0, 0.0]).gradient
        array([ 0.6666667 , -0.33333334, -0.33333334], dtype=float32)
        """
        rows, batch = self.structure._rows("theta", theta)
        flat = self._noise(batch, noise, samples, seed, index)
        slope = _float32("slopes", slopes)
        if slope.shape != (*batch, self.structure.unary):
            raise ValueError(f"slopes has shape {slope.shape}: expected {(*batch, self.structure.unary)}")
        step = None if step is None else _whole("step", step, 2**64 - 1)
        slope, learn = slope.reshape(-1, self.structure.unary), step is not None if learn is None else bool(learn)
        found = self._inner.estimate_linear(rows, flat, slope, step, learn, _threads(threads))
        return self._made(found, batch)

    def _made(self, found: Any, batch: tuple[int, ...]) -> Estimate:
        gradient, codes, weights, measures = found
        gradient = gradient.reshape(*batch, self.structure.potentials)
        if self.follows == "states":
            return Estimate(gradient, None, weights.reshape(*batch, self.structure.states or 0), measures)
        rows = self._inner.rows(self.least_samples) if weights.size == 0 else weights.size // int(np.prod(batch))
        shape = (rows, *batch)
        return Estimate(gradient, codes.reshape(*shape, self.structure.unary), weights.reshape(shape), measures)
