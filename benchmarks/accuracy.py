"""Whether the product learns as much as the plain loop: a test of equivalence over seeds.

    python benchmarks/accuracy.py [--data FOLDER] [--seeds 5] [--epochs 10] [--output FILE]

Both train the same network from the same weights with the same recipe. The ratio is that of the
mean validation accuracies in the last epoch. They are equivalent if two one-sided t tests (TOST,
Welch's degrees of freedom) both refuse, at 5 %, that the means differ by more than the margin.
"""

import functools
import math
import statistics
from typing import Any

from _harness import Cases, Row, arguments, contest, measure
from epoch import DATA, NETWORKS, images_of, plain, product, training_arguments
from scipy.stats import t as student

MARGIN = 0.02
"""The greatest difference of accuracies, as a fraction, that does not count."""


def tost(first: list[float], second: list[float], margin: float) -> float:
    """The p value of the hypothesis that the means differ by ``margin`` or more."""
    parts = [statistics.variance(sample) / len(sample) for sample in (first, second)]
    error = math.sqrt(sum(parts)) or 1e-12
    freedom = sum(parts) ** 2 / (
        sum(p**2 / (len(s) - 1) for p, s in zip(parts, (first, second), strict=True)) or 1e-24
    )
    difference = statistics.mean(first) - statistics.mean(second)
    return float(student.sf((margin - abs(difference)) / error, freedom))


def compared(network: str, data: str, options: Any) -> Row:
    """Both sides' accuracies over the seeds; what is timed are their epochs."""
    images, _ = images_of(data, options.data, whole=options.device != "cpu")
    accuracies: tuple[list[float], list[float]] = ([], [])
    seconds: tuple[list[float], list[float]] = ([], [])
    for seed in range(options.seeds):
        what = (NETWORKS[network], images, options.device)
        last = (options.epochs, seed)
        ours = (product, *what, options.threads, options.precision, *last)
        with contest(ours, (plain, *what, options.rival_threads, *last)) as sides:
            for side, contestant in enumerate(sides):
                turns = [contestant() for _ in range(options.epochs)]
                accuracies[side].append(turns[-1].result)
                seconds[side].append(statistics.median(turn.seconds for turn in turns))
    means = [statistics.mean(values) for values in accuracies]
    spreads = [statistics.stdev(values) for values in accuracies]
    ratios = [a / b for a, b in zip(*accuracies, strict=True)]
    return Row(
        statistics.median(seconds[0]),
        statistics.median(seconds[1]),
        means[0] / means[1],
        min(ratios),
        max(ratios),
        options.seeds,
        notes={
            "accuracy": f"{means[0]:.4f} +- {spreads[0]:.4f}",
            "plain loop's": f"{means[1]:.4f} +- {spreads[1]:.4f}",
            "p": f"{tost(*accuracies, MARGIN):.1e}",
        },
    )


def cases(options: Any) -> Cases:
    """Every comparison that the options ask for."""
    for data in options.sets:
        for network in options.networks:
            make = functools.partial(compared, network, data, options)
            yield f"{network}, {data}, accuracy after {options.epochs} epochs; plain loop", make


def main() -> None:
    """Measure, and print a table."""
    parser = arguments(__doc__)
    training_arguments(parser)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--sets", nargs="+", choices=DATA, default=["digits"])
    options = parser.parse_args()
    measure(cases(options), options.output, options.device)


if __name__ == "__main__":
    main()
