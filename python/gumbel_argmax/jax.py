"""The same for JAX: arg max, differentiable sums, a layer of arg maxima, and direct optimisation.

Everything works under ``jit``, ``vmap`` and ``grad``: solvers are called back on the CPU in float32, as a
``pure_callback``. Axes of the potentials before the last are a batch.

>>> structure = Chain(3, 2)
>>> theta = jnp.zeros((4, structure.potentials))
>>> jax.jit(lambda t: solve(t, structure))(theta).shape
(4, 3)
>>> jax.grad(lambda t: log_partition(t, structure).sum())(theta)[0, :2].tolist() # marginals
[0.5, 0.5]
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from ._estimators import Estimator
from ._structures import Structure

__all__ = ["argmax", "direct", "entropy", "kl_to_uniform", "log_partition", "marginals", "solve", "statistics"]

_nondiff = functools.partial(jax.custom_vjp, nondiff_argnums=(1,))


def _check(theta: Array, structure: Structure) -> None:
    if not isinstance(structure, Structure):
        raise TypeError(f"structure is {type(structure).__name__}: expected a structure, such as Chain(5, 3)")
    if theta.shape[-1:] != (structure.potentials,):
        expected = f"[..., {structure.potentials}], the potentials of {structure!r}"
        raise ValueError(f"theta has shape {theta.shape}: expected {expected}")


def _call(function: Callable[..., Any], shapes: Any, *arrays: Array) -> Any:
    """A function of NumPy arrays, of which ``vmap`` makes larger batches."""
    return jax.pure_callback(function, shapes, *arrays, vmap_method="broadcast_all")


def _like(theta: Array, shape: tuple[int, ...], dtype: Any = jnp.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((*theta.shape[:-1], *shape), dtype)


def _single(array: Array) -> Array:
    return jax.lax.stop_gradient(array).astype(jnp.float32)


def solve(theta: Array, structure: Structure) -> Array:
    """The assignments ``[..., n]`` (int32) of the largest scores; no gradient.

    >>> solve(jnp.array([1.0, 4.0, 2.0, 3.0]), Subset(4, 2)).tolist()
    [0, 1, 0, 1]
    """
    _check(theta, structure)
    found = lambda t: structure.solve(np.asarray(t)).assignments.astype(np.int32) # noqa: E731
    made: Array = _call(found, _like(theta, (structure.variables,), jnp.int32), _single(theta))
    return made


def statistics(z: Array, structure: Structure) -> Array:
    """The statistics ``s(z)`` ``[..., P]`` of assignments ``[..., n]``; the first U of them are the code.

    >>> statistics(jnp.array([1, 1]), Pairwise(2)).tolist()
    [0.0, 1.0, 0.0, 1.0, 1.0]
    """
    made: Array = _call(lambda z: structure.statistics(np.asarray(z)), _like(z, (structure.potentials,)), z)
    return made


@_nondiff
def log_partition(theta: Array, structure: Structure) -> Array:
    """``ln sum_z exp <theta, s(z)>`` ``[...]`` in nats, differentiable twice: its gradient are the marginals.

    >>> round(float(log_partition(jnp.zeros(4), Categorical(4))), 4) # ln 4
    1.3863
    """
    return _sums(theta, structure)[1]


def _sums(theta: Array, structure: Structure) -> tuple[Array, Array]:
    _check(theta, structure)

    def found(theta: Any) -> tuple[Any, Any]:
        marginals, sums = structure.marginals_and_log_partition(np.asarray(theta))
        return marginals, np.asarray(sums, np.float32)

    made, sums = _call(found, (_like(theta, (structure.potentials,)), _like(theta, ())), _single(theta))
    return made.astype(theta.dtype), sums.astype(theta.dtype)


def _marginals(theta: Array, structure: Structure) -> Array:
    made: Array = marginals(theta, structure)
    return made


log_partition.defvjp(
    lambda theta, structure: (log_partition(theta, structure), theta),
    lambda structure, theta, grad: (grad[..., None] * _marginals(theta, structure),),
)


@_nondiff
def marginals(theta: Array, structure: Structure) -> Array:
    """Marginals ``E_q[s(z)]`` ``[..., P]``, differentiable once.

    >>> marginals(jnp.zeros(4), Subset(4, 2)).tolist()
    [0.5, 0.5, 0.5, 0.5]
    """
    return _sums(theta, structure)[0]


def _along(structure: Structure, theta: Array, grad: Array) -> tuple[Array]:
    found = lambda t, d: structure.covariance(np.asarray(t), np.asarray(d)) # noqa: E731
    made = _call(found, _like(theta, (structure.potentials,)), _single(theta), _single(grad))
    return (made.astype(theta.dtype),)


marginals.defvjp(lambda theta, structure: (marginals(theta, structure), theta), _along)


def _kl(theta: Array, structure: Structure) -> tuple[Array, Array]:
    _check(theta, structure)

    def found(theta: Any) -> tuple[Any, Any]:
        kl, gradient = structure.kl_to_uniform(np.asarray(theta))
        return np.asarray(kl, np.float32), gradient

    kl, gradient = _call(found, (_like(theta, ()), _like(theta, (structure.potentials,))), _single(theta))
    return kl.astype(theta.dtype), gradient.astype(theta.dtype)


@_nondiff
def kl_to_uniform(theta: Array, structure: Structure) -> Array:
    """``KL(q || uniform)`` ``[...]`` in nats, differentiable once.

    >>> [round(float(g), 4) for g in jax.grad(kl_to_uniform)(jnp.array([3.0, 0.0]), Categorical(2))]
    [0.1355, -0.1355]
    """
    return _kl(theta, structure)[0]


kl_to_uniform.defvjp(_kl, lambda structure, gradient, grad: (grad[..., None] * gradient,))


def entropy(theta: Array, structure: Structure) -> Array:
    """Entropy of q ``[...]`` in nats, differentiable once.

    >>> round(float(entropy(jnp.zeros(4), Subset(4, 2))), 4) # ln 6
    1.7918
    """
    return structure.ln_states - kl_to_uniform(theta, structure)


@jax.custom_vjp
def _surrogate(theta: Array, gradient: Array) -> Array:
    """Zeros ``[...]`` whose gradient at the potentials is given."""
    return jnp.zeros(theta.shape[:-1], theta.dtype)


_surrogate.defvjp(
    lambda theta, gradient: (_surrogate(theta, gradient), gradient),
    lambda gradient, grad: (grad[..., None] * gradient, jnp.zeros_like(gradient)),
)


def direct(
    theta: Array,
    loss: Callable[[Array], Array],
    structure: Structure,
    key: Array,
    *,
    epsilon: float = 1.0,
) -> Array:
    """Direct optimisation through arg max: the losses ``[...]`` of samples, with gradients for both sides.

    The sample is the arg max of the potentials with Gumbel noise. The losses of all its one-coordinate changes, times
    ``epsilon``, move the potentials to a second arg max; the difference of the two is the gradient at the potentials.
    Interactions of variables in the loss are left out of the second one (``joint="off"`` of the estimator ``direct``),
    of which there is more in :mod:`gumbel_argmax.torch`.

    Args:
        theta: potentials ``[..., P]``.
        loss: ``loss(codes)`` gives the losses ``[rows, ...]`` of codes ``[rows, ..., U]``. It is traced twice: for the
            changes, without a gradient, and for the sample.
        structure: what the potentials belong to.
        key: of the noise.
        epsilon: the step, not 0: of order epsilon beside the truth; negative ones move to larger losses.

    >>> cost = jnp.arange(6.0)
    >>> loss = lambda theta: direct(theta, lambda codes: codes @ cost, Subset(6, 2), jax.random.key(0)).sum()
    >>> gradient = jax.grad(loss)(jnp.zeros((100, 6))).sum(0)
    >>> bool(gradient[0] < 0 < gradient[5]) # descending makes the cheap ones likelier
    True
    """
    _check(theta, structure)
    u, n = structure.unary, structure.variables
    noise = jax.random.gumbel(key, (*theta.shape[:-1], u), jnp.float32)
    perturbed = _single(theta).at[..., :u].add(noise)
    star = statistics(solve(perturbed, structure), structure)
    code = star[..., :u]
    # Rows of changes: of one-hot rows every value of every variable, its own too; of indicators every switch.
    if structure.one_hot:
        k = u // n
        hot = jnp.broadcast_to(code.reshape(1, 1, *code.shape[:-1], n, k), (n, k, *code.shape[:-1], n, k))
        here = jnp.eye(n, dtype=bool).reshape(n, 1, *[1] * (code.ndim - 1), n, 1)
        ones = jnp.eye(u, dtype=code.dtype).reshape(n, k, *[1] * (code.ndim - 1), n, k)
        changed = jnp.where(here, ones, hot).reshape(u, *code.shape)
        around = jnp.moveaxis(loss(changed), 0, -1)
    else:
        switched = jnp.abs(code - jnp.eye(u, dtype=code.dtype).reshape(u, *[1] * (code.ndim - 1), u))
        around = jnp.moveaxis(loss(switched) - loss(code[None]), 0, -1) * (1 - 2 * code)
    moved = perturbed.at[..., :u].add(-epsilon * _single(around))
    gradient = (star - statistics(solve(moved, structure), structure)) / epsilon
    return loss(jax.lax.stop_gradient(code)[None])[0] + _surrogate(theta, gradient.astype(theta.dtype))


@functools.lru_cache(maxsize=64)
def _named(structure: Structure, name: str, settings: tuple[tuple[str, Any], ...]) -> Estimator:
    return Estimator(structure, name, **dict(settings))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _codes(theta: Array, noise: Array, estimator: Estimator) -> Array:
    zeros = jnp.zeros((*theta.shape[:-1], estimator.structure.unary))
    return _estimate(theta, noise, zeros, estimator)[1]


def _estimate(theta: Array, noise: Array, slopes: Array, estimator: Estimator) -> tuple[Array, Array]:
    it = estimator.structure

    def found(theta: Any, noise: Any, slopes: Any) -> tuple[Any, Any]:
        # An estimator of its own: JAX may call back from several threads.
        own = Estimator(it, estimator.name, **estimator._chosen)
        drawn = np.moveaxis(np.asarray(noise), -2, 0) if estimator.noise_width else None
        made = own.estimate_linear(np.asarray(theta), np.asarray(slopes), noise=drawn)
        assert made.codes is not None
        codes = (made.weights[..., None] * made.codes).sum(axis=0)
        return made.gradient, codes.astype(np.float32)

    shapes = (_like(theta, (it.potentials,)), _like(theta, (it.unary,)))
    gradient, codes = _call(found, shapes, _single(theta), noise, _single(slopes))
    return gradient.astype(theta.dtype), codes.astype(theta.dtype)


_codes.defvjp(
    lambda theta, noise, estimator: (_codes(theta, noise, estimator), (theta, noise)),
    lambda estimator, kept, grad: (_estimate(kept[0], kept[1], grad, estimator)[0], jnp.zeros_like(kept[1])),
)


def argmax(
    theta: Array,
    structure: Structure,
    key: Array,
    estimator: str = "imle",
    *,
    samples: int | None = None,
    mean: bool = False,
    **settings: Any,
) -> Array:
    """Codes of perturbed arg maxima inside a network, of whose loss only the slope at the code is known.

    ``[..., U]``; ``[samples, ..., U]`` with ``samples``; their mean ``[..., U]`` with ``mean=True``, which estimators
    that compare samples ask for (``perturbed``, ``rloo``). The backward pass is that of the estimator, by name and with
    its settings (:func:`gumbel_argmax.estimators`), for the loss linearised at the codes; nothing is learned.

    >>> theta, slope = jnp.zeros((100, 4)), jnp.array([1.0, 0.0, 0.0, -1.0])
    >>> gradient = jax.grad(lambda t: (argmax(t, Subset(4, 2), jax.random.key(0)) @ slope).sum())(theta).sum(0)
    >>> bool(gradient[0] > 0 > gradient[3])
    True
    """
    _check(theta, structure)
    made = _named(structure, estimator, tuple(sorted(settings.items())))
    if made.follows == "states":
        raise ValueError(f"{estimator} follows all states: expected an estimator that follows samples")
    least = made.least_samples
    if not mean and (least > 1 or made._inner.rows(1) != 1):
        raise ValueError(f"{estimator} compares several rows of an example: expected mean=True")
    count = (least if mean else 1) if samples is None else samples
    if count < (least if mean else 1):
        raise ValueError(f"samples = {samples}: expected at least {least}")
    # Samples beside the width, behind the batch, as `vmap` adds its axis in front.
    width = max(made.noise_width, 1)
    if mean:
        noise = jax.random.gumbel(key, (*theta.shape[:-1], count, width), jnp.float32)
        return _codes(theta, noise, made)
    many = theta if samples is None else jnp.broadcast_to(theta, (count, *theta.shape))
    return _codes(many, jax.random.gumbel(key, (*many.shape[:-1], 1, width), jnp.float32), made)
