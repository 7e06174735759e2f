"""Structures written in Python, and what `testing.check` says of good and of broken ones."""

import copy
import gc
import pickle
import weakref

import numpy as np
import pytest
from common import SMALL, random_potentials

import gumbel_argmax as ga
from gumbel_argmax.testing import check


class Largest(ga.Custom):
    """One of K, as `Categorical` has it: one-hot."""

    def __init__(self, k):
        super().__init__(potentials=k, variables=1, values=k)
        self.k = k

    def argmax_rows(self, theta):
        return theta.argmax(axis=-1)[:, None]

    def statistics_rows(self, z):
        return np.eye(self.k)[z[:, 0]]

    def states_rows(self):
        return np.arange(self.k)[:, None]


class Chosen(ga.Custom):
    """k of n by sorting, as `Subset` has it: indicators."""

    listed = True

    def __init__(self, n, k):
        super().__init__(potentials=n, variables=n)
        self.n, self.k = n, k

    def argmax_rows(self, theta):
        rank = (-theta).argsort(axis=-1, kind="stable").argsort(axis=-1, kind="stable")
        return (rank < self.k).astype(int)

    def statistics_rows(self, z):
        return z

    def states_rows(self):
        return ga.Subset(self.n, self.k).enumerate() if self.listed else None


class Grid(ga.Custom):
    """Ways down and right through a grid, by dynamic programming: z are the cells on the way."""

    def __init__(self, rows, columns):
        super().__init__(potentials=rows * columns, variables=rows * columns)
        self.shape = (rows, columns)

    def argmax_rows(self, theta):
        (rows, columns), b = self.shape, len(theta)
        h = theta.astype(np.float64).reshape(b, rows, columns)
        best = np.full((b, rows + 1, columns + 1), -np.inf)
        for i in range(rows):
            for j in range(columns):
                before = 0 if i == j == 0 else np.maximum(best[:, i, j + 1], best[:, i + 1, j])
                best[:, i + 1, j + 1] = before + h[:, i, j]
        z = np.zeros((b, rows, columns), np.uint32)
        for e in range(b):
            i, j = rows - 1, columns - 1
            while True:
                z[e, i, j] = 1
                if i == j == 0:
                    break
                i, j = (i - 1, j) if best[e, i, j + 1] >= best[e, i + 1, j] and i > 0 or j == 0 else (i, j - 1)
        return z.reshape(b, -1)

    def statistics_rows(self, z):
        return z


CUSTOM = [Largest(4), Chosen(5, 2), Grid(3, 4)]


@pytest.mark.parametrize("structure", [*SMALL, *CUSTOM], ids=lambda s: s.key.split("#")[0])
def test_structures_pass(structure):
    check(structure, instances=40)


LARGE = [ga.Pairwise(30), ga.Supermodular(40), ga.Chain(40, 5), ga.Permutation(20)]


@pytest.mark.parametrize("structure", LARGE, ids=repr)
def test_large_ones_pass_without_enumeration(structure):
    check(structure, instances=20)


PAIRS = [(ga.Categorical(4), Largest(4)), (ga.Subset(5, 2), Chosen(5, 2))]


@pytest.mark.parametrize("library, mine", PAIRS, ids=lambda s: s.key.split("#")[0])
def test_what_is_written_in_python_does_what_the_library_does(library, mine):
    theta = random_potentials(library, (3, 5), np.random.default_rng(1))
    a, b = library.solve(theta), mine.solve(theta)
    assert (a.assignments == b.assignments).all()
    np.testing.assert_allclose(a.values, b.values, atol=1e-6)
    z = a.assignments
    for name in ["encode", "statistics", "neighbours"]:
        assert (getattr(library, name)(z) == getattr(mine, name)(z)).all(), name
    np.testing.assert_allclose(library.score(theta, z), mine.score(theta, z), atol=1e-6)
    out = np.empty_like(z)
    assert mine.solve(theta, out=out).assignments is out and (out == z).all()
    assert (mine.states, mine.unary, mine.one_hot) == (library.states, library.unary, library.one_hot)
    assert sorted(mine.enumerate().tolist()) == sorted(library.enumerate().tolist())
    assert (mine.to_potentials(theta) == theta).all() and not mine.has_sums


# What asks for no sums.
NAMES = ["direct", "imle", "adaptive-imle", "perturbed", "exact"]


