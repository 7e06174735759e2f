"""Checks of a structure, one's own above all: does it keep what estimators and solvers rely on?"""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ._structures import Structure

__all__ = ["check"]


def check(structure: Structure, instances: int = 100, seed: int = 0) -> None:
    """Checks a structure on random potentials, some with ties and some with forbidden choices.

    What is checked: sizes; that answers are assignments, have the score that is said, are the same alone, in a batch
    and again, and leave the potentials as they were; that nothing better is known: no other answer, and where the
    states are listed, none of them; that a code is the first U statistics and zeros and ones, in rows where it is
    one-hot; that states are listed once; that NaN, +inf and wrong shapes are a ``ValueError``; sums and samples, where
    there are any, against the states. It is meant for a test, on small instances of each kind.

    Args:
        structure: what is to be checked.
        instances: random potentials of each kind.
        seed: of the random potentials.

    Raises:
        AssertionError: in one line, what was expected and what was found, for which potentials.

    >>> from gumbel_argmax import Chain
    >>> check(Chain(3, 2))
    """
    _Check(structure, instances, np.random.default_rng(seed)).run()


def _listed(array: NDArray[Any]) -> str:
    """An array in one line."""
    return " ".join(np.array2string(array, precision=4, threshold=40, max_line_width=10**9).split())


