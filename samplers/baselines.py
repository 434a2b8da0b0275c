"""The networks that people designed, to compare a search with."""

import dataclasses

import numpy as np
from optuna.study import Study

from optnas.samplers._batches import Candidate
from optnas.samplers._outlook import Outlook, Stretch
from optnas.samplers._replay import ReplaySampler, Search
from optnas.spaces import Architecture
from optnas.trials.attributes import HUMAN_DESIGNED


@dataclasses.dataclass(eq=False)
class BaselineSampler(ReplaySampler[Architecture]):
    """Sampler that proposes the human-designed networks of a space, one after the other.

    They are trained as a strategy's candidates would be, and nothing is searched. `optnas report
    --baselines` runs it beside a study. The networks may lie outside the range of the space; the
    user attribute ``human_designed`` of their trials is what they are called.

    Source: Stage-Wise NAS (Jordao et al. 2020), tables III and IV.

    Args:
        space: A space that knows such networks: `StageSpace` with three stages of basic or NASNet
            modules, or four of bottleneck modules.

    Raises:
        ValueError: If the space knows none.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.space.baselines():
            raise ValueError(
                f"no human-designed networks are known for {self.space!r}; they are for three "
                "stages of basic or NASNet modules, and for four of bottleneck modules."
            )

    def outlook(self, study: Study, rng: np.random.Generator) -> Outlook:
        done = {r.attrs.get(HUMAN_DESIGNED) for r in self._history(study).results}
        networks = self.space.baselines().items()
        return Outlook.settled(*(Stretch(n, 1, None, a) for n, a in networks if n not in done))

    def search(self) -> Search[Architecture]:
        networks = self.space.baselines()
        results = yield [
            Candidate(self.space.to_params(network), phase=name, attrs={HUMAN_DESIGNED: name})
            for name, network in networks.items()
        ]
        values = [result.value for result in results]
        return list(networks.values())[values.index(max(values))]
