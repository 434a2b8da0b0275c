"""`optnas rank`: how well reduced settings rank networks, on the user's own data."""

from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, median, stdev
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial

from optnas.config.file import StudyFile, study_from_dict
from optnas.config.proxy import FACTORS, Proxy
from optnas.config.variants import experiment_seed, variant, written_block
from optnas.errors import UserError
from optnas.experiments.ranking_report import ranking_page, ranking_text
from optnas.experiments.statistics import bootstrap, kendall, retained, spearman
from optnas.experiments.studies import Experiment, finish_study, finite, is_result
from optnas.spaces import Architecture
from optnas.study.budget import trial_epochs
from optnas.trials.attributes import TRAIN_ACCURACY, TRAIN_SECONDS

LEAST = 3
"""Networks, and steps of a factor, below which an order says nothing."""

Zoo = Mapping[Architecture, FrozenTrial]
"""The networks that could be trained, with their trials."""


def parse_settings(text: str) -> list[Proxy]:
    """Reduced settings as in ``c4r4s0e60,c0r0s1e30``, each once.

    Raises:
        UserError: If one is not of this form.
    """
    settings: dict[Proxy, None] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            settings[Proxy.parse(part)] = None
        except ValueError as error:
            raise UserError(f"--settings: {part!r}: {error}") from None
    return list(settings)


def rank(
    config: StudyFile,
    *,
    networks: int,
    settings: Sequence[Proxy] = (),
    full_epochs: int | None = None,
    dynamic: bool = False,
    elsewhere: StudyFile | None = None,
    device: str | None = None,
    on_study: Callable[[str], None] = lambda line: None,
) -> Experiment:
    """Train a zoo of random networks in the original and in reduced settings, and compare.

    Every setting is a study of its own in the file's storage, named after the file's study, the
    size of the zoo and the setting. Running it again goes on; any number of processes may run
    it at once. The file's sampler, pruner, proxy, budget and limits do not apply.

    Source: EcoNAS, section 3 and figures 3 to 9. ``dynamic``: *Efficient Global Neural
    Architecture Search*, sections 3.1 and 3.2.

    Args:
        config: The space, the data and the training.
        networks: Size of the zoo, at least 3.
        settings: The reduced settings.
        full_epochs: Epochs of the original setting. None takes ``retrain.epochs``.
        dynamic: Whether static and dynamic learning rankings are compared too, on the original
            trainings.
        elsewhere: Another study's file: the same networks are trained as it says too, on its
            data, for its ``retrain.epochs``, and their accuracies are compared (FTSO, figures 3 k
            and l).
        device: A torch device; None takes CUDA where there is one.
        on_study: Called with a line for every study that is finished.

    Raises:
        UserError: If a setting is the original one or not possible here, or too few networks
            could be trained.
        Stopped: If it was interrupted.
    """
    if networks < LEAST:
        raise UserError(f"a ranking needs at least {LEAST} networks, not {networks}")
    original = Proxy(0, 0, 0, full_epochs or config.retrain.epochs)
    if dynamic and original.e < LEAST:
        raise UserError(
            f"--dynamic trains the i-th smallest network for i epochs: give --full-epochs of at "
            f"least {LEAST}"
        )
    if original in settings:
        raise UserError(f"{original} is the original setting; name reduced ones")
    configs = {s: _setting(config, networks, s, original) for s in (original, *settings)}
    zoos = {}
    for done, (setting, reduced) in enumerate(configs.items(), start=1):
        zoos[setting] = _zoo(finish_study(reduced, device), reduced, setting)
        on_study(f"{done}/{len(configs)}  {reduced.study}: {len(zoos[setting])} networks trained")
    seed = experiment_seed(config)
    other: dict[str, Any] | None = None
    others: list[tuple[float, float]] = []
    if elsewhere is not None:
        full = Proxy(0, 0, 0, elsewhere.retrain.epochs)
        study = _setting(_with_networks_of(config, elsewhere), networks, full, full)
        zoo = _zoo(finish_study(study, device), study, full)
        on_study(f"{study.study}: {len(zoo)} networks trained")
        other, others = _compared(full, original, zoo, zoos[original], seed)
        other["setting"] = elsewhere.study
    rows = [_compared(s, original, zoos[s], zoos[original], seed) for s in settings]
    values = [_value(trial) for trial in zoos[original].values()]
    fields = {
        "study": config.study,
        "networks": len(values),
        "original": str(original),
        "spread": _spread(values),
        "settings": [row for row, _ in rows],
        "elsewhere": other,
        "monotonicity": _monotonicity([row for row, _ in rows]),
        "dynamic": _dynamic(list(zoos[original].values()), seed) if dynamic else None,
    }
    html = ranking_page(fields, [pairs for _, pairs in rows], values, others)
    return Experiment(fields, ranking_text(fields), html)


