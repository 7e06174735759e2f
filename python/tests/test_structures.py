"""Structures against enumeration, and what they refuse."""

import copy
import os
import pickle
import subprocess
import sys
import threading

import numpy as np
import pytest
from common import SMALL, random_potentials

import gumbel_argmax as ga

ALL = pytest.mark.parametrize("structure", SMALL, ids=repr)
SUMS = pytest.mark.parametrize("structure", [s for s in SMALL if s.has_sums], ids=repr)
INSTANCES = 10_000  # of each structure


def scores_of_all(structure, theta):
    """Scores [B, |Z|] of all assignments, their statistics [|Z|, P], in double precision."""
    statistics = structure.statistics(structure.enumerate()).astype(np.float64)
    return theta.astype(np.float64) @ statistics.T, statistics


@ALL
def test_solutions_are_those_of_enumeration(structure):
    theta = random_potentials(structure, (INSTANCES,), np.random.default_rng(1))
    found = structure.solve(theta)
    scores, _ = scores_of_all(structure, theta)
    assert found.proved.all()
    np.testing.assert_allclose(found.values, scores.max(axis=1), atol=1e-5)
    np.testing.assert_allclose(structure.score(theta, found.assignments), scores.max(axis=1), atol=1e-5)
    states = {tuple(z) for z in structure.enumerate().tolist()}
    assert len(states) == structure.states and {tuple(z) for z in found.assignments.tolist()} <= states
    assert np.isclose(structure.ln_states, np.log(len(states)))


@ALL
def test_threads_and_batches_change_nothing(structure):
    theta = random_potentials(structure, (7, 11), np.random.default_rng(2))
    expected = structure.solve(theta, threads=1)
    assert expected.assignments.shape == (7, 11, structure.variables) and expected.values.shape == (7, 11)
    for threads in [0, 2, 3]:
        found = structure.solve(theta, threads=threads)
        assert all((a == b).all() for a, b in zip(found, expected))
    one = structure.solve(theta[3, 4])
    assert (one.assignments == expected.assignments[3, 4]).all() and one.values == expected.values[3, 4]
    for other in [theta.astype(np.float64), np.asfortranarray(theta), theta[:, ::-1][:, ::-1], theta.tolist()]:
        assert (structure.solve(other).assignments == expected.assignments).all()
    theta.flags.writeable = False
    assert (structure.solve(theta).assignments == expected.assignments).all()
    empty = structure.solve(theta[:0])
    assert empty.assignments.shape == (0, 11, structure.variables) and empty.values.shape == (0, 11)


@SUMS
def test_sums_are_those_of_enumeration(structure):
    theta = random_potentials(structure, (3, 40), np.random.default_rng(3))
    scores, statistics = scores_of_all(structure, theta)
    largest = scores.max(axis=-1, keepdims=True)
    log_partition = np.log(np.exp(scores - largest).sum(axis=-1)) + largest[..., 0]
    q = np.exp(scores - log_partition[..., None])
    np.testing.assert_allclose(structure.log_partition(theta), log_partition, atol=1e-5)
    np.testing.assert_allclose(structure.marginals(theta), q @ statistics, atol=2e-6)
    entropy = -(q * np.log(np.maximum(q, 1e-300))).sum(axis=-1)
    np.testing.assert_allclose(structure.entropy(theta), entropy, atol=1e-4)
    kl, gradient = structure.kl_to_uniform(theta)
    np.testing.assert_allclose(kl, structure.ln_states - entropy, atol=1e-4)
    direction = np.random.default_rng(4).standard_normal(theta.shape).astype(np.float32)

    def covariance(direction):
        along = direction.astype(np.float64) @ statistics.T
        centred = along - (q * along).sum(axis=-1, keepdims=True)
        return (q * centred) @ statistics

    np.testing.assert_allclose(structure.covariance(theta, direction), covariance(direction), atol=1e-5)
    np.testing.assert_allclose(gradient, covariance(theta), atol=1e-4)
    for threads in [1, 2]:
        assert (structure.marginals(theta, threads=threads) == structure.marginals(theta)).all()


@SUMS
def test_samples_have_the_marginals(structure):
    theta = random_potentials(structure, (2,), np.random.default_rng(5), 1.0)
    count = 20_000
    samples = structure.sample(theta, seed=6, samples=count)
    assert samples.shape == (count, 2, structure.variables)
    found, expected = structure.statistics(samples).mean(axis=0), structure.marginals(theta)
    error = np.sqrt(expected * (1 - expected) / count) + 1e-6
    assert (np.abs(found - expected) < 5 * error).all()
    assert (samples == structure.sample(theta, seed=6, samples=count, threads=1)).all()
    assert (samples != structure.sample(theta, seed=7, samples=count)).any()
    assert (samples != structure.sample(theta, seed=6, samples=count, index=1)).any()
    assert structure.sample(theta[0], seed=1).shape == (structure.variables,)
    # Examples do not share their numbers.
    same = structure.sample(np.stack([theta[0], theta[0]]), seed=8, samples=64)
    assert (same[:, 0] != same[:, 1]).any()


