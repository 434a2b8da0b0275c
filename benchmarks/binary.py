"""Four initialisations of the macro-micro search on binary subsets of CIFAR-10 (its table 2).

    python benchmarks/binary.py --data FOLDER [--pairs 10] [--seed 0] [--samples 1]
        [--depth 10 100] [--width 16 64] [--epochs 10] [--validation 1000] [--scratch FOLDER]

FOLDER has CIFAR-10. Pairs of classes are drawn with the seed. For each, four searches as
studies/cifar10_binary.yaml says, which begin with plain or separable layers and kernels of 3 or 7;
the options make them smaller. Prints a Markdown table: means and standard deviations over the
pairs of the best validation accuracy of a search and of the parameters of the network that it
found, with Wilcoxon's signed-rank p against separable layers of 3. With --scratch a killed run
goes on.
"""

import argparse
import contextlib
import itertools
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from optuna.trial import TrialState
from scipy.stats import wilcoxon

import optnas
from optnas.config.file import read_study_file

STUDY = Path(__file__).parents[1] / "studies" / "cifar10_binary.yaml"
STARTS = (("separable", 3), ("separable", 7), ("conv", 3), ("conv", 7))
CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="A folder with CIFAR-10.")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--samples", type=float, default=1.0)
    parser.add_argument("--validation", type=int, default=1000)
    parser.add_argument("--depth", type=int, nargs=2, default=[10, 100])
    parser.add_argument("--width", type=int, nargs=2, default=[16, 64])
    parser.add_argument("--epochs", type=int, default=10, help="Of the first candidate.")
    parser.add_argument("--scratch", type=Path, help="Where the studies are kept.")
    options = parser.parse_args()
    every = list(itertools.combinations(CLASSES, 2))
    drawn = np.random.default_rng(options.seed).permutation(len(every))[: options.pairs]
    pairs = [every[index] for index in drawn]
    print("pairs:", ", ".join("/".join(pair) for pair in pairs), flush=True)
    start = time.process_time()
    with contextlib.ExitStack() as stack:
        scratch = options.scratch or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        scratch.mkdir(parents=True, exist_ok=True)
        found = {
            begun: np.array([searched(begun, pair, scratch, options) for pair in pairs])
            for begun in STARTS
        }
    print_table(found)
    print(f"\n{time.process_time() - start:.0f} s of processor time")


def searched(
    begun: tuple[str, int], pair: tuple[str, str], scratch: Path, options: argparse.Namespace
) -> tuple[float, float, float]:
    """Best validation accuracy, parameters of what was found, and trials of a search."""
    operation, kernel = begun
    keys: dict[str, Any] = read_study_file(STUDY).keys
    keys["study"] = "-".join((operation, str(kernel), *pair))
    keys["storage"] = f"sqlite:///{scratch.resolve()}/{keys['study']}.db"
    keys["space"] |= {"depth": options.depth, "width": options.width}
    keys["sampler"] |= {"operation": operation, "kernel": kernel, "epochs": options.epochs}
    keys["data"] |= {
        "root": str(options.data),
        "download": False,
        "classes": list(pair),
        "samples": options.samples,
        "validation": options.validation,
    }
    outcome = optnas.run(keys)
    assert outcome.ending == "finished"
    assert outcome.best is not None
    trials = outcome.study.get_trials(deepcopy=False)
    best = max(t.value for t in trials if t.state == TrialState.COMPLETE and t.value is not None)
    params = outcome.best.architecture.num_params(3, 2)  # type: ignore[attr-defined]  # a chain
    print(f"{keys['study']}: {best:.4f}, {params:,} parameters, {len(trials)} trials", flush=True)
    return best, params, len(trials)


def print_table(found: dict[tuple[str, int], np.ndarray]) -> None:
    """Means and deviations over the pairs."""
    print("\n| layers at the start | validation accuracy | p | parameters | p | trials |")
    print("|---|---|---|---|---|---|")
    base = found[STARTS[0]]
    for (operation, kernel), rows in found.items():
        means, deviations = rows.mean(0), rows.std(0, ddof=1)
        p = ["" if rows is base else _p(base[:, i], rows[:, i]) for i in (0, 1)]
        print(
            f"| {operation}, {kernel} | {means[0]:.4f} +- {deviations[0]:.4f} | {p[0]} | "
            f"{means[1]:,.0f} +- {deviations[1]:,.0f} | {p[1]} | {means[2]:.1f} |"
        )


def _p(a: np.ndarray, b: np.ndarray) -> str:
    return f"{wilcoxon(a, b).pvalue:.2g}" if (a != b).any() else "1"


if __name__ == "__main__":
    main()