@pytest.mark.parametrize("library, mine", PAIRS, ids=lambda s: s.key.split("#")[0])
@pytest.mark.parametrize("name", NAMES)
def test_estimators_are_those_of_the_library(name, library, mine):
    theta = random_potentials(library, (6,), np.random.default_rng(2), 1.0)
    a = np.random.default_rng(3).standard_normal((library.unary, 3)).astype(np.float32)

    def losses(codes, of):
        return ((codes @ a) ** 2).sum(axis=-1)

    def slopes(codes, of):
        return losses(codes, of), 2 * (codes @ a) @ a.T

    settings = dict(epsilon=0.5, joint="off", two_sided=False, rao_blackwell=False) if name == "direct" else {}
    found = [ga.Estimator(s, name, **settings).estimate(theta, losses, slopes, seed=1) for s in (library, mine)]
    np.testing.assert_allclose(found[0].gradient, found[1].gradient, atol=1e-5)
    g = np.random.default_rng(4).standard_normal((6, library.unary))
    linear = [ga.Estimator(s, name, **settings).estimate_linear(theta, g, seed=1) for s in (library, mine)]
    np.testing.assert_allclose(linear[0].gradient, linear[1].gradient, atol=1e-5)


def test_every_estimator_works_or_says_that_sums_are_missing():
    for name in ga.estimators():
        for structure in CUSTOM:
            zero = lambda codes, of: np.zeros(len(of), np.float32) # noqa: E731
            try:
                made = ga.Estimator(structure, name)
                made.estimate(np.zeros((2, structure.potentials)), zero, lambda c, of: (zero(c, of), 0 * c), seed=1)
            except ValueError as error:
                assert "\n" not in str(error)
                continue
    for name in ["direct", "imle", "perturbed"]:
        ga.Estimator(CUSTOM[2], name)


def test_layers_of_torch_take_them():
    torch = pytest.importorskip("torch")
    import gumbel_argmax.torch as gt

    grid = Grid(4, 4)
    theta = torch.zeros(100, 16, requires_grad=True)
    torch.manual_seed(0)
    cost = torch.ones(16)
    cost[1] = 5.0
    gt.direct(theta, lambda codes, of: codes @ cost, grid, epsilon=1.0).loss.sum().backward()
    assert theta.grad.sum(0)[1] > 0 > theta.grad.sum(0)[4]
    layer = gt.Argmax(grid, "imle", samples=4)
    theta.grad = None
    (layer(theta) @ cost).sum().backward()
    assert theta.grad.sum(0)[1] > 0 > theta.grad.sum(0)[4]
    assert (gt.potentials(theta, grid) == theta).all()
    with pytest.raises(ValueError, match="only its arg max"):
        gt.log_partition(theta, grid)


def test_exceptions_come_through():
    class Stop(BaseException):
        pass

    def stops(*_):
        raise Stop("here")

    class Late(Chosen):
        listed, calls = False, 0

        def argmax_rows(self, theta):
            self.calls += 1
            return super().argmax_rows(theta) if self.calls < 5 else stops()

    zero = lambda codes, of: np.zeros(len(of)) # noqa: E731
    late = Late(5, 2)
    made = ga.Estimator(late, "direct", epsilon=1.0)
    zeros = np.zeros((20, 5))
    for call in [lambda: made.estimate(zeros, zero), lambda: made.estimate_linear(zeros, zeros)]:
        late.calls = 0
        with pytest.raises(Stop, match="here"):
            call()
    late.calls = -1000
    assert made.estimate(np.zeros((20, 5)), zero).gradient.shape == (20, 5)
    broken = Chosen(5, 2)
    broken.statistics_rows = stops
    with pytest.raises(Stop):
        ga.Estimator(broken, "direct", epsilon=1.0).estimate(np.zeros(5), zero)


def test_they_are_freed_copied_and_stored():
    made = Grid(2, 2)
    estimator = ga.Estimator(made, "imle")
    estimator.estimate_linear(np.zeros((3, 4)), np.zeros((3, 4)))
    seen = weakref.ref(made)
    del made, estimator
    gc.collect()
    assert seen() is None
    for other in [copy.deepcopy(CUSTOM[1]), pickle.loads(pickle.dumps(CUSTOM[1]))]:
        assert other != CUSTOM[1] and (other.enumerate() == CUSTOM[1].enumerate()).all()
        check(other, instances=5)


class Empty(ga.Custom):
    def __init__(self):
        pass


class Only(ga.Custom):
    argmax_rows = None


