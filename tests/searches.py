"""Trials as searches leave them, made without training anything."""

from typing import Any

from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from optnas.config.file import study_from_dict
from optnas.spaces import GrowthSpace
from optnas.study.opening import OpenStudy, create_or_open

GROWTH = GrowthSpace(cells=1, channels=4)


def trial(
    number: int,
    value: float | None = None,
    *,
    state: TrialState = TrialState.COMPLETE,
    curve: tuple[float, ...] = (),
    infeasible: bool = False,
    suggested: dict[str, int] | None = None,
    **attrs: Any,
) -> FrozenTrial:
    """A trial; other keywords are its user attributes."""
    suggested = suggested or {"modules_1": 1, "modules_2": 2, "modules_3": 3}
    made = create_trial(
        state=state,
        value=value,
        params=suggested,
        distributions=dict.fromkeys(suggested, IntDistribution(-1, 2**31 - 1)),
        user_attrs=attrs,
        intermediate_values=dict(enumerate(curve, start=1)),
        constraints={"params": 1.0} if infeasible else None,
    )
    made.number = number
    return made


def growing(children: int = 3) -> list[FrozenTrial]:
    """An initial network of ``GROWTH``, its children, and a child of the first of these."""
    architectures = [GROWTH.initial()]
    architectures += [GROWTH.grow(architectures[0], seed) for seed in range(children)]
    architectures.append(GROWTH.grow(architectures[1], 0))
    parents = [-1, *[0] * children, 1]
    return [
        trial(
            number,
            0.5 + 0.1 * number,
            curve=(0.1, 0.5 + 0.1 * number),
            suggested={"parent": parent},
            phase="initial" if parent < 0 else "growth",
            multiply_adds=1000 * (number + 1),
            params=100 * (number + 1),
            inherited_tensors=7 * len(architecture.increments),
            architecture=architecture.to_json(),
        )
        for number, (parent, architecture) in enumerate(zip(parents, architectures, strict=True))
    ]


def opened(folder: Any, trials: list[FrozenTrial] | None = None, **keys: Any) -> OpenStudy:
    """A study in ``folder`` that holds ``trials``."""
    defaults = {"study": "made", "data": "digits", "sampler": "random", "space": "stage"}
    found = create_or_open(
        study_from_dict({**defaults, **keys}, folder), in_channels=1, classes=10
    )
    for each in trials or []:
        found.study.add_trial(each)
    return found
