"""Several processes that train one network together: which this one is, and its share."""

import atexit
import dataclasses
import datetime
import functools
import os
from typing import TYPE_CHECKING

from optnas.errors import UserError, first_line

if TYPE_CHECKING:
    from torch import Tensor
    from torch._C._distributed_c10d import Store

# torch is imported when it is needed.

PATIENCE = datetime.timedelta(hours=2)
"""How long a process waits for the others, one of which may be testing a network."""
FOLDER = "OPTNAS_TOGETHER"
"""The variable that names the folder in which processes of one machine find each other."""


@dataclasses.dataclass(frozen=True)
class Ranks:
    """The processes that train together.

    Args:
        number: Which this one is, from 0.
        count: How many there are.
    """

    number: int = 0
    count: int = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that writes, tests and tells."""
        return self.number == 0

    def is_whole(self, images: int) -> bool:
        """Whether a batch is so small that each process trains on all of it.

        Batch normalisation needs two images.
        """
        return images < 2 * self.count

    def share(self, start: int, stop: int) -> tuple[int, int]:
        """Where the share of this process begins and ends of a batch that does so there."""
        images = stop - start
        if self.is_whole(images):
            return start, stop
        first = start + images * self.number // self.count
        return first, start + images * (self.number + 1) // self.count

    def add(self, values: "Tensor") -> None:
        """Have ``values`` be their sum over all processes, in place."""
        if self.count > 1:
            from torch import distributed

            distributed.all_reduce(values)

    def wait(self) -> None:
        """Go on when all processes are here."""
        if self.count > 1:
            from torch import distributed

            distributed.barrier()


def started_as() -> Ranks:
    """Which of several processes this is, if ``torchrun`` or its like started it so."""
    count = int(os.environ.get("WORLD_SIZE", "1"))
    return Ranks(int(os.environ.get("RANK", "0")), count) if count > 1 else Ranks()


def own_device() -> str | None:
    """The device of one of several processes; None leaves it to the objective."""
    if started_as().count == 1:
        return None
    import torch

    if not torch.cuda.is_available():
        return None
    return f"cuda:{int(os.environ.get('LOCAL_RANK', '0')) % torch.cuda.device_count()}"


def is_of_others(error: Exception) -> bool:
    """Whether an error says that another of the processes does not answer."""
    return type(error).__name__.startswith("Dist") or any(
        word in str(error) for word in ("gloo", "NCCL")
    )


@functools.cache
def join(kind: str) -> Ranks:
    """Be one of the processes that train together, as the environment says; or the only one.

    Args:
        kind: The kind of device that all train on.

    Raises:
        UserError: If the others cannot be reached.
    """
    ranks = started_as()
    if ranks.count == 1:
        return ranks
    from torch import distributed

    backend = "nccl" if kind == "cuda" else "gloo"
    try:
        distributed.init_process_group(
            backend,
            timeout=PATIENCE,
            store=_store(ranks),
            rank=ranks.number,
            world_size=ranks.count,
        )
    except (ValueError, RuntimeError) as error:
        raise UserError(f"the processes cannot reach each other: {first_line(error)}") from None
    atexit.register(distributed.destroy_process_group)
    return ranks


def _store(ranks: Ranks) -> "Store | None":
    """Where processes of one machine find each other; None where `torchrun` says it."""
    folder = os.environ.get(FOLDER)
    if folder is None:
        return None
    from torch import distributed

    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return distributed.FileStore(  # type: ignore[attr-defined, no-any-return, unused-ignore]
        os.path.join(folder, f"attempt-{attempt}"), ranks.count
    )
