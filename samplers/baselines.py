"""The networks that people designed, to compare a search with."""

from optuna.study import Study

from optnas.samplers._base import Candidate
from optnas.samplers._replay import ReplaySampler, Search
from optnas.spaces import Architecture, Space
from optnas.trials.attributes import HUMAN_DESIGNED


class BaselineSampler(ReplaySampler[Architecture]):
    """Sampler that proposes the human-designed networks of a space, one after the other.

    They are trained as a strategy's candidates would be, and nothing is searched. `optnas report
    --baselines` runs it beside a study. The networks may lie outside the range of the space; the
    user attribute ``human_designed`` of their trials is what they are called.

    Source: Stage-Wise NAS (Jordao et al. 2020), tables III and IV.

    Args:
        space: A space that knows such networks: `StageSpace` with three stages of basic or NASNet
            modules, or four of bottleneck modules.
        seed: Seed of the study. None derives one from the study's name.
        max_retries: How often a candidate is tried again whose worker died before it got further.
        patience: Seconds after which a running trial that decides nothing is not waited for.

    Raises:
        ValueError: If the space knows none.
    """

    def __init__(
        self,
        space: Space[Architecture],
        *,
        seed: int | None = None,
        max_retries: int = 5,
        patience: float = 60.0,
    ) -> None:
        if not space.baselines():
            raise ValueError(
                f"no human-designed networks are known for {space!r}; they are for three stages "
                "of basic or NASNet modules, and for four of bottleneck modules."
            )
        super().__init__(space, seed=seed, max_retries=max_retries, patience=patience)

    def search(self) -> Search[Architecture]:
        values = {}
        for name, architecture in self.space.baselines().items():
            params, attrs = self.space.to_params(architecture), {HUMAN_DESIGNED: name}
            # Any guess does: what comes next is known without the result.
            result = yield Candidate(params, phase=name, guess=0.0, attrs=attrs)
            values[architecture] = result.value
        return max(values, key=values.__getitem__)

    def candidates(self, study: Study) -> list[tuple[int, Architecture, float]]:
        """Trial number, architecture and value of those that are trained, best first."""
        path = self.replay(self._history(study), guess=False).path
        trained = [
            (result.number, self.space.from_params(candidate.params), result.value)
            for candidate, result in path
            if result.number is not None and not result.failed
        ]
        return sorted(trained, key=lambda entry: -entry[2])