@ALL
def test_codes_statistics_and_neighbours_agree(structure):
    z = structure.enumerate()
    code, statistics = structure.encode(z), structure.statistics(z)
    assert (statistics[:, : structure.unary] == code).all() and set(np.unique(code)) <= {0.0, 1.0}
    near = structure.neighbours(z)
    distance = np.abs(near - code[:, None]).sum(axis=-1)
    assert (distance == (2 if structure.one_hot else 1)).all()
    assert all(len({tuple(c) for c in row.tolist()}) == near.shape[1] for row in near)
    if structure.one_hot:
        known = {tuple(c) for c in code.tolist()}
        assert {tuple(c) for c in near.reshape(-1, structure.unary).tolist()} <= known
    assert structure.encode(z.astype(np.int64).reshape(1, *z.shape)).shape == (1, *code.shape)


@ALL
def test_structures_are_values(structure):
    for other in [pickle.loads(pickle.dumps(structure)), copy.deepcopy(structure), eval(repr(structure), vars(ga))]:
        assert other == structure and hash(other) == hash(structure) and repr(other) == repr(structure)
    assert structure != ga.Categorical(99)


def test_forbidden_choices_are_not_taken():
    never = float("-inf")
    assert ga.Categorical(3).solve([never, 0.0, never]).assignments.tolist() == [1]
    with pytest.raises(ValueError, match="example 1 of the batch: no assignment is allowed"):
        ga.Categorical(2).solve([[0.0, 0.0], [never, never]])


def test_out_is_written_where_it_lies():
    chain, out = ga.Chain(3, 2), np.empty((5, 3), np.uint32)
    found = chain.solve(np.zeros((5, 14), np.float32), out=out)
    assert found.assignments is out
    for bad in [out[:4], out.astype(np.int32), np.empty((3, 5), np.uint32).T, out.tolist()]:
        with pytest.raises(ValueError, match="^out is"):
            chain.solve(np.zeros((5, 14), np.float32), out=bad)
    out.flags.writeable = False
    with pytest.raises(ValueError, match="^out is not writeable"):
        chain.solve(np.zeros((5, 14), np.float32), out=out)


def test_arrays_of_every_kind_are_taken_or_refused():
    subset, expected = ga.Subset(5, 2), [0, 0, 0, 1, 1]
    for kind in ["f2", ">f4", ">f8", "longdouble", "i1", "u8"]:
        assert subset.solve(np.arange(5).astype(kind)).assignments.tolist() == expected, kind
    assert subset.solve(np.array([False, False, False, True, True])).assignments.tolist() == expected
    raw = np.zeros(21, np.uint8)
    unaligned = raw[1:].view(np.float32)
    unaligned[:] = np.arange(5)
    assert not unaligned.flags.aligned and subset.solve(unaligned).assignments.tolist() == expected
    assert subset.solve(np.broadcast_to(np.arange(5.0), (3, 5))).assignments.tolist() == 3 * [expected]
    theta = np.zeros((3, 5), np.float32)
    for call, kind, message in [
        (lambda: subset.solve(theta, out=theta.view(np.uint32)), ValueError, "^out overlaps theta"),
        (lambda: subset.solve(np.ma.masked_array(theta, theta == 0)), TypeError, "^theta is a masked array"),
        (lambda: subset.solve(theta, limit="soon"), TypeError, "^limit = 'soon': expected a number of seconds"),
        (lambda: subset.solve(None), TypeError, "theta has dtype object"),
        (lambda: subset.solve(np.zeros(5, "M8[D]")), TypeError, "theta has dtype datetime64"),
        (lambda: subset.solve([[1, 2], [3]]), ValueError, "inhomogeneous"),
        (lambda: subset.sample(theta, 0, samples=2**31), (ValueError, MemoryError), "samples|Unable to allocate"),
        (lambda: subset.solve(theta, threads=1.5), TypeError, "threads = 1.5"),
    ]:
        with pytest.raises(kind, match=message):
            call()