def _with_networks_of(config: StudyFile, elsewhere: StudyFile) -> StudyFile:
    """A study like ``elsewhere`` that draws the networks of ``config``, kept in its storage."""
    keys = {
        **elsewhere.written.keys,
        "space": config.resolved()["space"],
        "storage": config.storage,
        "artifacts": config.artifacts,
        "seed": experiment_seed(config),
    }
    return study_from_dict(keys, elsewhere.folder)


def _setting(config: StudyFile, networks: int, setting: Proxy, original: Proxy) -> StudyFile:
    """The study of a setting."""
    reduces = setting != original
    return variant(
        config,
        f"rank-{networks}-{setting}",
        sampler={"name": "zoo", "size": networks},
        pruner={"name": "none"},
        proxy=str(setting) if reduces else None,
        train=written_block(config, "train") | {"epochs": None if reduces else setting.e},
        budget={},
        limits={},
    )


def _zoo(study: optuna.Study, config: StudyFile, setting: Proxy) -> Zoo:
    space = config.search_space
    trained = [trial for trial in study.get_trials(deepcopy=False) if is_result(trial)]
    if len(trained) < LEAST:
        raise UserError(
            f"the study {study.study_name!r}: only {len(trained)} networks could be trained, and "
            f"a ranking needs {LEAST}; `optnas status` shows the study"
        )
    if any(trial_epochs(trial) not in (0, setting.e) for trial in trained):
        raise UserError(
            f"the objective {config.objective.name!r} does not train for {setting.e} epochs, as "
            f"the setting {setting} says: it does not follow reduced settings"
        )
    return {space.from_trial(trial): trial for trial in trained}


