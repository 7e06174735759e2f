"""Estimators over NumPy arrays: against enumeration, against themselves, and what they refuse."""

import copy
import pickle
import threading

import numpy as np
import pytest
from common import SMALL, random_potentials

import gumbel_argmax as ga

NAMES = list(ga.estimators())
# No bias, of independent variables at least; estimators of another objective or with a relaxation are not here.
UNBIASED = ["reinforce", "rloo", "local-expectation", "arm", "disarm", "rebar", "relax", "direct-rebar", "arsm"]
DRAWS = 20_000


def quadratic(structure, seed=0):
    """A loss of codes with interactions, the same for all examples, and its slopes."""
    generator = np.random.default_rng(seed)
    a, b = generator.standard_normal((structure.unary, structure.unary)) / 2, generator.standard_normal(structure.unary)

    def losses(codes, of):
        codes = codes.astype(np.float64)
        return ((codes @ a) ** 2).sum(axis=-1) + codes @ b

    def slopes(codes, of):
        wide = codes.astype(np.float64)
        return losses(codes, of), 2 * (wide @ a) @ a.T + b

    return losses, slopes


def exact(structure, theta, losses):
    """The gradient of E[loss] at potentials [P], by enumeration."""
    z = structure.enumerate()
    statistics = structure.statistics(z).astype(np.float64)
    values = losses(structure.encode(z), np.zeros(len(z), np.uint32))
    scores = statistics @ theta
    q = np.exp(scores - scores.max())
    q /= q.sum()
    return statistics.T @ (q * (values - q @ values))


@pytest.mark.parametrize("structure", SMALL, ids=repr)
def test_the_exact_gradient_is_that_of_enumeration(structure):
    losses, _ = quadratic(structure)
    theta = random_potentials(structure, (3,), np.random.default_rng(1), 1.0)
    found = ga.Estimator(structure, "exact").estimate(theta, losses, chunk=7)
    for h, gradient in zip(theta, found.gradient):
        np.testing.assert_allclose(gradient, exact(structure, h, losses), atol=2e-5)
    assert found.codes is None and found.weights.shape == (3, structure.states)
    np.testing.assert_allclose(found.weights.sum(axis=-1), 1, atol=1e-5)