class _Check:
    def __init__(self, structure: Structure, instances: int, generator: np.random.Generator):
        self.it, self.instances, self.generator = structure, instances, generator
        self.states: NDArray[np.uint32] | None = None
        self.statistics: NDArray[np.float64] | None = None

    def fail(self, what: str) -> NoReturn:
        raise AssertionError(f"{self.it!r}: {what}")

    def run(self) -> None:
        self.sizes()
        self.list_states()
        kinds = {
            "normal": self.generator.standard_normal((self.instances, self.it.potentials)),
            "tied": self.generator.integers(-1, 2, (self.instances, self.it.potentials)),
            "large": 1e4 * self.generator.standard_normal((self.instances, self.it.potentials)),
            "zero": np.zeros((1, self.it.potentials)),
        }
        answers = [self.potentials(name, self.it.to_potentials(raw)) for name, raw in kinds.items()]
        self.codes(np.concatenate(answers if self.states is None else [*answers, self.states]))
        self.forbidden()
        self.refusals()
        if self.it.has_sums and self.statistics is not None:
            self.sums(self.it.to_potentials(kinds["normal"]))

    def sizes(self) -> None:
        p, u, n = self.it.potentials, self.it.unary, self.it.variables
        if not (1 <= u <= p and n >= 1):
            self.fail(f"potentials = {p}, unary = {u}, variables = {n}: expected 1 <= unary <= potentials, a variable")

    def list_states(self) -> None:
        """All states, where they can be listed."""
        count = self.it.states
        if count is None or count > 32768:
            return
        states = self.it.enumerate()
        if len(states) != count or count == 0:
            self.fail(f"enumerate() has {len(states)} rows: expected states = {count}, at least one")
        _, first, counts = np.unique(states, axis=0, return_index=True, return_counts=True)
        if len(counts) < count:
            self.fail(f"the state {_listed(states[first[counts.argmax()]])} is listed {counts.max()} times")
        if not np.isclose(self.it.ln_states, np.log(count)):
            self.fail(f"ln_states = {self.it.ln_states}: expected {np.log(count)}")
        self.states, self.statistics = states, self.it.statistics(states).astype(np.float64)
        if len(np.unique(self.statistics, axis=0)) < count:
            self.fail("two states have the same statistics: no potentials tell them apart")

    def potentials(self, name: str, theta: NDArray[np.float32]) -> NDArray[np.uint32]:
        """The answers for rows of potentials."""
        kept = theta.copy()
        theta.flags.writeable = False
        found = self.it.solve(theta)
        if not (theta == kept).all():
            self.fail("solve has changed its potentials: expected them as they were")
        z, values = found.assignments, found.values

        def at(b: Any) -> str:
            return f"for the {name} potentials {_listed(theta[b])}"

        if not found.proved.all():
            self.fail(f"not proved {at(int(found.proved.argmin()))}: expected exact answers")
        again = self.it.solve(theta)
        if not (again.assignments == z).all():
            b = int((again.assignments != z).any(axis=1).argmax())
            self.fail(f"{_listed(z[b])} and {_listed(again.assignments[b])} {at(b)}: expected the same answer twice")
        statistics = self.it.statistics(z).astype(np.float64)
        scores = (statistics * theta).sum(axis=1)
        slack = 1e-5 * (1 + (np.abs(statistics) * np.abs(theta)).sum(axis=1))
        for b in np.flatnonzero(np.abs(scores - values) > slack).tolist():
            self.fail(f"solve says {values[b]} {at(b)}: expected {scores[b]}, the score of {_listed(z[b])}")
        for b in np.flatnonzero(np.abs(self.it.score(theta, z) - scores) > slack).tolist():
            self.fail(f"score differs from <theta, statistics> = {scores[b]} of {_listed(z[b])} {at(b)}")
        for b in range(min(len(z), 10)):
            alone = self.it.solve(theta[b])
            if not (alone.assignments == z[b]).all():
                self.fail(f"{_listed(alone.assignments)} alone, {_listed(z[b])} in a batch {at(b)}: expected the same")
        known, of = (z, statistics) if self.statistics is None else (self.states, self.statistics)
        assert known is not None
        if self.states is not None:
            members = {row.tobytes() for row in self.states}
            for b, row in enumerate(z):
                if row.tobytes() not in members:
                    self.fail(f"{_listed(row)} {at(b)} is none of the listed states")
        better = theta.astype(np.float64) @ of.T
        for b in np.flatnonzero(better.max(axis=1) > values + slack).tolist():
            best = better[b].argmax()
            other = f"{_listed(known[best])} has {better[b, best]}"
            self.fail(f"{_listed(z[b])} with the score {values[b]} {at(b)}: {other}")
        return z

    def codes(self, z: NDArray[np.uint32]) -> None:
        it, u = self.it, self.it.unary
        code, statistics = it.encode(z), it.statistics(z)
        if code.shape != (len(z), u) or statistics.shape != (len(z), it.potentials):
            what = f"codes {code.shape}, statistics {statistics.shape}"
            self.fail(f"{what}: expected [{len(z)}, {u}] and [{len(z)}, {it.potentials}]")
        for b in np.flatnonzero((code != statistics[:, :u]).any(axis=1)):
            self.fail(f"the code of {_listed(z[b])} is {_listed(code[b])}: expected the first {u} statistics")
        for b in np.flatnonzero(((code != 0) & (code != 1)).any(axis=1)):
            self.fail(f"the code of {_listed(z[b])} is {_listed(code[b])}: expected zeros and ones")
        if it.one_hot:
            n = it.variables
            rows = code.reshape(len(z), n, -1)
            for b in np.flatnonzero((rows.sum(axis=2) != 1).any(axis=1)):
                self.fail(f"the code of {_listed(z[b])} is {_listed(code[b])}: expected a one in each of {n} rows")
            for b in np.flatnonzero((rows.argmax(axis=2) != z).any(axis=1)):
                self.fail(f"the code of {_listed(z[b])} is {_listed(code[b])}: expected ones at the values")
            if it.states is not None and it.states != rows.shape[2] ** n:
                self.fail(f"{it.states} states: expected every combination of values, {rows.shape[2] ** n}")
        near = it.neighbours(z[:1])
        distance = np.abs(near - code[:1, None]).sum(axis=-1)
        if near.shape[0] != 1 or near.shape[2] != u or not (distance == (2 if it.one_hot else 1)).all():
            self.fail(f"neighbours of {_listed(z[0])} have shape {near.shape}: expected codes with one change each")
        if len(it.solve(np.zeros((0, it.potentials))).assignments) or len(it.encode(z[:0])):
            self.fail("an empty batch has answers: expected none")

    def forbidden(self) -> None:
        """-inf at unary potentials: what is forbidden is not taken where anything else is there."""
        for _ in range(min(self.instances, 30)):
            theta = self.it.to_potentials(self.generator.standard_normal(self.it.potentials))
            theta[: self.it.unary][self.generator.random(self.it.unary) < 0.2] = -np.inf
            try:
                found = self.it.solve(theta)
            except ValueError as error:
                if self.statistics is not None:
                    free = (self.statistics[:, np.isneginf(theta)] == 0).all(axis=1)
                    if free.any():
                        assert self.states is not None
                        allowed = _listed(self.states[free.argmax()])
                        self.fail(f"{error} for {_listed(theta)}: expected an answer, such as {allowed}")
                continue
            taken = self.it.statistics(found.assignments)[np.isneginf(theta)]
            if taken.any():
                self.fail(f"{_listed(found.assignments)} for {_listed(theta)}: expected nothing that -inf forbids")

    def refusals(self) -> None:
        p = self.it.potentials
        for value in (np.nan, np.inf):
            theta = np.zeros(p, np.float32)
            theta[self.it.unary - 1] = value
            self.refused(f"a potential {value}", theta)
        self.refused("one potential too many", np.zeros(p + 1, np.float32))

    def refused(self, what: str, theta: NDArray[np.float32]) -> None:
        try:
            self.it.solve(theta)
        except ValueError:
            return
        self.fail(f"solve takes {what}: expected a ValueError")

    def sums(self, theta: NDArray[np.float32]) -> None:
        assert self.states is not None and self.statistics is not None
        scores = theta.astype(np.float64) @ self.statistics.T
        largest = scores.max(axis=1, keepdims=True)
        log_partition = np.log(np.exp(scores - largest).sum(axis=1)) + largest[:, 0]
        q = np.exp(scores - log_partition[:, None])
        entropy = -(q * (scores - log_partition[:, None])).sum(axis=1)
        kl, gradient = self.it.kl_to_uniform(theta)
        covariance = (q * (scores - (q * scores).sum(axis=1, keepdims=True))) @ self.statistics
        checks: list[tuple[str, Any, Any, float]] = [
            ("log_partition", self.it.log_partition(theta), log_partition, 1e-5),
            ("marginals", self.it.marginals(theta), q @ self.statistics, 1e-5),
            ("entropy", self.it.entropy(theta), entropy, 1e-4),
            ("kl_to_uniform", kl, np.log(len(self.states)) - entropy, 1e-4),
            ("the gradient of kl_to_uniform", gradient, covariance, 1e-3),
            ("covariance", self.it.covariance(theta, theta), covariance, 1e-3),
        ]
        for name, found, expected, slack in checks:
            off = np.abs(found - expected) > slack * (1 + np.abs(expected))
            for b in np.flatnonzero(off.reshape(len(theta), -1).any(axis=1)):
                what = f"{_listed(np.asarray(found[b]))} for the potentials {_listed(theta[b])}"
                self.fail(f"{name} is {what}: expected {_listed(np.asarray(expected[b]))}")
        count = 4000
        samples = self.it.sample(theta[0], seed=int(self.generator.integers(2**31)), samples=count)
        found, expected = self.it.statistics(samples).mean(axis=0), q[0] @ self.statistics
        spread = np.sqrt(np.maximum(q[0] @ self.statistics**2 - expected**2, 0) / count)
        for i in np.flatnonzero(np.abs(found - expected) > 6 * spread + 1e-3):
            self.fail(f"the mean of statistic {i} over samples is {found[i]}: expected {expected[i]}")
