"""The layer for JAX, against the library and against enumeration."""

import numpy as np
import pytest
from common import random_potentials

jax = pytest.importorskip("jax")
jnp = jax.numpy

import gumbel_argmax as ga # noqa: E402
import gumbel_argmax.jax as gj # noqa: E402

# Some of each kind: every one is compiled for a second.
FEW = [ga.Pairwise(4), ga.Chain(4, 3), ga.Subset(6, 2)]


def theta_of(structure, shape, seed):
    return jnp.asarray(random_potentials(structure, shape, np.random.default_rng(seed), 1.0))


@pytest.mark.parametrize("structure", [*FEW, ga.Permutation(4)], ids=repr)
def test_solutions_are_those_of_the_library(structure):
    theta = theta_of(structure, (3, 4), 1)
    expected = structure.solve(np.asarray(theta)).assignments
    solve = lambda t: gj.solve(t, structure) # noqa: E731
    for found in [solve(theta), jax.jit(solve)(theta), jax.vmap(solve)(theta), jax.vmap(solve, 1, 1)(theta)]:
        assert (np.asarray(found) == expected).all()
    made = jax.jit(lambda z: gj.statistics(z, structure))(solve(theta))
    assert (np.asarray(made) == structure.statistics(expected)).all()


@pytest.mark.parametrize("structure", FEW, ids=repr)
def test_sums_have_the_gradients_of_enumeration(structure):
    theta = theta_of(structure, (2, 3), 2)
    statistics = jnp.asarray(structure.statistics(structure.enumerate()))
    ln_z = lambda t: jax.nn.logsumexp(t @ statistics.T, axis=-1) # noqa: E731

    def kl(t):
        ln_q = t @ statistics.T - ln_z(t)[..., None]
        return structure.ln_states + (jnp.exp(ln_q) * ln_q).sum(-1)

    marginals = lambda t: jax.nn.softmax(t @ statistics.T, axis=-1) @ statistics # noqa: E731
    g = jnp.asarray(np.random.default_rng(3).standard_normal(theta.shape), jnp.float32)
    for call, expected in [
        (gj.log_partition, ln_z),
        (gj.kl_to_uniform, kl),
        (gj.entropy, lambda t: structure.ln_states - kl(t)),
        (lambda t, s: (g * gj.marginals(t, s)).sum(-1), lambda t: (g * marginals(t)).sum(-1)),
    ]:
        mine = lambda t, call=call: call(t, structure) # noqa: E731
        np.testing.assert_allclose(jax.jit(mine)(theta), expected(theta), atol=2e-4)
        a, b = (jax.jit(jax.grad(lambda t, f=f: f(t).sum()))(theta) for f in (mine, expected))
        np.testing.assert_allclose(a, b, atol=3e-4)
        if call is gj.log_partition:
            np.testing.assert_allclose(jax.vmap(jax.grad(lambda t: mine(t).sum()))(theta), b, atol=3e-4)
    # Of the second order, along a direction: reverse over reverse.
    second = jax.grad(lambda t: (g * jax.grad(lambda t: gj.log_partition(t, structure).sum())(t)).sum())(theta)
    np.testing.assert_allclose(second, structure.covariance(np.asarray(theta), np.asarray(g)), atol=1e-5)


@pytest.mark.parametrize("structure", [ga.Product(3, 3), ga.Chain(3, 2), ga.Subset(5, 2)], ids=repr)
def test_direct_is_that_of_the_library_on_the_same_noise(structure):
    theta, key = theta_of(structure, (6,), 4), jax.random.key(5)
    a = jnp.asarray(np.random.default_rng(6).standard_normal((structure.unary, 3)), jnp.float32)
    loss = lambda codes: ((codes @ a) ** 2).sum(-1) # noqa: E731
    noise = np.asarray(jax.random.gumbel(key, (6, structure.unary), jnp.float32))[None]
    made = ga.Estimator(structure, "direct", epsilon=0.5, joint="off", two_sided=False, rao_blackwell=False)
    sign = float(made.settings["epsilon"])
    expected = made.estimate(np.asarray(theta), lambda c, of: np.asarray(loss(c)), noise=noise)
    run = lambda t, a: gj.direct(t, lambda c: ((c @ a) ** 2).sum(-1), structure, key, epsilon=sign) # noqa: E731
    value = jax.jit(run)(theta, a)
    np.testing.assert_allclose(value, loss(jnp.asarray(expected.codes[0])), atol=1e-4)
    at_theta, at_a = jax.jit(jax.grad(lambda t, a: run(t, a).sum(), (0, 1)))(theta, a)
    np.testing.assert_allclose(at_theta, expected.gradient, atol=1e-5)
    np.testing.assert_allclose(at_a, jax.grad(lambda a: ((expected.codes[0] @ a) ** 2).sum())(a), atol=1e-4)