@pytest.mark.parametrize("structure", [ga.Binary(3), ga.Product(2, 3), ga.Chain(3, 2)], ids=repr)
@pytest.mark.parametrize("name", UNBIASED)
def test_estimates_average_to_the_exact_gradient(name, structure):
    losses, slopes = quadratic(structure, 2)
    theta = random_potentials(structure, (), np.random.default_rng(3), 1.0)
    call = lambda: ga.Estimator(structure, name).estimate(np.tile(theta, (DRAWS, 1)), losses, slopes, seed=4) # noqa
    binary, chain = isinstance(structure, ga.Binary), isinstance(structure, ga.Chain)
    if (name in ["arm", "disarm"] and not binary) or (chain and name not in ["reinforce", "rloo"]):
        with pytest.raises(ValueError, match="independent"):
            call()
        return
    found = call()
    mean, error = found.gradient.mean(axis=0), found.gradient.std(axis=0) / np.sqrt(DRAWS) + 1e-6
    assert (np.abs(mean - exact(structure, theta, losses)) < 5 * error).all()
    total = found.weights.sum(axis=0)
    np.testing.assert_allclose(total, 1, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_what_asks_python_and_what_does_not_agree(name):
    """Of linear losses, on the same noise: every estimator, in chunks of any size, and all threads."""
    tried = 0
    for structure in [ga.Categorical(4), ga.Binary(3), ga.Pairwise(4), ga.Subset(5, 2), ga.SpanningTree(4)]:
        theta = random_potentials(structure, (2, 3), np.random.default_rng(5), 1.0)
        g = np.random.default_rng(6).standard_normal((6, structure.unary)).astype(np.float32)

        def losses(codes, of):
            return (codes.astype(np.float64) * g[of]).sum(axis=-1)

        def slopes(codes, of):
            return losses(codes, of), g[of]

        try:
            expected = ga.Estimator(structure, name).estimate_linear(theta, g.reshape(2, 3, -1), seed=7)
        except ValueError:
            continue
        tried += 1
        for chunk, threads in [(4096, 0), (1, 1), (5, 2)]:
            made = ga.Estimator(structure, name)
            found = made.estimate(theta, losses, slopes, seed=7, chunk=chunk, threads=threads)
            np.testing.assert_allclose(found.gradient, expected.gradient, atol=1e-5)
            np.testing.assert_allclose(found.weights, expected.weights, atol=1e-6)
            assert found.measures.keys() == expected.measures.keys()
            if expected.codes is not None:
                np.testing.assert_allclose(found.codes, expected.codes, atol=1e-6)
        noise = ga.gumbel((made.least_samples, 2, 3, made.noise_width), seed=7) if made.noise_width else None
        found = made.estimate(theta, losses, slopes, noise=noise)
        np.testing.assert_allclose(found.gradient, expected.gradient, atol=1e-5)
    assert tried > 0


def test_direct_is_the_difference_of_two_arg_maxima():
    """The definition, by hand: (s(z at theta + noise - epsilon losses) - s(z*)) / -epsilon, of losses linear in z."""
    chain, epsilon = ga.Chain(4, 3), 0.7
    theta = random_potentials(chain, (50,), np.random.default_rng(8), 1.0)
    noise = ga.gumbel((1, 50, chain.unary), seed=9)
    g = np.random.default_rng(10).standard_normal((50, chain.unary)).astype(np.float32)
    settings = dict(epsilon=epsilon, joint="off", two_sided=False, rao_blackwell=False)
    found = ga.Estimator(chain, "direct", **settings).estimate(
        theta, lambda codes, of: (codes * g[of]).sum(axis=-1), noise=noise
    )
    perturbed = theta.copy()
    perturbed[:, : chain.unary] += noise[0]
    star = chain.solve(perturbed).assignments
    np.testing.assert_array_equal(found.codes[0], chain.encode(star))
    moved = perturbed.copy()
    sign = float(ga.Estimator(chain, "direct", **settings).settings["epsilon"])
    moved[:, : chain.unary] -= sign * g
    gradient = (chain.statistics(star) - chain.statistics(chain.solve(moved).assignments)) / epsilon
    np.testing.assert_allclose(found.gradient, gradient, atol=1e-5)


def test_numbers_are_those_of_a_program_in_rust():
    """Printed by ``estimate`` of the library for the noise of (seed 5, index 1), two samples and the same losses."""
    theta = np.array([(i * 7 % 11 - 5) / 4 for i in range(18)], np.float32).reshape(2, 9)

    def terms(codes, of):
        return codes[:, 0] + 2 * codes[:, 2] - codes[:, 5] + of

    def slopes(codes, of):
        slope = np.zeros_like(codes)
        slope[:, [0, 2, 5]] = 2 * terms(codes, of)[:, None] * np.array([1, 2, -1])
        return terms(codes, of) ** 2, slope

    for structure, name, expected in [
        (ga.Pairwise(3), "imle", [0.0, 0.5, -0.5, 0.0, 0.0, 0.0, 0.0, -0.5, -0.5, 0.0]),
        (
            ga.Product(3, 3),
            "straight-through",
            [0.0, 0.35822955, -0.48037446, 0.12214483, 0.17477797, 0.028499736, -0.2032777, 0.0, 0.0, 0.0],
        ),
    ]:
        made = ga.Estimator(structure, name)
        found = made.estimate(theta, lambda c, of: terms(c, of) ** 2, slopes, samples=2, seed=5, index=1)
        # The oracle of the program differences its losses: exact for squares, but for rounding.
        np.testing.assert_allclose(found.gradient.ravel(), 8 * [0.0] + expected, atol=3e-5)


def test_the_kl_may_be_within():
    """Of the expectation over one variable: the gradients add up."""
    structure = ga.Categorical(4)
    losses, _ = quadratic(structure)
    theta = random_potentials(structure, (5,), np.random.default_rng(1), 1.0)
    made = ga.Estimator(structure, "direct", epsilon=1e-3, epsilon_min=1e-3)
    assert made.kl == "either" and ga.Estimator(structure, "marginal").kl == "within"
    apart = made.estimate(theta, losses, seed=1, step=0).gradient + structure.kl_to_uniform(theta)[1]
    within = made.estimate(theta, losses, seed=1, step=0, kl_weight=1).gradient
    np.testing.assert_allclose(within, apart, atol=5e-3)


def test_what_is_learned_is_kept_and_put_back():
    structure = ga.Binary(3)
    losses, slopes = quadratic(structure)
    theta = random_potentials(structure, (20,), np.random.default_rng(1), 1.0)
    made = ga.Estimator(structure, "reinforce", baseline="average")
    begin = made.state()
    made.estimate(theta, losses, seed=1)
    assert (made.state() == begin).all() # it has looked only
    for step in range(3):
        first = made.estimate(theta, losses, seed=1, index=step, step=step)
    state = made.state()
    assert (state != begin).any()
    other = ga.Estimator(structure, "reinforce", baseline="average")
    other.restore(state)
    a, b = (it.estimate(theta, losses, seed=1, index=9) for it in (made, other))
    assert (a.gradient == b.gradient).all() and (first.gradient != a.gradient).any()
    for copied in [pickle.loads(pickle.dumps(made)), copy.deepcopy(made)]:
        assert (copied.estimate(theta, losses, seed=1, index=9).gradient == a.gradient).all()
        assert copied.settings == made.settings
    made.estimate(theta, losses, step=9, learn=False)
    assert (made.state() == state).all()
    with pytest.raises(ValueError, match="expected 2"):
        other.restore(np.zeros(3))


def test_a_loss_that_raises_comes_through_and_the_estimator_goes_on():
    structure = ga.Chain(3, 3)
    losses, _ = quadratic(structure)
    theta = random_potentials(structure, (30,), np.random.default_rng(1))
    made = ga.Estimator(structure, "direct", epsilon=1.0)
    expected = made.estimate(theta, losses, seed=3)

    class Stop(BaseException):
        pass

    for at in range(3):
        asked = 0

        def stops(codes, of):
            nonlocal asked
            asked += 1
            if asked > at:
                raise Stop(f"question {at}")
            return losses(codes, of)

        with pytest.raises(Stop, match=f"question {at}"):
            made.estimate(theta, stops, seed=3, chunk=50)
        found = made.estimate(theta, losses, seed=3)
        assert (found.gradient == expected.gradient).all()


def test_a_loss_may_solve_and_estimate_itself():
    """With as many threads as there are, and with one: nobody waits for who waits for him."""
    structure = ga.Chain(4, 3)
    losses, _ = quadratic(structure)
    theta = random_potentials(structure, (200,), np.random.default_rng(1))

    for threads in [1, 2, 0]:

        def inner(codes, of):
            structure.solve(theta, threads=threads)
            ga.gumbel(10_000)
            return losses(codes, of)

        def outer(codes, of):
            ga.Estimator(structure, "direct").estimate(theta[:50], inner, threads=threads)
            return losses(codes, of)

        found = ga.Estimator(structure, "direct").estimate(theta, outer, threads=threads, seed=1)
        assert (found.gradient == ga.Estimator(structure, "direct").estimate(theta, losses, seed=1).gradient).all()


def test_estimators_of_several_threads_of_python():
    structure = ga.Chain(4, 3)
    losses, _ = quadratic(structure)
    theta = random_potentials(structure, (100,), np.random.default_rng(1))
    expected, wrong = ga.Estimator(structure, "direct").estimate(theta, losses, seed=2).gradient, []

    def work():
        for threads in [0, 1] * 5:
            found = ga.Estimator(structure, "direct").estimate(theta, losses, seed=2, threads=threads)
            if (found.gradient != expected).any():
                wrong.append(threads)

    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong


def test_mistakes_are_named():
    three = ga.Categorical(3)
    made = ga.Estimator(three, "direct")

    def zero(codes, of):
        return np.zeros(len(of))

    def inside(codes, of):
        return made.estimate([0, 0, 0], zero).gradient[:1]

    for call, kind, message in [
        (lambda: ga.Estimator(three, "dirct"), ValueError, r"estimator = \"dirct\": .*did you mean direct\?"),
        (lambda: ga.Estimator(three, "direct", epsilom=1), ValueError, r"epsilom is no setting of direct: .*epsilon\?"),
        (lambda: ga.Estimator(three, "direct", epsilon=-1), ValueError, "epsilon = -1: expected a number greater than"),
        (lambda: ga.Estimator(three, "direct", two_sided="maybe"), ValueError, "two-sided = maybe: expected true or"),
        (lambda: ga.Estimator(three, "exact", epsilon=1), ValueError, "epsilon is no setting of exact: expected none"),
        (lambda: ga.Estimator("chain", "direct"), TypeError, "structure is str"),
        (lambda: ga.Estimator(ga.Permutation(3), "rloo"), ValueError, "permanent"),
        (lambda: made.estimate([0, 0], zero), ValueError, r"theta has shape \(2,\)"),
        (lambda: made.estimate([0, 0, np.nan], zero), ValueError, "potential 2 is NaN"),
        (lambda: made.estimate([0, 0, 0], zero, noise=[0, 0, 0]), ValueError, r"direct expected \[samples, 3\]"),
        (lambda: made.estimate([0, 0, 0], zero, noise=np.zeros((2, 3)), samples=1), ValueError, r"\[1, 3\]"),
        (lambda: made.estimate([0, 0, 0], zero, samples=0), ValueError, "samples = 0"),
        (lambda: ga.Estimator(three, "rloo").estimate([0, 0, 0], zero, samples=1), ValueError, "at least 2"),
        (lambda: made.estimate([0, 0, 0], lambda c, of: 1.0), ValueError, r"losses has shape \(\): expected \[\d+\]"),
        (lambda: made.estimate([0, 0, 0], lambda c, of: None), TypeError, "losses has dtype object"),
        (lambda: made.estimate([0, 0, 0], lambda c, of: np.full(len(of), np.nan)), ValueError, "NaN"),
        (lambda: ga.Estimator(three, "imle").estimate([0, 0, 0], zero), ValueError, "asks for slopes"),
        (lambda: made.estimate([0, 0, 0], zero, kl_weight=1), ValueError, "kl_weight = 1 without a step"),
        (lambda: made.estimate([0, 0, 0], inside), RuntimeError, "the estimator is in use"),
        (lambda: made.estimate_linear([0, 0, 0], [0, 0]), ValueError, r"slopes has shape \(2,\): expected \(3,\)"),
    ]:
        with pytest.raises(kind, match=message) as error:
            call()
        assert "\n" not in str(error.value)
    assert (made.estimate([0, 0, 0], zero).gradient == 0).all()


def test_batches_without_an_example_are_empty():
    for name in NAMES:
        structure = ga.Binary(2)
        made = ga.Estimator(structure, name)
        found = made.estimate(
            np.zeros((0, 4)), lambda codes, of: np.zeros(len(of)), lambda codes, of: (np.zeros(len(of)), 0 * codes)
        )
        assert found.gradient.shape == (0, 4), name