def _compared(
    setting: Proxy, original: Proxy, reduced: Zoo, full: Zoo, seed: int
) -> tuple[dict[str, Any], list[tuple[float, float]]]:
    """A setting's row, and the accuracies of each network in the original setting and in it."""
    both = [(full[network], reduced[network]) for network in full if network in reduced]
    pairs = [(_value(a), _value(b)) for a, b in both]
    if len(pairs) < LEAST:
        raise UserError(f"{setting}: only {len(pairs)} networks could be trained here and fully")
    accurate, cheap = zip(*pairs, strict=True)
    row_gap = [gap for _, trial in both if (gap := _gap(trial)) is not None]
    top = max(1, min(10, len(pairs) // 5))
    row: dict[str, Any] = {"setting": str(setting), "networks": len(pairs)}
    for name, statistic in (("rho", spearman), ("tau", kendall)):
        row[name] = finite(float(statistic(accurate, cheap)))
        ends = bootstrap(statistic, accurate, cheap, seed=seed)
        row[f"{name}_low"], row[f"{name}_high"] = map(finite, ends)
    row["pearson"] = finite(float(np.corrcoef(accurate, cheap)[0, 1]))
    row["gap"] = fmean(row_gap) if row_gap else None
    costs = [(_cost(a, original), _cost(b, setting)) for a, b in both]
    seconds = [
        (a.user_attrs.get(TRAIN_SECONDS, 0), b.user_attrs.get(TRAIN_SECONDS, 0)) for a, b in both
    ]
    row["speedup"], row["measured_speedup"] = _ratio(costs), _ratio(seconds)
    row["top"] = top
    row["retained"] = {
        str(among): retained(accurate, cheap, top, among)
        for among in (top, (3 * top + 1) // 2, 2 * top)
    }
    return row, pairs


def _gap(trial: FrozenTrial) -> float | None:
    """How much better a network is on what it learnt from; None if it is not recorded."""
    learnt = trial.user_attrs.get(TRAIN_ACCURACY)
    return learnt - _value(trial) if isinstance(learnt, int | float) else None


def _cost(trial: FrozenTrial, setting: Proxy) -> float:
    """Multiply-adds for an image, by epochs, by the fraction of the images; 0 if unknown."""
    multiply_adds = trial.user_attrs.get("multiply_adds", 0)
    return float(multiply_adds * setting.e * setting.samples(1.0))


def _ratio(pairs: Sequence[tuple[float, float]]) -> float | None:
    full, reduced = (sum(column) for column in zip(*pairs, strict=True))
    return full / reduced if full and reduced else None


def _spread(values: Sequence[float]) -> dict[str, float]:
    """How much the accuracies of random networks differ."""
    return {
        "worst": min(values),
        "median": median(values),
        "best": max(values),
        "mean": fmean(values),
        "deviation": stdev(values),
    }


def _monotonicity(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """For every factor, how steadily rho rises with its steps (epochs for ``e``), in [-1, 1].

    Kendall's tau of step and rho, among settings that differ in this factor alone, at least
    three; and the mean over such groups. EcoNAS calls its own measure entropy, and defines it in
    an appendix that was not published with the paper.
    """
    rhos = {Proxy.parse(row["setting"]): row["rho"] for row in rows if row["rho"] is not None}
    factors = {}
    for factor in FACTORS:
        groups: dict[str, list[tuple[int, float]]] = {}
        for setting, rho in rhos.items():
            fixed = "".join(f"{f}{'*' if f == factor else getattr(setting, f)}" for f in FACTORS)
            groups.setdefault(fixed, []).append((getattr(setting, factor), rho))
        taus = {
            fixed: finite(float(kendall(*zip(*points, strict=True))))
            for fixed, points in groups.items()
            if len(points) >= LEAST
        }
        known = [tau for tau in taus.values() if tau is not None]
        factors[factor] = {"mean": fmean(known) if known else None, "groups": taus}
    return factors


def _dynamic(trials: Sequence[FrozenTrial], seed: int) -> dict[str, Any]:
    """Rankings after a few epochs, which grow with the network or not, against the final one.

    Static rankings, after an epoch and by size, are those of all networks. Dynamic ones are those
    of as many networks as there are epochs, in order of size: after 1, 2, 3... epochs.
    """
    epochs = min(len(trial.intermediate_values) for trial in trials)
    if epochs < LEAST or not all("params" in trial.user_attrs for trial in trials):
        raise UserError(
            "--dynamic needs every network's parameters and its accuracy after each epoch, which "
            "this objective does not record"
        )
    used = sorted(trials[:epochs], key=lambda trial: trial.user_attrs["params"])
    final = [_value(trial) for trial in used]
    size = [float(trial.user_attrs["params"]) for trial in used]
    dynamic = [_after(trial, epoch) for epoch, trial in enumerate(used, start=1)]
    equal = (len(used) + 1) // 2
    last = [_value(trial) for trial in trials]
    rankings = {
        "static_1_epoch": ([_after(trial, 1) for trial in trials], last),
        "static_equal_epochs": ([_after(trial, equal) for trial in used], final),
        "dynamic": (dynamic, final),
        "params": ([float(trial.user_attrs["params"]) for trial in trials], last),
        "params_and_dynamic": (size, dynamic),
    }
    rhos = {}
    for name, (a, b) in rankings.items():
        low, high = map(finite, bootstrap(spearman, a, b, seed=seed))
        rho = finite(float(spearman(a, b)))
        rhos[name] = {"rho": rho, "low": low, "high": high, "networks": len(a)}
    return {
        "networks": len(used),
        "equal_epochs": equal,
        "rankings": rhos,
        "points": [
            {"params": int(p), "dynamic": d, "final": f}
            for p, d, f in zip(size, dynamic, final, strict=True)
        ],
    }


def _after(trial: FrozenTrial, epoch: int) -> float:
    """The best accuracy up to an epoch."""
    return max(value for step, value in trial.intermediate_values.items() if step <= epoch)


def _value(trial: FrozenTrial) -> float:
    assert trial.value is not None  # A result has one.
    return trial.value
