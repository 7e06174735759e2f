"""Gradients for PyTorch: estimators whose oracle is your decoder, layers, and differentiable sums.

The loss function answers what an estimator asks: ``loss(codes, of)`` gives the losses ``[rows]`` (nats) of codes
``[rows, U]`` of the examples ``of`` ``[rows]``, places in the flattened batch. Questions come without a graph, in
chunks of at most ``chunk`` rows, on the thread that has called.

>>> _ = torch.manual_seed(0)
>>> chain = Chain(3, 2)
>>> theta = torch.zeros(4, chain.potentials, requires_grad=True) # from an encoder
>>> decoder = torch.nn.Linear(chain.unary, 5)
>>> x = torch.rand(4, 5)
>>> def loss(codes, of):
...     return ((decoder(codes) - x[of]) ** 2).sum(-1)
>>> found = direct(theta, loss, chain, epsilon=1.0)
>>> (found.loss + kl_to_uniform(theta, chain)).mean().backward()
>>> theta.grad.shape, decoder.weight.grad.shape, found.codes.shape
(torch.Size([4, 14]), torch.Size([5, 6]), torch.Size([1, 4, 6]))

Tensors may be on any device and of any real type: solvers work on the CPU in float32, one copy each way. Sums are
operators that ``torch.compile`` knows; estimators and layers end a graph, which goes on behind them.
"""

from __future__ import annotations

import ast
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import gumbel_argmax

from ._custom import known
from ._estimators import Estimator
from ._structures import Structure, gumbel

__all__ = [
    "Argmax",
    "Sampled",
    "covariance",
    "direct",
    "entropy",
    "estimate",
    "kl_to_uniform",
    "layer",
    "log_partition",
    "marginals",
    "noise",
    "potentials",
]

Loss = Callable[[Tensor, Tensor], Tensor]
Solver = Callable[[Tensor], Tensor]


class Sampled(NamedTuple):
    """What :func:`estimate` has found; ``...`` are the batch axes of the potentials."""

    loss: Tensor
    """Losses ``[...]`` of what the decoder is to follow, with gradients for the decoder *and* the potentials: the mean
    or the sum over the batch is the objective."""
    codes: Tensor | None
    """What the decoder follows ``[rows, ..., U]``: samples, or relaxed codes. ``None``: all states."""
    weights: Tensor
    """Their weights in an example's loss ``[rows, ...]``; of all states ``[..., states]``."""
    surrogate: Tensor
    """Zeros ``[...]`` whose gradient is the estimate at the potentials: to add to losses of one's own at ``codes``."""
    gradient: Tensor
    """The estimate itself ``[..., P]``."""
    measures: dict[str, float]
    """What the estimator measures, by name."""


def _numpy(tensor: Tensor) -> NDArray[np.float32]:
    return tensor.detach().to("cpu", torch.float32).contiguous().numpy()


def _seed(generator: torch.Generator | None) -> int:
    device = generator.device if generator is not None else "cpu"
    return int(torch.randint(2**62, (), generator=generator, device=device).item())


def noise(
    structure_or_estimator: Structure | Estimator, *shape: int, generator: torch.Generator | None = None
) -> Tensor:
    """Gumbel noise ``[*shape, width]`` (float32, CPU) of torch's generator: as many numbers for each example as an
    estimator asks for, or U of a structure.

    >>> noise(Subset(5, 2), 3, 4).shape
    torch.Size([3, 4, 5])
    """
    it = structure_or_estimator
    width = it.noise_width if isinstance(it, Estimator) else it.unary
    return torch.from_numpy(gumbel((*shape, width), _seed(generator)))


