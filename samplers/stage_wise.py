"""Stage-wise search: deepen the stages whose features gain importance when they are deeper."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Generator
from dataclasses import KW_ONLY
from typing import Any

import numpy as np
from optuna.study import Study

from optnas.errors import UserError
from optnas.samplers._batches import Candidate
from optnas.samplers._history import Result
from optnas.samplers._options import Positive
from optnas.samplers._outlook import COURSES, Course, Outlook, in_stretches
from optnas.samplers._replay import ReplaySampler, Search
from optnas.spaces import StageArchitecture, StageSpace
from optnas.trials.attributes import PARENT, STAGE_IMPORTANCE, TUNED_IMPORTANCE


@dataclasses.dataclass(eq=False)
class StageWiseSampler(ReplaySampler[StageArchitecture]):
    """Sampler using the strategy of *Stage-Wise Neural Architecture Search*.

    The search starts from a network with equally deep stages. In every iteration it trains a
    temporary network, deeper in all stages, and deepens for good those stages whose importance
    is strictly greater there; the network that results is a candidate, and the start of the next
    iteration. After n iterations 2n + 1 networks have been asked for; a candidate that equals
    the temporary network before it is not trained again.

    Where the trials have the user attribute ``tuned_importance`` too, scores by the parameters of
    the criterion, these are chosen in the first iteration in which they disagree: every network
    that some would grow is trained, and the parameters of the most accurate one decide from then
    on, as in the paper's section IV.

    A temporary network is known as soon as the one before it is: two workers train both at the
    same time. There is never work for a third. With a ``donor`` one network more is trained, for
    which all wait; the user attribute ``parent`` of the others is the number of its trial. A
    network as deep as the donor is the donor, and not trained again.

    The objective records the user attribute ``stage_importance``, one number per stage, on every
    trial; `optnas.objectives.importance.stage_importance` computes it. Pruned trials have
    none, so the study must have no pruner. The value, the accuracy, is for the record. A network
    that failed or is infeasible ends the search with the network before it.

    Source: Jordao, Akio, Lie and Schwartz, *Stage-Wise Neural Architecture Search*, section III,
    algorithm 1.

    Example:

        .. code-block:: python

            sampler = StageWiseSampler(StageSpace(stages=3, block="basic"))
            study = optuna.create_study(
                direction="maximize", sampler=sampler, pruner=optuna.pruners.NopPruner()
            )
            study.optimize(objective)
            print(sampler.found(study), sampler.candidates(study))

    Args:
        space: The space of stages. No stage grows beyond its range.
        initial: Modules of every stage at the start.
        growth: Modules by which a stage is deepened: 2 in the paper, 1 for NASNet cells.
        iterations: Number of iterations.
        donor: Whether every network starts from the weights of the deepest network of the space,
            which is trained first: the paper's weight transfer. Then ``train.initial_epochs`` are
            the epochs of that one, and ``train.epochs`` those of the others.

    Raises:
        TypeError: If ``space`` is not a space of stages.
        ValueError: If a number is below 1, or ``initial`` is not in the space's range.
        UserError: Later, if a finished trial has no importances.

    Differences from the paper:
        The search ends where no stage grows; the authors' code goes on to train the same network
        again. What the paper trains a candidate further, after it was scored, is the objective's
        concern (``further_epochs``); a candidate that equals the temporary network is not.
    """

    searches = (StageSpace,)
    needs_objective = "stage_classification"

    space: StageSpace
    _: KW_ONLY
    initial: Positive = 6
    growth: Positive = 2
    iterations: Positive = 5
    donor: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for least, greatest in self.space.ranges:
            if not least <= self.initial <= greatest:
                raise ValueError(
                    f"`initial` must lie in the space's range, from {least} to {greatest}: "
                    f"{self.initial}."
                )

    @property
    def inherits(self) -> bool:
        return self.donor

    def search(self) -> Search[StageArchitecture]:
        deepest = tuple(greatest for _, greatest in self.space.ranges)
        donor = (yield self._candidate(deepest, "donor")) if self.donor else None
        modules, phase = (self.initial,) * self.space.stages, "initial"
        setting: str | None = None
        # Any guess does: the temporary network is known without the result.
        network = yield self._candidate(modules, phase, donor, guess=0.0)
        for number in range(1, self.iterations + 1):
            step = f"iteration {number} of at most {self.iterations}"
            deeper = tuple(min(m + self.growth, d) for m, d in zip(modules, deepest, strict=True))
            if network.failed or deeper == modules:
                break
            temporary = yield self._candidate(deeper, "temporary", donor, step=step)
            if temporary.failed:
                break
            if network.number is None:
                network = yield self._candidate(modules, phase, donor)
            choices = {
                name: _grown(modules, deeper, grows)
                for name, grows in self._growths(network, temporary, setting).items()
            }
            if len(set(choices.values())) > 1:
                setting = yield from self._tuned(choices, donor)
            grown = choices[setting] if setting in choices else next(iter(choices.values()))
            if grown == modules:
                break
            network = yield self._candidate(grown, "candidate", donor, guess=0.0, step=step)
            if network.failed:
                break
            modules, phase = grown, "candidate"
        return self._architecture(modules)

    def candidates(self, study: Study) -> list[tuple[int, StageArchitecture, float]]:
        """Trial number, architecture and value of the candidates: the last, then the best first.

        The last is what the search has come to. The initial network stands for the candidates as
        long as there is none.
        """
        trained: dict[str, list[tuple[int, StageArchitecture, float]]] = {}
        for candidate, result in self._trained(study):
            if result.number is not None:
                architecture = self.space.from_params(candidate.params)
                entry = (result.number, architecture, result.value)
                trained.setdefault(candidate.phase, []).append(entry)
        chosen = trained.get("candidate") or trained.get("initial", [])
        return chosen[-1:] + sorted(chosen[:-1], key=lambda entry: -entry[2])

    def outlook(self, study: Study, rng: np.random.Generator) -> Outlook:
        """The paper does not say how often a stage grows: every other time, here."""
        replay = self.replay(self._history(study))
        known = [result for _, result in replay.answered if STAGE_IMPORTANCE in result.attrs]
        before = np.array(self._importance(known[-1]) if known else [0.0] * self.space.stages)

        def course(important: Callable[[], list[float]]) -> Course:
            following = replay.restarted(self.search()).imagine(
                lambda _: Result(0.0, 0, {STAGE_IMPORTANCE: important()})
            )
            return in_stretches([(c, self.space.from_params(c.params)) for c in following])

        def grown(sign: float) -> list[float]:
            """Always more important, or always less; but for the first of several stages."""
            value = sign * next(beyond)
            return [0.0, *[value] * (stages - 1)] if stages > 1 else [value]

        stages, beyond = self.space.stages, itertools.count(10**9)
        return Outlook(
            least=course(lambda: grown(-1)),
            most=course(lambda: grown(1)),
            # More important than what is known as often as less, whatever it is measured in.
            likely=[
                course(lambda: (before + rng.uniform(-1, 1, stages)).tolist())
                for _ in range(COURSES)
            ],
        )

    def _tuned(
        self, choices: dict[str, tuple[int, ...]], donor: Result | None
    ) -> Generator[list[Candidate], list[Result], str]:
        """The parameters of the criterion that grow the network with the best accuracy."""
        names = {modules: name for name, modules in reversed(choices.items())}
        results = yield [self._candidate(modules, "tuning", donor) for modules in names]
        best = max(zip(results, names.values(), strict=True), key=lambda pair: pair[0].value)
        return best[1]

    def _growths(
        self, before: Result, deeper: Result, setting: str | None
    ) -> dict[str, list[bool]]:
        """Whether the importance of each stage is greater in the deeper network.

        By the parameters of the criterion: those that were chosen, or all that may be.
        """
        first, second = (result.attrs.get(TUNED_IMPORTANCE) for result in (before, deeper))
        if not (isinstance(first, dict) and isinstance(second, dict)):
            return {"": self._grows(self._importance(before), self._importance(deeper))}
        names = [setting] if setting is not None else [name for name in first if name in second]
        return {
            name: self._grows(
                self._importance(before, first.get(name)),
                self._importance(deeper, second.get(name)),
            )
            for name in names
        }

    def _grows(self, before: list[float], deeper: list[float]) -> list[bool]:
        return [d > b for b, d in zip(before, deeper, strict=True)]

    def _importance(self, result: Result, scores: Any = None) -> list[float]:
        importance = result.attrs.get(STAGE_IMPORTANCE) if scores is None else scores
        stages = self.space.stages
        if (
            not isinstance(importance, (list, tuple))
            or len(importance) != stages
            or not all(isinstance(a, (int, float)) and math.isfinite(a) for a in importance)
        ):
            raise UserError(
                f"Trial {result.number} must have the user attribute `{STAGE_IMPORTANCE}`, a list "
                f"of {stages} numbers (one per stage), but has {importance!r}: the objective must "
                "set it on every trial, as `stage_classification` does, and no pruner may cut a "
                "trial short."
            )
        return list(importance)

    def _candidate(
        self,
        modules: tuple[int, ...],
        phase: str,
        donor: Result | None = None,
        guess: float | None = None,
        step: str = "before the first iteration",
    ) -> Candidate:
        params = self.space.to_params(self._architecture(modules))
        step += f": {', '.join(map(str, modules))} modules"
        if donor is None or donor.failed:
            return Candidate(params, phase=phase, guess=guess, step=step)
        attrs = {PARENT: donor.number}
        return Candidate(params, phase=phase, guess=guess, attrs=attrs, step=step)

    def _architecture(self, modules: tuple[int, ...]) -> StageArchitecture:
        return StageArchitecture(modules, self.space.block)


def _grown(
    modules: tuple[int, ...], deeper: tuple[int, ...], grows: list[bool]
) -> tuple[int, ...]:
    return tuple(d if g else m for m, d, g in zip(modules, deeper, grows, strict=True))