@pytest.mark.parametrize(
    "call, kind, message",
    [
        (lambda: ga.Custom(0, 1).potentials, ValueError, "unary = 0: expected at least 1"),
        (lambda: ga.Custom(3, 1, unary=4).potentials, ValueError, "unary = 4: expected at most .*, 3"),
        (lambda: ga.Custom(6, 2, values=2).potentials, ValueError, "values = 2: expected unary / variables, 6 / 2"),
        (lambda: ga.Custom(-1, 1), ValueError, "potentials = -1"),
        (lambda: ga.Custom(3, 1).solve([0, 0, 0]), NotImplementedError, "Custom has no argmax_rows"),
        (lambda: ga.Custom(3, 1).encode([0]), NotImplementedError, "Custom has no statistics_rows"),
        (lambda: Empty().potentials, TypeError, "Empty has no sizes: expected super"),
        (lambda: Largest(3).solve([0, np.nan, 0]), ValueError, "example 0 of the batch: potential 1 is NaN"),
        (lambda: Largest(3).solve([0, np.inf, 0]), ValueError, r"potential 1 is \+inf"),
        (lambda: Largest(3).solve([-np.inf] * 3), ValueError, "example 0 of the batch: no assignment is allowed"),
        (lambda: Largest(3).solve([0, 0]), ValueError, r"theta has shape \(2,\): expected \[..., 3\]"),
        (lambda: Grid(2, 2).enumerate(), ValueError, "Grid lists no states: expected a method states_rows"),
        (lambda: ga.Estimator(Grid(2, 2), "exact"), ValueError, "uncounted states are too many to enumerate"),
        (lambda: ga.Estimator(Grid(2, 2), "rloo"), ValueError, "sums over a structure written in Python are not"),
    ],
)
def test_mistakes_are_named(call, kind, message):
    with pytest.raises(kind, match=message):
        call()


def mutant(**methods):
    """`Chosen` with other methods."""
    return type("Mutant", (Chosen,), methods)(5, 2)


def second(self, theta):
    """The worst instead of the best."""
    return Chosen.argmax_rows(self, -theta)


def forgets(self, theta):
    """Other answers every time."""
    self.turn = not getattr(self, "turn", False)
    return Chosen.argmax_rows(self, theta if self.turn else theta[:, ::-1])[:, :: 1 if self.turn else -1]


def writes(self, theta):
    theta.flags.writeable = True
    theta += 1
    return Chosen.argmax_rows(self, theta)


BROKEN = [
    (dict(argmax_rows=second), "has"),
    (dict(argmax_rows=second, states_rows=lambda self: None), "has"),
    (dict(argmax_rows=forgets), "expected the same answer twice"),
    (dict(argmax_rows=lambda self, theta: np.ones((len(theta), 5), int)), "is none of the listed states"),
    (dict(argmax_rows=lambda self, theta: np.ones((len(theta), 4), int)), r"shape \(.*, 4\): expected \(.*, 5\)"),
    (dict(argmax_rows=lambda self, theta: theta), "dtype float32: expected whole numbers"),
    (dict(argmax_rows=lambda self, theta: -Chosen.argmax_rows(self, theta)), "values from -1 to 0"),
    (dict(statistics_rows=lambda self, z: 2 * z), "expected zeros and ones"),
    (dict(statistics_rows=lambda self, z: z[:, :4]), r"shape \(\d+, 4\): expected"),
    (dict(statistics_rows=lambda self, z: np.ones(z.shape)), "two states have the same statistics"),
    (dict(states_rows=lambda self: np.repeat(ga.Subset(5, 2).enumerate(), 2, axis=0)), "is listed 2 times"),
    (dict(states_rows=lambda self: ga.Subset(5, 2).enumerate()[1:]), "is none of the listed states"),
    (dict(states_rows=lambda self: np.zeros((0, 5), int)), "expected states = 0, at least one"),
]


@pytest.mark.parametrize("methods, message", BROKEN)
def test_broken_ones_are_found(methods, message):
    with pytest.raises((AssertionError, ValueError, TypeError), match=message) as error:
        check(mutant(**methods), instances=40)
    assert "\n" not in str(error.value)


def test_writing_into_potentials_is_found():
    with pytest.raises(AssertionError, match="solve has changed its potentials"):
        check(mutant(argmax_rows=writes), instances=3)
    with pytest.raises(ValueError, match="read-only"):
        check(mutant(argmax_rows=lambda self, theta: theta.fill(0)), instances=3)


def test_one_hot_codes_must_be_that():
    class Wrong(Largest):
        def statistics_rows(self, z):
            return np.eye(self.k)[(z[:, 0] + 1) % self.k]

        def argmax_rows(self, theta):
            return (theta.argmax(axis=-1)[:, None] - 1) % self.k

    with pytest.raises(AssertionError, match="expected ones at the values"):
        check(Wrong(4), instances=5)