class _Surrogate(torch.autograd.Function):
    """Zeros whose gradient at the potentials is given."""

    @staticmethod
    def forward(ctx: Any, theta: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return theta.new_zeros(theta.shape[:-1])

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (gradient,) = ctx.saved_tensors
        return grad[..., None] * gradient, None


def _estimator(structure: Structure, estimator: str | Estimator, settings: dict[str, Any]) -> Estimator:
    if isinstance(estimator, Estimator):
        if settings:
            raise ValueError(f"settings {', '.join(settings)} beside an estimator that has its own: expected none")
        if estimator.structure != structure:
            raise ValueError(f"the estimator is for {estimator.structure!r}: expected one for {structure!r}")
        return estimator
    return _named(structure, estimator, tuple(sorted(settings.items())))


def _parsed(key: str) -> Structure:
    """The structure that a text stands for."""
    return known[key] if key in known else _made(key)


@functools.lru_cache(maxsize=64)
def _made(key: str) -> Structure:
    name, arguments = key.split("(", 1)
    made = getattr(gumbel_argmax, name)(*ast.literal_eval(f"({arguments.removesuffix(')')},)"))
    assert isinstance(made, Structure)
    return made


def _named(structure: Structure, name: str, settings: tuple[tuple[str, Any], ...]) -> Estimator:
    # A new one each time: what learns from step to step is an `Estimator` that the user keeps.
    return Estimator(structure, name, **dict(settings))


@torch.compiler.disable
def estimate(
    theta: Tensor,
    loss: Loss,
    structure: Structure,
    estimator: str | Estimator = "direct",
    *,
    samples: int | None = None,
    noise: Tensor | str | None = None,
    seed: int | None = None,
    index: int = 0,
    generator: torch.Generator | None = None,
    follow: bool = True,
    step: int | None = None,
    kl_weight: float | None = None,
    chunk: int = 4096,
    threads: int = 0,
    **settings: Any,
) -> Sampled:
    """The expected loss of a decoder, estimated, with gradients for both sides.

    Args:
        theta: potentials ``[..., P]``.
        loss: the losses of codes; see the module.
        structure: what the potentials belong to.
        estimator: a name of the registry (:func:`gumbel_argmax.estimators`) with its ``settings``, or an
            :class:`Estimator`, which keeps what it learns and its memory from step to step.
        samples: samples of each example; by default as few as the estimator can do with.
        noise: standard Gumbel variables ``[samples, ..., width]``; see :func:`noise`. A text is the setting ``noise``
            of the estimator (``full``: a Gumbel variable for every state).
        seed: with ``index``, where the noise comes from if none is given; by default torch's ``generator``.
        follow: whether the decoder's pass with a graph is made here. If not, ``Sampled.loss`` is the surrogate alone,
            and the decoder's loss at ``codes`` is yours to add.
        step: the training step, of which scheduled settings are a function; with it the estimator learns.
        kl_weight: weight of the KL term in the estimator's own objective, with a ``step``; see :attr:`Estimator.kl`.
        chunk: the most rows of a question.
        threads: threads of the solvers, 0 for all cores.

    >>> theta = torch.tensor([0.0, 0.0, 0.0], requires_grad=True)
    >>> found = estimate(theta, lambda codes, of: codes @ torch.tensor([3.0, 0.0, 0.0]), Categorical(3), "exact")
    >>> found.loss.backward()
    >>> round(found.loss.item(), 4), theta.grad
    (1.0, tensor([ 0.6667, -0.3333, -0.3333]))
    """
    if isinstance(noise, str):
        settings, noise = {**settings, "noise": noise}, None
    made = _estimator(structure, estimator, settings)
    if theta.shape[-1:] != (structure.potentials,):
        expected = f"[..., {structure.potentials}]"
        raise ValueError(f"theta has shape {tuple(theta.shape)}: expected {expected}, the potentials of {structure!r}")
    batch, device, u = theta.shape[:-1], theta.device, structure.unary
    count = batch.numel()

    def tensors(codes: NDArray[np.float32], of: NDArray[np.uint32]) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(codes).to(device), torch.from_numpy(of.astype(np.int64)).to(device)

    def checked(found: Tensor, rows: int) -> Tensor:
        if not isinstance(found, Tensor) or found.shape != (rows,):
            what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise ValueError(f"the loss is {what}: expected a tensor [{rows}], one loss of each row")
        return found

    def losses(codes: NDArray[np.float32], of: NDArray[np.uint32]) -> NDArray[np.float32]:
        with torch.no_grad():
            return _numpy(checked(loss(*tensors(codes, of)), len(of)))

    def slopes(codes: NDArray[np.float32], of: NDArray[np.uint32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        with torch.enable_grad():
            rows, places = tensors(codes, of)
            rows.requires_grad_(True)
            found = checked(loss(rows, places), len(of))
            # Of a loss that does not depend on the code, nothing.
            (slope,) = torch.autograd.grad(found.sum(), rows, allow_unused=True) if found.requires_grad else (None,)
        return _numpy(found), np.zeros_like(codes) if slope is None else _numpy(slope)

    if noise is None and seed is None and made.noise_width:
        seed = _seed(generator)
    found = made.estimate(
        _numpy(theta),
        losses,
        slopes,
        noise=None if noise is None else _numpy(noise),
        samples=samples,
        seed=seed or 0,
        index=index,
        step=step,
        kl_weight=kl_weight,
        chunk=chunk,
        threads=threads,
    )
    gradient = torch.from_numpy(found.gradient).to(device, theta.dtype)
    weights = torch.from_numpy(found.weights).to(device)
    codes = None if found.codes is None else torch.from_numpy(found.codes).to(device)
    surrogate: Tensor = _Surrogate.apply(theta, gradient)
    total = surrogate
    if follow and count:
        of = torch.arange(count, device=device)
        if codes is not None:
            rows = codes.shape[0]
            own = checked(loss(codes.reshape(rows * count, u), of.repeat(rows)), rows * count).reshape(rows, *batch)
            total = total + (weights * own).sum(0)
        else:
            states = torch.from_numpy(structure.encode(structure.enumerate())).to(device)
            all_of = of.repeat_interleave(len(states))
            own = checked(loss(states.repeat(count, 1), all_of), len(all_of)).reshape(*batch, len(states))
            total = total + (weights * own).sum(-1)
    return Sampled(total, codes, weights, surrogate, gradient, found.measures)


def direct(theta: Tensor, loss: Loss, structure: Structure, **options: Any) -> Sampled:
    """Direct optimisation through arg max: :func:`estimate` with the estimator ``direct``.

    Its settings are, among others, ``epsilon`` (the step of the losses against the potentials; with ``epsilon_min``,
    ``epsilon_decay`` and ``step=`` it falls), ``two_sided``, ``rao_blackwell``, ``joint`` (``off``, ``search``,
    ``exact``: how interactions of variables in the loss are taken care of). What is not given is chosen for the
    structure.

    >>> _ = torch.manual_seed(0)
    >>> theta = torch.zeros(100, 6, requires_grad=True)
    >>> cost = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    >>> direct(theta, lambda codes, of: codes @ cost, Subset(6, 2), epsilon=0.5).loss.sum().backward()
    >>> bool(theta.grad.sum(0)[0] < 0 < theta.grad.sum(0)[5]) # descending makes the cheap ones likelier
    True
    """
    return estimate(theta, loss, structure, "direct", **options)


class _Codes(torch.autograd.Function):
    """Codes of samples; the gradient at the potentials is an estimate of that of the loss linearised at them."""

    @staticmethod
    def forward(
        ctx: Any, theta: Tensor, estimator: Estimator, values: Any, step: int | None, threads: int, mean: bool
    ) -> Tensor:
        # Linear losses of zero: the samples are those of the estimate to come.
        u = estimator.structure.unary
        zeros = np.zeros((*theta.shape[:-1], u), np.float32)
        found = estimator.estimate_linear(_numpy(theta), zeros, noise=values, step=step, learn=False, threads=threads)
        assert found.codes is not None
        ctx.rest = (estimator, values, step, threads)
        ctx.save_for_backward(theta)
        codes = (found.weights[..., None] * found.codes).sum(axis=0) if mean else found.codes[0]
        return torch.from_numpy(codes).to(theta.device, theta.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        estimator, values, step, threads = ctx.rest
        (theta,) = ctx.saved_tensors
        found = estimator.estimate_linear(_numpy(theta), _numpy(grad), noise=values, step=step, threads=threads)
        return torch.from_numpy(found.gradient).to(theta.device, theta.dtype), None, None, None, None, None


class Argmax(torch.nn.Module):
    """A layer of discrete variables inside a network, of whose loss only the slope at the code is known.

    ``forward(theta)`` takes potentials ``[..., P]`` and gives the codes ``[samples, ..., U]`` of perturbed arg maxima,
    ``[..., U]`` for ``samples=None``; its backward pass is the estimator's gradient of the loss linearised at them.
    With ``mean=True`` the answer is the mean ``[..., U]`` over the samples, which estimators that compare samples
    (``perturbed``, ``rloo``) ask for.

    Any estimator of the registry that follows samples or relaxed codes will do: ``imle``, ``adaptive-imle``,
    ``perturbed``, ``simple``, ``softmax-trick``, ``straight-through``, ``gumbel-softmax``, ``reinmax``, ``direct``, ...

    >>> _ = torch.manual_seed(0)
    >>> layer = Argmax(Subset(4, 2), "imle", samples=8)
    >>> theta = torch.zeros(4, requires_grad=True)
    >>> codes = layer(theta)
    >>> codes.shape, codes.sum(-1).unique().tolist()
    (torch.Size([8, 4]), [2.0])
    >>> (codes * torch.tensor([1.0, 0.0, 0.0, -1.0])).sum().backward()
    >>> bool(theta.grad[0] > 0 > theta.grad[3])
    True
    """

    def __init__(
        self,
        structure: Structure,
        estimator: str | Estimator = "imle",
        *,
        samples: int | None = None,
        mean: bool = False,
        threads: int = 0,
        **settings: Any,
    ):
        super().__init__()
        self.structure = structure
        self.estimator = _estimator(structure, estimator, settings)
        self.samples, self.mean, self.threads, self.steps = samples, mean, threads, 0
        name = self.estimator.name
        if self.estimator.follows == "states":
            raise ValueError(f"{name} follows all states: expected an estimator that follows samples")
        least = self.estimator.least_samples
        if mean:
            self.samples = least if samples is None else samples
        if not mean and (least > 1 or self.estimator._inner.rows(1) != 1):
            raise ValueError(f"{name} compares several rows of an example: expected mean=True")
        if samples is not None and samples < (least if mean else 1):
            raise ValueError(f"samples = {samples}: expected at least {least}")

    def get_extra_state(self) -> dict[str, Any]:
        """What stands in the ``state_dict`` of a network: passes in training, and what the estimator has learned."""
        return {"steps": self.steps, "estimator": torch.from_numpy(self.estimator.state())}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        """Puts that back."""
        self.steps = int(state["steps"])
        self.estimator.restore(state["estimator"].cpu().numpy())

    def extra_repr(self) -> str:
        """What stands in the picture of a network."""
        return f"{self.structure!r}, {self.estimator.name!r}, samples={self.samples}, mean={self.mean}"

    @torch.compiler.disable
    def forward(
        self, theta: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None
    ) -> Tensor:
        """Codes of the potentials; ``noise`` ``[samples, ..., width]``, of one sample with ``samples=None`` too."""
        p, count = self.structure.potentials, self.samples or 1
        if theta.shape[-1:] != (p,):
            raise ValueError(f"theta has shape {tuple(theta.shape)}: expected [..., {p}]")
        batch, width = tuple(theta.shape[:-1]), self.estimator.noise_width
        if noise is None:
            values = gumbel((count, *batch, width), _seed(generator) if width else 0)
        else:
            values = _numpy(noise)
            if values.shape != (count, *batch, width):
                raise ValueError(f"noise has shape {values.shape}: expected {(count, *batch, width)}")
        # Settings with a schedule follow the number of passes in training, as does what an estimator learns.
        step = self.steps if self.training and torch.is_grad_enabled() else None
        self.steps += step is not None
        if self.mean:
            codes: Tensor = _Codes.apply(theta, self.estimator, values, step, self.threads, True)
            return codes
        # Every sample is an example of its own: its slope differs.
        many = theta.expand(count, *theta.shape).contiguous()
        codes = _Codes.apply(many, self.estimator, values[None], step, self.threads, False)
        return codes if self.samples is not None else codes[0]


class _Solved(torch.autograd.Function):
    """What a user's solver finds for potentials with noise, and the differences that stand for a derivative."""

    @staticmethod
    def forward(
        ctx: Any, theta: Tensor, noise: Tensor, solver: Solver, step: float, two_sided: bool, score: float
    ) -> Tensor:
        perturbed = theta + noise
        found = _solve(solver, perturbed)
        ctx.rest = (solver, step, two_sided, score)
        ctx.save_for_backward(perturbed, noise, found)
        return found if score == 0 else found.mean(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        solver, step, two_sided, score = ctx.rest
        perturbed, noise, found = ctx.saved_tensors
        if score != 0:
            # The loss of each sample, linearised, against the mean of the others.
            losses = (found * grad).sum(-1, keepdim=True)
            count = len(losses)
            losses = (losses - losses.mean(0)) * count / (count - 1)
            return (losses * (1 - torch.exp(-noise / score)) / score).mean(0), None, None, None, None, None
        down = _solve(solver, perturbed - step * grad)
        if two_sided:
            up = _solve(solver, perturbed + step * grad)
            return (up - down) / (2 * step), None, None, None, None, None
        return (found - down) / step, None, None, None, None, None


def _solve(solver: Solver, theta: Tensor) -> Tensor:
    with torch.no_grad():
        found = solver(theta.reshape(-1, theta.shape[-1]))
    rows = theta.numel() // max(theta.shape[-1], 1)
    if not isinstance(found, Tensor) or found.shape != (rows, theta.shape[-1]):
        what = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
        raise ValueError(f"the solver has given {what}: expected a tensor {(rows, theta.shape[-1])}, as its argument")
    return found.to(theta).reshape(theta.shape)


def layer(
    solver: Solver | None = None,
    /,
    *,
    method: str = "imle",
    samples: int | None = None,
    scale: float = 1.0,
    step: float = 1.0,
    two_sided: bool = False,
) -> Any:
    """Makes a layer of any batched solver: a decorator, with or without arguments.

    The solver is given potentials ``[rows, P]`` without a graph and gives what maximises ``<theta, s>`` over its own
    set, ``[rows, P]``. The layer takes ``[..., P]``; further arguments are ``noise=`` (standard Gumbel variables
    ``[samples, ..., P]``) and ``generator=``.

    - ``method="imle"``: the difference ``(s* - s(theta + noise - step slope)) / step``, of order ``step`` beside the
      truth; ``two_sided`` of order ``step^2``. Codes ``[samples, ..., P]``; ``[..., P]`` for ``samples=None``. With
      ``scale=0`` there is no noise: the blackbox differentiation of Pogancic et al., 2020.
    - ``method="perturbed"``: the mean ``[..., P]`` of at least 2 samples with noise times ``scale``, whose gradient is
      the score of the noise (Berthet et al., 2020).

    >>> @layer(method="perturbed", samples=1000)
    ... def largest(theta):
    ...     return torch.nn.functional.one_hot(theta.argmax(-1), theta.shape[-1])
    >>> _ = torch.manual_seed(0)
    >>> theta = torch.zeros(3, requires_grad=True)
    >>> (largest(theta) @ torch.tensor([1.0, 0.0, -1.0])).backward()
    >>> bool(theta.grad[0] > 0.2 and theta.grad[2] < -0.2) # a third of (1, 0, -1)
    True
    """
    if method not in ("imle", "perturbed"):
        raise ValueError(f"method = {method!r}: expected imle or perturbed")
    if not (0 <= scale < float("inf")) or not (0 < step < float("inf")):
        raise ValueError(f"scale = {scale}, step = {step}: expected finite numbers, a step greater than 0")
    perturbed = method == "perturbed"
    if perturbed and ((samples or 0) < 2 or scale == 0):
        raise ValueError(f"samples = {samples}, scale = {scale}: perturbed expected at least 2 samples with noise")
    if samples is not None and samples < 1:
        raise ValueError(f"samples = {samples}: expected at least 1")

    def decorate(solver: Solver) -> Callable[..., Tensor]:
        @torch.compiler.disable
        @functools.wraps(solver)
        def solved(theta: Tensor, noise: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
            shape = (samples or 1, *theta.shape)
            if noise is None:
                drawn = np.zeros(shape, np.float32) if scale == 0 else gumbel(shape, _seed(generator))
                noise = torch.from_numpy(drawn)
            if noise.shape != shape:
                raise ValueError(f"noise has shape {tuple(noise.shape)}: expected {shape}")
            noise = scale * noise.to(theta)
            many = theta if perturbed else theta.expand(shape)
            # The gradient of a sum over samples is made by `expand`; a mean has one slope for all of them.
            found: Tensor = _Solved.apply(many, noise, solver, step, two_sided, scale if perturbed else 0.0)
            return found if perturbed or samples is not None else found[0]

        return solved

    return decorate if solver is None else decorate(solver)


# Sums: operators of torch, which a compiler of graphs knows too. They are given structures as texts.


@torch.library.custom_op("gumbel_argmax::marginals", mutates_args=())
def _marginals(theta: Tensor, key: str) -> tuple[Tensor, Tensor]:
    found, sums = _parsed(key).marginals_and_log_partition(_numpy(theta))
    return _back(found, theta), _back(sums, theta)


@torch.library.custom_op("gumbel_argmax::covariance", mutates_args=())
def _covariance(theta: Tensor, direction: Tensor, key: str) -> Tensor:
    return _back(_parsed(key).covariance(_numpy(theta), _numpy(direction)), theta)


@torch.library.custom_op("gumbel_argmax::kl_to_uniform", mutates_args=())
def _kl(theta: Tensor, key: str) -> tuple[Tensor, Tensor]:
    kl, gradient = _parsed(key).kl_to_uniform(_numpy(theta))
    return _back(kl, theta), _back(gradient, theta)


@torch.library.custom_op("gumbel_argmax::kl_gradient", mutates_args=())
def _kl_gradient(theta: Tensor, gradient: Tensor) -> Tensor:
    """The gradient of the KL as it is, which depends on the potentials: who differentiates it is told so."""
    return gradient.clone()


@torch.library.custom_op("gumbel_argmax::potentials", mutates_args=())
def _potentials(raw: Tensor, key: str) -> Tensor:
    return _back(_parsed(key).to_potentials(_numpy(raw)), raw)


@torch.library.custom_op("gumbel_argmax::raw_gradient", mutates_args=())
def _raw_gradient(made: Tensor, gradient: Tensor, key: str) -> Tensor:
    return _back(_parsed(key).to_raw_gradient(_numpy(made), _numpy(gradient)), made)


def _back(array: Any, like: Tensor) -> Tensor:
    return torch.from_numpy(np.asarray(array)).to(like.device, like.dtype)


@_marginals.register_fake
def _(theta: Tensor, key: str) -> tuple[Tensor, Tensor]:
    return torch.empty_like(theta, memory_format=torch.contiguous_format), theta.new_empty(theta.shape[:-1])


@_kl.register_fake
def _(theta: Tensor, key: str) -> tuple[Tensor, Tensor]:
    return theta.new_empty(theta.shape[:-1]), torch.empty_like(theta, memory_format=torch.contiguous_format)


@_covariance.register_fake
def _(theta: Tensor, direction: Tensor, key: str) -> Tensor:
    return torch.empty_like(theta, memory_format=torch.contiguous_format)


@_kl_gradient.register_fake
def _(theta: Tensor, gradient: Tensor) -> Tensor:
    return torch.empty_like(gradient, memory_format=torch.contiguous_format)


@_potentials.register_fake
def _(raw: Tensor, key: str) -> Tensor:
    return torch.empty_like(raw, memory_format=torch.contiguous_format)


@_raw_gradient.register_fake
def _(made: Tensor, gradient: Tensor, key: str) -> Tensor:
    return torch.empty_like(made, memory_format=torch.contiguous_format)


def _keep_theta(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(inputs[0])
    ctx.key = inputs[1]
    # Whoever asks for the log-partition alone does not pay for covariances.
    ctx.set_materialize_grads(False)


def _keep_gradient(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    # Of the KL the gradient is there already.
    ctx.save_for_backward(inputs[0], output[1])
    ctx.set_materialize_grads(False)


def _keep_output(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(output)
    ctx.key = inputs[1]


def _marginals_backward(ctx: Any, of_marginals: Tensor | None, of_sums: Tensor | None) -> tuple[Tensor | None, None]:
    (theta,) = ctx.saved_tensors
    # Of the log-partition twice: marginals are an operator themselves.
    gradient: Tensor | None = None
    if of_sums is not None:
        gradient = of_sums[..., None] * _marginals(theta, ctx.key)[0]
    if of_marginals is not None:
        along = _covariance(theta, of_marginals, ctx.key)
        gradient = along if gradient is None else gradient + along
    return gradient, None


def _kl_backward(ctx: Any, of_kl: Tensor | None, of_gradient: Tensor | None) -> tuple[Tensor | None, None]:
    theta, gradient = ctx.saved_tensors
    return None if of_kl is None else of_kl[..., None] * _kl_gradient(theta, gradient.detach()), None


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    pass


def _no_more(ctx: Any, grad: Tensor) -> tuple[None, ...]:
    raise RuntimeError("expected one derivative of marginals, entropy and KL, and two of log_partition: found one more")


def _potentials_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    (made,) = ctx.saved_tensors
    return _raw_gradient(made, grad.contiguous(), ctx.key), None


_marginals.register_autograd(_marginals_backward, setup_context=_keep_theta)
_covariance.register_autograd(_no_more, setup_context=_keep_nothing)
_kl_gradient.register_autograd(_no_more, setup_context=_keep_nothing)
_kl.register_autograd(_kl_backward, setup_context=_keep_gradient)
_potentials.register_autograd(_potentials_backward, setup_context=_keep_output)


# Sums keep single precision where a part of a network is computed in half: as losses of torch's own do.
if hasattr(torch.library, "register_autocast"):
    for _operator in (_marginals, _kl, _covariance, _potentials):
        for _device in ("cpu", "cuda"):
            torch.library.register_autocast(_operator, _device, torch.float32)


def log_partition(theta: Tensor, structure: Structure) -> Tensor:
    """``ln sum_z exp <theta, s(z)>`` ``[...]`` in nats, differentiable twice: its gradient are the marginals.

    >>> theta = torch.zeros(4, requires_grad=True)
    >>> log_partition(theta, Subset(4, 2)).backward()
    >>> theta.grad
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    found: Tensor = _marginals(theta, structure.key)[1]
    return found


def marginals(theta: Tensor, structure: Structure) -> Tensor:
    """Marginals ``E_q[s(z)]`` ``[..., P]``, differentiable once.

    >>> marginals(torch.zeros(4), Subset(4, 2))
    tensor([0.5000, 0.5000, 0.5000, 0.5000])
    """
    found: Tensor = _marginals(theta, structure.key)[0]
    return found


def covariance(theta: Tensor, direction: Tensor, structure: Structure) -> Tensor:
    """``Cov_q[s(z)] direction`` ``[..., P]``; no gradient.

    >>> covariance(torch.tensor([0.5, 0.5]), torch.tensor([0.0, 2.0]), Categorical(2))
    tensor([-0.5000,  0.5000])
    """
    found: Tensor = _covariance(theta.detach(), direction.detach(), structure.key)
    return found


def kl_to_uniform(theta: Tensor, structure: Structure) -> Tensor:
    """``KL(q || uniform)`` ``[...]`` in nats, differentiable once.

    >>> theta = torch.tensor([3.0, 0.0], requires_grad=True)
    >>> kl_to_uniform(theta, Categorical(2)).backward()
    >>> theta.grad
    tensor([ 0.1355, -0.1355])
    """
    found: Tensor = _kl(theta, structure.key)[0]
    return found


def entropy(theta: Tensor, structure: Structure) -> Tensor:
    """Entropy of q ``[...]`` in nats, differentiable once: ``ln |Z|`` less the KL.

    >>> entropy(torch.zeros(4), Subset(4, 2)) # ln 6
    tensor(1.7918)
    """
    return structure.ln_states - kl_to_uniform(theta, structure)


def potentials(raw: Tensor, structure: Structure) -> Tensor:
    """Potentials ``[..., P]`` of any real numbers, such as an encoder's outputs: other than these themselves only for
    :class:`~gumbel_argmax.Supermodular`, whose weights are their softplus.

    >>> potentials(torch.zeros(5), Supermodular(2))
    tensor([0.0000, 0.0000, 0.0000, 0.0000, 0.6931])
    """
    found: Tensor = _potentials(raw, structure.key)
    return found