def test_a_limit_ends_a_search_unproved():
    model = ga.Pairwise(60)
    theta = model.to_potentials(3 * ga.gumbel((2, model.potentials), seed=1) - 1.8)
    found = model.solve(theta, limit=0)
    assert not found.proved.any()
    with pytest.raises(ga.Unproved, match="example 0 of the batch: not proved within 0 seconds") as error:
        model.solve(theta, limit=0, must_prove=True)
    assert error.value.solution.assignments.shape == (2, 60) and isinstance(error.value, ValueError)
    assert ga.Chain(4, 2).solve(np.zeros(20), limit=0, must_prove=True).proved


@pytest.mark.parametrize(
    "call, kind, message",
    [
        (lambda: ga.Structure(), TypeError, "expected one of its subclasses"),
        (lambda: ga.Subset(3, -1), ValueError, "k = -1: expected a whole number from 0 to"),
        (lambda: ga.Subset(3, 4), ValueError, "chosen = 4: expected at most the number of elements, 3"),
        (lambda: ga.Subset(10**30, 4), ValueError, "expected a whole number from 0 to"),
        (lambda: ga.Subset(2**31, 4), ValueError, "elements = 2147483648: expected at most"),
        (lambda: ga.Pairwise(10**6), ValueError, "variables = 1000000: expected at most 1024"),
        (lambda: ga.Pairwise(0), ValueError, "a structure without potentials"),
        (lambda: ga.Pairwise(2.5), TypeError, "n = 2.5: expected a whole number"),
        (lambda: ga.Chain(2**31, 2**31), ValueError, "expected at most"),
        (lambda: ga.Chain(2, 0), ValueError, "values = 0: expected at least 1"),
        (lambda: ga.Tree(3, 2, [(0, 1), (1, 0)]), ValueError, "cycle|tree|forest"),
        (lambda: ga.Tree(3, 2, [(0, 1, 2)]), ValueError, "edge 0 is"),
        (lambda: ga.Tree(3, 2, [(0, -1)]), ValueError, "a node of an edge = -1"),
        (lambda: ga.SpanningTree(4, [(0, 1)]), ValueError, "a connected graph"),
        (lambda: ga.SpanningTree(2**31), ValueError, "nodes = "),
        (lambda: ga.Arborescence(3, 3), ValueError, "root = 3"),
        (lambda: ga.Permutation(2**31), ValueError, "size = 2147483648"),
        (lambda: ga.Categorical(3).solve([0.0, 1.0]), ValueError, r"theta has shape \(2,\): expected \[..., 3\]"),
        (lambda: ga.Categorical(3).solve(1.0), ValueError, r"theta has shape \(\)"),
        (lambda: ga.Categorical(3).solve(["a", "b", "c"]), TypeError, "expected real numbers"),
        (lambda: ga.Categorical(3).solve([1j, 0, 0]), TypeError, "theta has dtype complex128"),
        (lambda: ga.Categorical(3).solve([[0, 0, 0], [0, np.nan, 0]]), ValueError, "example 1 .* 1 is NaN"),
        (lambda: ga.Categorical(3).solve([0, np.inf, 0]), ValueError, r"\+inf"),
        (lambda: ga.Categorical(3).solve([0, -1e39, 0]), ValueError, "theta has the value -1e.39: expected at most"),
        (lambda: ga.Categorical(3).solve([0, 0, 0], threads=-1), ValueError, "threads = -1"),
        (lambda: ga.Categorical(3).solve([0, 0, 0], threads=10**6), ValueError, "threads = 1000000"),
        (lambda: ga.Pairwise(2).solve([0] * 5, limit=-1), ValueError, "limit = -1: expected a number of seconds"),
        (lambda: ga.Pairwise(2).solve([0] * 5, limit=np.nan), ValueError, "limit = NaN"),
        (lambda: ga.Supermodular(2).solve([0, 0, 0, 0, -1]), ValueError, r"the weight of the pair \(0, 1\) is -1"),
        (lambda: ga.Permutation(3).log_partition(np.zeros(9)), ValueError, "permanent"),
        (lambda: ga.Pairwise(21).entropy(np.zeros(252)), ValueError, "not tractable"),
        (lambda: ga.Binary(40).enumerate(), ValueError, "too many"),
        (lambda: ga.Categorical(3).encode([3]), ValueError, "example 0 of z is no assignment: variable 0 is 3"),
        (lambda: ga.Categorical(3).encode([-1]), ValueError, "z has values from -1 to -1"),
        (lambda: ga.Categorical(3).encode([1.0]), TypeError, "z has dtype float64"),
        (lambda: ga.Subset(3, 2).statistics([[1, 1, 0], [1, 0, 0]]), ValueError, "example 1 .* it has 1 ones"),
        (lambda: ga.Permutation(3).encode([0, 1, 0]), ValueError, "0 is there twice"),
        (lambda: ga.SpanningTree(4).encode([1, 1, 0, 1, 0, 0]), ValueError, "edge 3 closes a cycle"),
        (lambda: ga.Arborescence(3).encode([0, 2, 1]), ValueError, "node 1 does not come from the root 0"),
        (lambda: ga.Arborescence(3).encode([1, 0, 0]), ValueError, "the root 0 has the parent 1"),
        (lambda: ga.Categorical(3).sample([0, 0, 0], seed=-1), ValueError, "seed = -1"),
        (lambda: ga.Categorical(3).sample([0, 0, 0], seed=2**64), ValueError, "seed = 18446744073709551616"),
        (lambda: ga.Categorical(3).sample([0, 0, 0], 0, samples=0), ValueError, "samples = 0: expected at least 1"),
        (lambda: ga.Categorical(3).covariance([0, 0, 0], [[0, 0, 0]]), ValueError, "direction has batch axes"),
        (lambda: ga.gumbel((-1, 2)), ValueError, "shape = -1"),
        (lambda: ga.gumbel((2**31, 2**31)), ValueError, "expected at most 2"),
    ],
)
def test_what_is_wrong_is_named(call, kind, message):
    with pytest.raises(kind, match=message) as error:
        call()
    assert "\n" not in str(error.value)


