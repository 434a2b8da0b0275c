"""Seeds derived from what they are for, so that nothing depends on the order of events."""

import hashlib
import json
from collections.abc import Iterator
from typing import Any

from optuna.samplers._lazy_random_state import LazyRandomState
from optuna.study import Study


def derive_seed(*parts: Any) -> int:
    """A 63-bit seed from JSON-serialisable ``parts``; equal parts give equal seeds everywhere."""
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def named_seed(study_name: str, seed: int | None) -> int:
    """The seed of a study: the one given, else one derived from the study's name."""
    return derive_seed("study", study_name) if seed is None else seed


def study_seed(study: Study, seed: int | None) -> int:
    """``named_seed`` of a study. Reads the storage: Hyperband's view of a study has no name."""
    if seed is not None:
        return seed
    return named_seed(study._storage.get_study_name_from_id(study._study_id), None)


def reseed(sampler: Any, seed: int) -> bool:
    """Give every random state of one of Optuna's own samplers a new seed.

    Returns:
        Whether it has any; a sampler from elsewhere may keep its random state in another form.
    """
    states = list(_random_states(sampler, set()))
    for index, state in enumerate(states):
        state.rng.seed(derive_seed(seed, index) % 2**32)
    return bool(states)


def _random_states(part: Any, seen: set[int]) -> Iterator[LazyRandomState]:
    """The random states of a sampler and of its parts, such as the samplers it falls back to."""
    for value in vars(part).values():
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, LazyRandomState):
            yield value
        elif type(value).__module__.startswith("optuna.samplers.") and hasattr(value, "__dict__"):
            yield from _random_states(value, seen)
