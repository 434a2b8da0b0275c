"""Seeds derived from what they are for, so that nothing depends on the order of events."""

import hashlib
import json
from typing import Any

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
    return named_seed(study._storage.get_study_name_from_id(study._study_id), seed)
