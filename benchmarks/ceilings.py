"""The least time that a training step could take, beside what it takes.

    python benchmarks/ceilings.py [--threads 1]

Operations: two per multiply-add, forward and twice backward, at the best rate of a 3x3
convolution of 64 channels. Bytes: what every operation of the forward pass puts out, written and
read forward, and three times as much backward, at the best rate of a copy that does not fit into
the caches.
"""

import argparse
import time
from collections.abc import Callable

import torch
from _harness import about
from epoch import DATA, NETWORKS, built, images_of, part
from torch import nn

from optnas.config.settings import TrainSettings
from optnas.objectives.networks.costs import count_params, forward_costs
from optnas.objectives.training.allocator import kept_memory
from optnas.objectives.training.trainer import Trainer

BATCH = 64
STEPS = 4


def best(work: Callable[[], object], repeats: int = 20) -> float:
    """Least seconds of several."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return min(times)


@torch.no_grad()
def ceilings() -> tuple[float, float]:
    """Operations and bytes per second, the best that were seen."""
    layer = nn.Conv2d(64, 64, 3, padding=1, bias=False).to(memory_format=torch.channels_last)
    images = torch.randn(64, 64, 32, 32).contiguous(memory_format=torch.channels_last)
    operations = 2 * 64 * 32 * 32 * 64 * 64 * 9 / best(lambda: layer(images))
    source = torch.randn(2**25)
    target = torch.empty_like(source)
    return operations, 2 * source.nbytes / best(lambda: target.copy_(source))


@kept_memory()  # As while an objective trains.
def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    threads = parser.parse_args().threads
    torch.set_num_threads(threads)
    operations, transfer = ceilings()
    print(", ".join(f"{name} {value}" for name, value in about().items()), f"threads {threads}")
    print(f"{operations / 1e9:.0f} GFLOP/s, {transfer / 1e9:.1f} GB/s\n")
    print("| | operations, ms | bytes, ms | a step, ms |\n|---|---|---|---|")
    for data in DATA:
        # Seen as it is trained: no validation images, whole batches.
        images = part(images_of(data, None, whole=False)[0], STEPS * BATCH, 0)
        for name, network in NETWORKS.items():
            model = built(network, images)
            costs = forward_costs(model, images.input_shape)
            compute = 6 * BATCH * costs.multiply_adds / operations
            weights = 4 * count_params(model)
            moved = 5 * BATCH * (costs.memory_bytes - weights) / transfer
            trainer = Trainer(model, images, TrainSettings(threads=threads), epochs=9, seed=0)
            step = best(trainer.train_epoch, 3) / STEPS
            row = " | ".join(f"{1000 * seconds:.1f}" for seconds in (compute, moved, step))
            print(f"| {name}, {data} | {row} |", flush=True)


if __name__ == "__main__":
    main()
