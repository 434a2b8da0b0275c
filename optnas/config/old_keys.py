"""What older study files and stored configurations say, in today's words."""

import warnings
from collections.abc import Mapping
from typing import Any

from optnas.config.messages import Source

_SYNCHRONOUS = ("order", "promote", "epochs")
"""Options of EcoNAS's synchronous cycles, which were an order of the sampler ``econas``."""


def with_current_keys(data: Mapping[str, Any], source: Source) -> dict[str, Any]:
    """``data`` with what has another name now; it says so for what people wrote in a file.

    ``sampler: {name: econas, order: paper}`` (or ``code``) is ``synchronous_econas``. In the
    asynchronous order, which ``econas`` is, ``promote`` and ``epochs`` never had a meaning.
    ``workers: {per_device: auto}``, which measured how many there should be, is one for each
    device; that is said of a study without a file, too.
    """
    data = _without_measured_workers(data, source)
    sampler = data.get("sampler")
    if not isinstance(sampler, Mapping) or sampler.get("name") != "econas":
        return dict(data)
    old = [key for key in _SYNCHRONOUS if key in sampler]
    if sampler.get("order") in ("paper", "code"):
        _say(source, "order", "this is the sampler `synchronous_econas` now, and is taken for it")
        return {**data, "sampler": {**sampler, "name": "synchronous_econas"}}
    if sampler.get("order", "asynchronous") != "asynchronous":
        return dict(data)  # Never valid: it is refused as any key that does not exist.
    for key in old:
        _say(source, key, "this key is of the sampler `synchronous_econas`; here it means nothing")
    kept = {key: value for key, value in sampler.items() if key not in old}
    return {**data, "sampler": kept}


def _without_measured_workers(data: Mapping[str, Any], source: Source) -> Mapping[str, Any]:
    workers = data.get("workers")
    if not isinstance(workers, Mapping) or workers.get("per_device") != "auto":
        return data
    text = (
        "`auto` is taken for 1 now, a process for each device: say a number on the CPU, and "
        "`streams: 4` on a GPU"
    )
    warnings.warn(str(source.error(("workers", "per_device"), text)), stacklevel=2)
    return {**data, "workers": {**workers, "per_device": 1}}


def _say(source: Source, key: str, text: str) -> None:
    if source.lines:  # What is stored is nobody's to change.
        warnings.warn(str(source.error(("sampler", key), text)), stacklevel=2)
