"""A surrogate search: a Gaussian process on what is known proposes what to train next."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import KW_ONLY
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from optuna.study import Study
from optuna.trial import FrozenTrial

from optnas.samplers._batches import Candidate, Step
from optnas.samplers._encoding import Codes, Encoding
from optnas.samplers._endless import EndlessSampler, is_new
from optnas.samplers._features import Features
from optnas.samplers._history import FAILED, History
from optnas.spaces import Architecture

if TYPE_CHECKING:
    from optnas.samplers._gaussian_process import GaussianProcess, Weights

# Whatever needs SciPy is imported where something is to be proposed: that takes longer than all
# that a command does which only looks at a study.

A = TypeVar("A", bound=Architecture)

CAP = 150
"""Results that the process is made of: the best half and every so many of the others."""
POOL = 400
"""Mutants that are judged for a proposal."""
RANDOM = 100
"""Random networks that are judged beside them."""
DRAWN = 3000
"""Parameters of all random networks together, where they are conditional: drawn one by one."""
PARENTS = 10
"""How many of the best networks have mutants."""
CHANGES = 4
"""Changes of a mutant, at most."""
TRIES = 10
"""How often a network is drawn that is unlike the others."""
FINALISTS = 8
"""Networks that are judged again after what they lack was drawn."""
GROWTH = 1.25
"""How much the number of results grows between two fits of the weights."""
OLD = 20
"""Results since the best one, after which the search looks elsewhere."""


@dataclasses.dataclass(frozen=True)
class Evidence:
    """What is known, in the order in which it was claimed.

    Args:
        codes: Of the networks with a result, shape (n, p).
        values: Their values, ``-inf`` for failures, shape (n,).
        running: Codes of the networks that still train, shape (m, p).
    """

    codes: Codes
    values: NDArray[np.float64]
    running: Codes

    def first(self, n: int) -> "Evidence":
        """The first ``n`` results."""
        return dataclasses.replace(self, codes=self.codes[:n], values=self.values[:n])

    def kept(self) -> "Evidence":
        """At most ``CAP`` of the results: the best half, and the others evenly by rank."""
        n = len(self.values)
        if n <= CAP:
            return self
        order = np.argsort(-self.values, kind="stable")
        others = np.linspace(CAP // 2, n - 1, CAP - CAP // 2).astype(int)
        rows = order[np.concatenate([np.arange(CAP // 2), others])]
        return dataclasses.replace(self, codes=self.codes[rows], values=self.values[rows])


@dataclasses.dataclass(eq=False)
class SurrogateSampler(EndlessSampler[A]):
    """Sampler using Bayesian optimisation with a Gaussian process, for any space.

    The first networks are unlike each other: every parameter takes the values that it had least,
    or is far from those that it had. Then, for every proposal:

    1. A Gaussian process is put through the results. Their values count by rank alone, as normal
       scores. The kernel is ``exp(-d)``, ``d`` being a weighted sum over the parameters: 1 for
       choices that differ, the difference for numbers, 1 for a parameter that only one of two
       networks has. Parameters with the same values whose names differ in numbers alone, those of
       the layers, say, or the edges of a cell, are of one kind if there are three or more; to
       the sum comes how much networks differ in the share of each choice among them, or in their
       mean. So a result says something about every layer. Weights and noise are fitted whenever
       a quarter more is known. Networks that are still training take the mean of the process.
    2. Mutants of the ten best networks, with one to four changes, and random networks are judged
       by their expected improvement over the greatest mean.
    3. The best of them is proposed. When the best network is 20 results old, the search looks
       elsewhere: all networks that are judged are random, and every other time by a draw from
       the marginal distribution of each (Thompson sampling), until there is a new best one.

    The objective suggests the parameters of the space; its value is an accuracy. Failed and
    infeasible networks count as the worst.

    Source: a composition of known parts: White et al. 2021 (*BANANAS*) for mutants as the pool,
    Ru et al. 2021 (*NAS-BOWL*) for Gaussian processes on architectures. What it is worth is
    measured in ``docs/measurements/search.md``.

    Example:

        .. code-block:: python

            study = optuna.create_study(direction="maximize", sampler=SurrogateSampler(space))
            study.optimize(objective, n_trials=50)

    Args:
        space: The space to search; its parameters say the whole network.
        initial: Networks at the start that nothing is known of.

    Raises:
        TypeError: If the networks of ``space`` descend from one another.
        ValueError: If a number is out of range.

    Differences from the paper:
        There is no paper.
    """

    needs_whole_networks = True

    _: KW_ONLY
    initial: Annotated[int, Ge(2)] = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        self._encoding = Encoding(self._distributions)
        self._features = Features(self._encoding.axes, self._encoding.alike)
        self._rows: dict[Any, Codes] = {}
        self._fitted: tuple[bytes, Weights] | None = None

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        # All workers import it at once here; in their turns one would wait for the other.
        from optnas.samplers._gaussian_process import GaussianProcess  # noqa: F401

        super().before_trial(study, trial)

    def propose(self, history: History, rng: np.random.Generator) -> Candidate | Step:
        evidence = self._evidence(history)
        if history.claims < self.initial or len(evidence.values) < 2:
            return self._initial(history, evidence, rng)
        from optnas.samplers._gaussian_process import one_thread

        with one_thread():
            return self._improvement(history, evidence, rng)

    def _improvement(
        self, history: History, evidence: Evidence, rng: np.random.Generator
    ) -> Candidate | Step:
        """The network that promises most by what is known."""
        from optnas.samplers._gaussian_process import expected_improvement

        process, best = self._process(evidence)
        is_old = len(evidence.values) - 1 - int(evidence.values.argmax()) >= OLD
        pool = self._random(POOL + RANDOM, evidence, rng) if is_old else self._near(evidence, rng)
        draws = is_old and len(evidence.values) % 2 == 0
        phase = "elsewhere" if is_old else "improvement"

        def acquisition(codes: Codes) -> NDArray[np.float64]:
            mean, deviation = process.predict(self._features.of(codes))
            if draws:
                return np.asarray(mean + deviation * rng.standard_normal(len(mean)))
            return expected_improvement(mean, deviation, best)

        ranked = pool[np.argsort(-acquisition(pool), kind="stable")]
        params = self._chosen(history, evidence, ranked, acquisition, rng)
        if params is None:
            return self.new_anywhere(history, rng, "random")
        return Candidate(params, phase=phase)

    def _initial(
        self, history: History, evidence: Evidence, rng: np.random.Generator
    ) -> Candidate | Step:
        """A network whose parameters differ from those of the others, as far as they can."""
        rows = np.vstack([evidence.codes, evidence.running])
        for _ in range(TRIES):
            params = self._completed(self._encoding.spread(rows, rng), rng)
            if params is not None and is_new(history, params):
                return Candidate(params, phase="initial")
        return self.new_anywhere(history, rng, "initial")

    def _evidence(self, history: History) -> Evidence:
        """What the history says, for the process."""
        codes, values, running = [], [], []
        for key, result in history.candidates():
            row = self._rows.get(key)
            if row is None:
                row = self._rows[key] = self._encoding.codes(dict(key))
            if np.isnan(row).all():
                continue  # Somebody's own trial, of another space.
            if result is None:
                running.append(row)
            else:
                codes.append(row)
                values.append(result.value)
        shape = (-1, len(self._encoding.axes))
        return Evidence(
            np.reshape(codes, shape), np.array(values, float), np.reshape(running, shape)
        )

    def _process(self, evidence: Evidence) -> tuple["GaussianProcess", float]:
        """The process through the results, and its greatest mean at one of them."""
        from optnas.samplers._gaussian_process import GaussianProcess, normal_scores

        weights = self._weights(evidence.first(_fitted_on(len(evidence.values), self.initial)))
        known = evidence.kept()
        x, z = self._features.of(known.codes), normal_scores(known.values)
        process = GaussianProcess(self._features, x, z, weights)
        best = float(process.mean(x).max())
        if len(evidence.running):
            running = self._features.of(evidence.running)
            z = np.concatenate([z, process.mean(running)])
            process = GaussianProcess(self._features, np.vstack([x, running]), z, weights)
        return process, best

    def _weights(self, evidence: Evidence) -> "Weights":
        """Weights fitted to these results; the last ones are remembered."""
        from optnas.samplers._gaussian_process import fit, normal_scores

        known = evidence.kept()
        key = known.codes.tobytes() + known.values.tobytes()
        if self._fitted is None or self._fitted[0] != key:
            x, z = self._features.of(known.codes), normal_scores(known.values)
            self._fitted = (key, fit(self._features, x, z))
        return self._fitted[1]

    def _near(self, evidence: Evidence, rng: np.random.Generator) -> Codes:
        """Mutants of the best networks, and some random ones, shape (n, p)."""
        random = self._random(RANDOM, evidence, rng)
        best = np.argsort(-evidence.values, kind="stable")[:PARENTS]
        best = best[evidence.values[best] > FAILED]
        if not len(best):
            return random
        parents = evidence.codes[best[rng.integers(len(best), size=POOL)]]
        changes = rng.integers(1, CHANGES, size=POOL, endpoint=True)
        mutants = self._encoding.mutants(parents, changes, rng)
        return np.unique(np.vstack([mutants, random]), axis=0)

    def _random(self, n: int, evidence: Evidence, rng: np.random.Generator) -> Codes:
        """Random networks, shape (n, p); fewer where some parameters depend on others."""
        if not np.isnan(evidence.codes).any():
            return np.unique(self._encoding.drawn(n, rng), axis=0)
        few = max(10, min(n // 4, DRAWN // len(self._encoding.axes)))
        drawn = [self.space.random_params(rng) for _ in range(few)]
        return np.array([self._encoding.codes(params) for params in drawn])

    def _chosen(
        self,
        history: History,
        evidence: Evidence,
        ranked: Codes,
        acquisition: Callable[[Codes], NDArray[np.float64]],
        rng: np.random.Generator,
    ) -> Mapping[str, Any] | None:
        """The first of ``ranked`` that nobody has tried, or None.

        What a network lacks, because a change has switched it on, is drawn; then a few of the
        first are judged once more.
        """
        known = {row.tobytes() for row in (*evidence.codes, *evidence.running)}
        finalists: list[Mapping[str, Any]] = []
        for row in ranked:
            if row.tobytes() in known:
                continue
            params = self._completed(row, rng)
            if params is None or params in finalists or not is_new(history, params):
                continue
            finalists.append(params)
            same = np.array_equal(self._encoding.codes(params), row, equal_nan=True)
            if len(finalists) == FINALISTS or (same and len(finalists) == 1):
                break
        if len(finalists) < 2:
            return finalists[0] if finalists else None
        values = acquisition(np.array([self._encoding.codes(params) for params in finalists]))
        return finalists[int(values.argmax())]

    def _completed(self, row: Codes, rng: np.random.Generator) -> Mapping[str, Any] | None:
        """The parameters of a network of the space, or None if it has none like this."""
        try:
            return self.space.to_params(self.space.completed(self._encoding.params(row), rng))
        except ValueError:
            return None


def _fitted_on(results: int, initial: int) -> int:
    """How many of the results the weights are fitted to."""
    size = initial
    while (following := math.ceil(size * GROWTH)) <= results:
        size = following
    return min(size, results)