@pytest.mark.parametrize(
    "name, options",
    [("imle", dict(samples=3)), ("simple", {}), ("perturbed", dict(mean=True, samples=4)), ("gumbel-softmax", {})],
)
def test_layers_are_those_of_the_library(name, options):
    structure, key = ga.Binary(3), jax.random.key(1)
    theta = theta_of(structure, (4,), 7)
    made = ga.Estimator(structure, name)
    samples, mean = options.get("samples"), options.get("mean", False)
    count, width = samples or made.least_samples or 1, max(made.noise_width, 1)
    layer = jax.jit(lambda t: gj.argmax(t, structure, key, name, **options))
    codes = layer(theta)
    g = jnp.asarray(np.random.default_rng(8).standard_normal(codes.shape), jnp.float32)
    found = jax.grad(lambda t: (g * layer(t)).sum())(theta)
    if mean:
        drawn = np.moveaxis(np.asarray(jax.random.gumbel(key, (4, count, width), jnp.float32)), -2, 0)
        expected = made.estimate_linear(np.asarray(theta), np.asarray(g), noise=drawn).gradient
    else:
        many = theta if samples is None else jnp.broadcast_to(theta, (count, *theta.shape))
        drawn = np.moveaxis(np.asarray(jax.random.gumbel(key, (*many.shape[:-1], 1, width), jnp.float32)), -2, 0)
        noise = drawn if made.noise_width else None
        expected = made.estimate_linear(np.asarray(many), np.asarray(g), noise=noise).gradient
        expected = expected if samples is None else expected.sum(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    np.testing.assert_allclose(np.asarray(codes).reshape(-1, 3, 2).sum(-1), 1, atol=1e-5)


def test_it_learns():
    """A predictor of potentials, trained through the layer, under jit."""
    structure, key = ga.Subset(6, 2), jax.random.key(0)
    x = jax.random.normal(key, (64, 6))
    target = jnp.asarray(structure.encode(structure.solve(np.asarray(x)).assignments))

    @jax.jit
    def step(w, key):
        def loss(w):
            return ((gj.argmax(x @ w, structure, key, "imle", imle_lambda=2.0) - target) ** 2).sum(-1).mean()

        value, slope = jax.value_and_grad(loss)(w)
        return w - 0.2 * slope, value

    w, losses = jnp.zeros((6, 6)), []
    for k in jax.random.split(key, 60):
        w, value = step(w, k)
        losses.append(float(value))
    assert np.mean(losses[-10:]) < 0.5 * np.mean(losses[:5])


def test_structures_of_ones_own_and_other_types():
    from test_custom import Chosen

    theta = jnp.asarray([[0.0, 3.0, 1.0, 2.0, -1.0]])
    assert gj.solve(theta, Chosen(5, 2)).tolist() == [[0, 1, 0, 1, 0]]
    assert gj.log_partition(theta.astype(jnp.bfloat16), ga.Subset(5, 2)).dtype == jnp.bfloat16
    assert gj.solve(jnp.zeros((0, 5)), ga.Subset(5, 2)).shape == (0, 5)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: gj.solve(jnp.zeros(5), ga.Binary(3)), r"theta has shape \(5,\): expected \[..., 6\]"),
        (lambda: gj.argmax(jnp.zeros(6), ga.Binary(3), jax.random.key(0), "exact"), "exact follows all states"),
        (lambda: gj.argmax(jnp.zeros(6), ga.Binary(3), jax.random.key(0), "rloo"), "expected mean=True"),
        (lambda: gj.argmax(jnp.zeros(6), ga.Binary(3), jax.random.key(0), "imle", samples=0), "samples = 0"),
        (lambda: gj.log_partition(jnp.zeros(9), ga.Permutation(3)), "permanent"),
        (lambda: gj.solve(jnp.full(6, jnp.nan), ga.Binary(3)), "potential 0 is NaN"),
    ],
)
def test_mistakes_are_named(call, message):
    with pytest.raises(Exception, match=message):
        call()
