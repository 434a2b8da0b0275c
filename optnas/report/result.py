"""What came of a search: the network, how good it is, and what stands beside it."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from optnas.drawing.architectures import is_drawn, picture
from optnas.drawing.attach import captioned_picture, concat_of
from optnas.pages.content import (
    Block,
    Column,
    Drawing,
    Facts,
    Folded,
    Paragraph,
    Preformatted,
    Table,
)
from optnas.report.costs import NetworkCosts
from optnas.report.meaning import incomparable, nothing_learnt
from optnas.report.table import digits, spelled, whole
from optnas.report.tested import Kept, Tested
from optnas.report.text import SHOWN, best_text
from optnas.spaces.words import in_words
from optnas.study.budget import trial_epochs
from optnas.study.networks import params_of
from optnas.study.opening import Conclusion, OpenStudy, conclusions
from optnas.study.record import metric_of
from optnas.trials.metric import ACCURACY, Metric, metric
from optnas.units import count, plural

Fact = tuple[str, str, str]


def percent(share: float) -> str:
    """A share as people say it: ``96.4 %``."""
    return f"{100 * share:.1f} %"


@dataclasses.dataclass(frozen=True)
class Found:
    """The network that a page tells of.

    Args:
        conclusion: What the search says of it.
        kept: Its trainings and what stands beside them, the network itself first; empty where it
            was not trained and tested yet.
    """

    conclusion: Conclusion
    kept: Sequence[Kept]

    @property
    def tested(self) -> Tested | None:
        """Its training; None where there is none."""
        return self.kept[0].first if self.kept else None


def what_was_found(handle: OpenStudy, kept: Sequence[Kept]) -> Found | None:
    """The network that was trained and tested, else the one that would be; None without any.

    Args:
        handle: The study.
        kept: The networks that were trained and tested.
    """
    if kept:
        number = kept[0].first.origin.get("trial")
        trials = handle.study.get_trials(deepcopy=False)
        if type(number) is int and 0 <= number < len(trials):
            architecture = handle.config.search_space.named_by(trials[number])
            if architecture is not None:
                value = trials[number].value or 0.0
                return Found(Conclusion(architecture, number, value, handle.is_finished), kept)
    found = conclusions(handle, 1)
    return Found(found[0], kept) if found else None


def lead(handle: OpenStudy, found: Found | None) -> str:
    """The result in a sentence or two.

    Args:
        handle: The study.
        found: The network.
    """
    if found is None:
        return "No network has been trained yet."
    tested, searched = found.tested, metric_of(handle.study)
    if tested is None:
        return (
            f"The network found has a validation {searched.name} of {found.conclusion.value:.4f}. "
            "It has not been tested yet: the search chose it by this number, so new images will "
            "give less."
        )
    if tested.verification:
        sets = plural(len(tested.verification), "set")
        return f"A network for faces, tested with {sets} of people that it had not seen."
    low, high = tested.interval
    said = (
        f"A network that is right on {percent(tested.test_accuracy)} of {tested.test_images:,} "
        f"test images (95 % interval {percent(low)} to {percent(high)})"
    )
    if tested.chosen_by_test:
        return f"{said}, by which the search chose it: too good to be a test accuracy."
    return f"{said}, which neither the search nor its training had seen."


def result(
    handle: OpenStudy, target: str, found: Found | None, costs: NetworkCosts
) -> list[Block]:
    """What a page shows first.

    Args:
        handle: The study.
        target: How commands name the study.
        found: The network.
        costs: What is shown beyond what the trials say.
    """
    if found is None:
        return [Preformatted(best_text(handle, target))]
    searched = metric_of(handle.study)
    blocks: list[Block] = [Facts(_facts(handle, found, costs, searched))]
    judgement = None if found.tested is None else found.tested.judgement
    if judgement is not None and judgement.is_chance:
        blocks.append(Paragraph("A guess could have this accuracy: nothing was learnt."))
    candidates = conclusions(handle, SHOWN)
    blocks += [Paragraph(line) for line in nothing_learnt(handle, candidates, target)]
    blocks += [Paragraph(line) for line in _better(handle, candidates)]
    blocks += _network(handle, found)
    if found.tested is not None and found.tested.verification:
        blocks.append(_verification(found.kept[0].trainings))
    elif len(found.kept) > 1 or any(len(each.trainings) > 1 for each in found.kept):
        blocks.append(_beside(found.kept))
    if len(candidates) > 1:
        blocks.append(_candidates(handle, candidates, searched))
    if costs.baselines:
        blocks.append(_human_designed(handle, found, costs, searched))
    return blocks


def _network(handle: OpenStudy, found: Found) -> list[Block]:
    """The network in words and drawn."""
    architecture = found.conclusion.architecture
    first, *others = in_words(architecture)
    blocks: list[Block] = [Paragraph(f"{first[:1].upper()}{first[1:]}.")]
    if others:
        blocks.append(Folded("The network in words", [Preformatted("\n".join(others))]))
    if is_drawn(architecture):
        if found.tested is None:
            drawn = captioned_picture(handle, found.conclusion)
        else:  # The caption would be that of the search.
            drawn = picture(architecture, concat_of(handle))
        blocks.append(Drawing(drawn, "Drawing of the network found"))
    return blocks


def _better(handle: OpenStudy, candidates: Sequence[Conclusion]) -> list[str]:
    """What is said of a trial with a better value than what the strategy found."""
    try:
        best = handle.study.best_trial
    except ValueError:  # None is complete and feasible.
        return []
    if best.number in {each.number for each in candidates} or best.value is None:
        return []
    return [
        f"Trial {best.number} has the best value of any, {best.value:.4f}; the strategy did not "
        "choose its network."
    ]


def _facts(handle: OpenStudy, found: Found, costs: NetworkCosts, searched: Metric) -> list[Fact]:
    conclusion, tested = found.conclusion, found.tested
    facts = [] if tested is None else _test_facts(tested, searched)
    chosen = "by which the search chose it"
    facts.append((f"Validation {searched.name}", f"{conclusion.value:.4f}", chosen))
    params, adds = _sizes(handle, found)
    if params is not None:
        facts.append(("Parameters", count(params), "" if params < 10_000 else f"{params:,}"))
    if adds is not None:
        facts.append(("Multiply-adds", count(adds), "for one image"))
    milliseconds = costs.milliseconds.get(conclusion.architecture)
    if milliseconds is not None:
        remark = f"for one image, one thread of {costs.processor}"
        facts.append(("Inference", f"{digits(milliseconds)} ms", remark))
    if tested is not None and tested.train_seconds is not None and tested.epochs is not None:
        remark = f"{tested.epochs:,} epochs on {tested.train_images:,} images"
        facts.append(("Final training", spelled(tested.train_seconds), remark))
    return facts


def _sizes(handle: OpenStudy, found: Found) -> tuple[int | None, int | None]:
    """Parameters and multiply-adds of the network, as it was trained last."""
    if found.tested is not None:
        return found.tested.params, found.tested.multiply_adds
    conclusion = found.conclusion
    attrs = handle.study.get_trials(deepcopy=False)[conclusion.number].user_attrs
    adds = attrs.get("multiply_adds")
    params = params_of(handle, conclusion.architecture, attrs)
    return params, adds if type(adds) is int else None


def _test_facts(tested: Tested, searched: Metric) -> list[Fact]:
    if tested.verification:
        return [
            (metric(key).title, f"{value:.4f}", f"{name}, whom it had not seen")
            for name, answers in list(tested.verification.items())[:2]
            for key, value in list(answers.items())[:2]
        ]
    low, high = tested.interval
    remark = f"95 % interval {percent(low)} to {percent(high)}; {tested.test_images:,} images"
    facts = [("Test accuracy", percent(tested.test_accuracy), remark)]
    judgement = tested.judgement
    if judgement is None:
        return facts
    value = judgement.value(searched.key)
    if searched != ACCURACY and value is not None:
        facts.insert(0, (f"Test {searched.name}", f"{value:.4f}", "what the search maximised"))
    facts.append(("By guessing", percent(judgement.chance), "always naming the largest class"))
    return facts


def _beside(kept: Sequence[Kept]) -> Table:
    """What was trained by one recipe on the same images, and tested on the same."""
    columns = [
        Column("network", text=True),
        Column("test accuracy"),
        Column("95 % interval"),
        Column("trainings"),
        Column("parameters"),
        Column("multiply-adds (one image)"),
    ]
    rows = []
    for each in kept:
        accuracies = [training.test_accuracy for training in each.trainings]
        low, high = each.first.interval
        mean, between = np.mean(accuracies), f"{low:.4f} to {high:.4f}"
        if len(accuracies) > 1:
            between = f"standard deviation {np.std(accuracies, ddof=1):.4f}"
        costs = (each.first.params, each.first.multiply_adds)
        rows.append([each.name, f"{mean:.4f}", between, str(len(accuracies)), *map(whole, costs)])
    title = "Trained by the same recipe, tested on the same images"
    return Table(title, columns, rows, titled=True, sortable=True)


def _verification(trainings: Sequence[Tested]) -> Table:
    """What sets of faces say of a network, over all its trainings."""
    headings = [Column("set", text=True), Column("measure", text=True), Column("value")]
    rows = []
    for name, answers in trainings[0].verification.items():
        for key in answers:
            values = [each.verification.get(name, {}).get(key, math.nan) for each in trainings]
            row = [name, metric(key).name, f"{np.mean(values):.4f}"]
            if len(values) > 1:
                row.append(f"{np.std(values, ddof=1):.4f}")
            rows.append(row)
    if len(trainings) > 1:
        headings.append(Column(f"deviation of {len(trainings)} trainings"))
    return Table("People whom the network had not seen", headings, rows, titled=True)


def _candidates(handle: OpenStudy, candidates: Sequence[Conclusion], searched: Metric) -> Folded:
    """The networks that the search would train next to the one found."""
    trials = handle.study.get_trials(deepcopy=False)
    columns = [
        Column("trial"),
        Column(f"validation {searched.name}"),
        Column("epochs"),
        Column("network", text=True),
    ]
    rows = [
        [
            str(each.number),
            f"{each.value:.4f}",
            f"{trial_epochs(trials[each.number]):,}",
            in_words(each.architecture)[0],
        ]
        for each in candidates
    ]
    table = Table("The best networks in the eyes of the strategy", columns, rows, titled=True)
    notes = [Paragraph(line) for line in incomparable(handle, candidates)]
    return Folded("Other networks that the search would train", [table, *notes])


def _human_designed(
    handle: OpenStudy, found: Found, costs: NetworkCosts, searched: Metric
) -> Table:
    columns = [
        Column("network", text=True),
        Column(f"validation {searched.name}"),
        Column("parameters"),
        Column("multiply-adds (one image)"),
    ]
    sizes = ("" if number is None else whole(number) for number in _sizes(handle, found))
    rows = [["the network found", f"{found.conclusion.value:.4f}", *sizes]]
    for network in costs.baselines:
        value = "" if network.accuracy is None else f"{network.accuracy:.4f}"
        numbers = [network.attribute(name) for name in ("params", "multiply_adds")]
        rows.append([network.name, value, *("" if n is None else whole(n) for n in numbers)])
    title = "Beside networks that people designed, on the validation images of the search"
    return Table(title, columns, rows, titled=True, sortable=True)