def test_noise_is_a_function_of_seed_and_index():
    a = ga.gumbel((3, 5000), seed=3, index=9)
    assert (a == ga.gumbel(15000, seed=3, index=9).reshape(3, 5000)).all()
    assert (a != ga.gumbel((3, 5000), seed=3, index=10)).any() and (a != ga.gumbel((3, 5000), seed=4, index=9)).any()
    assert abs(a.mean() - 0.5772) < 0.05 and abs(a.var() - np.pi**2 / 6) < 0.1
    # The numbers of the library, which its programs draw at step 9 with the seed 3.
    known = [0.051414844, -0.27410656, 0.3295521, 1.3060406]
    np.testing.assert_allclose(ga.gumbel(4, seed=3, index=9), known, rtol=1e-6)
    assert ga.gumbel(0).shape == (0,) and ga.gumbel(()).shape == ()


def test_the_interpreter_runs_while_a_search_does():
    """A long search in another thread does not stop this one."""
    model, ticks = ga.Pairwise(200), 0
    theta = ga.gumbel(model.potentials, seed=1) - 0.5772
    done = threading.Event()

    def search():
        model.solve(theta, limit=0.5)
        done.set()

    thread = threading.Thread(target=search)
    thread.start()
    while not done.wait(0.005):
        ticks += 1
    thread.join()
    assert ticks > 10


def test_one_structure_serves_many_threads():
    chain = ga.Chain(6, 4)
    theta = random_potentials(chain, (200,), np.random.default_rng(8))
    expected, wrong = chain.solve(theta), []

    def work():
        for threads in [0, 1, 2] * 10:
            if (chain.solve(theta, threads=threads).assignments != expected.assignments).any():
                wrong.append(threads)

    threads = [threading.Thread(target=work) for _ in range(4)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert not wrong


FORKED = """
import os, sys, warnings
import numpy as np
import gumbel_argmax as ga
warnings.simplefilter("ignore")
chain = ga.Chain(8, 5)
theta = ga.gumbel((500, chain.potentials))
expected = chain.solve(theta, threads=2).assignments
child = os.fork()
if child == 0:
    os._exit(int((chain.solve(theta, threads=2).assignments != expected).any()))
_, status = os.waitpid(child, 0)
sys.exit(int(status != 0 or (chain.solve(theta, threads=2).assignments != expected).any()))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_has_threads_of_its_own():
    subprocess.run([sys.executable, "-c", FORKED], check=True, timeout=60)


def resident():
    """Bytes in memory."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc here")
def test_memory_stays_flat():
    chain, losses = ga.Chain(5, 3), lambda codes, of: codes[:, 0]
    theta = ga.gumbel((40, chain.potentials))
    estimator = ga.Estimator(chain)

    def raises(codes, of):
        raise KeyError(codes)

    def calls(count):
        for _ in range(count):
            chain.solve(theta)
            chain.marginals(theta)
            estimator.estimate(theta, losses)
            with pytest.raises(ValueError):
                chain.solve(theta * np.nan)
            with pytest.raises(KeyError):
                estimator.estimate(theta, raises)

    calls(300)
    before = resident()
    calls(1000)
    assert resident() - before < 4 << 20
