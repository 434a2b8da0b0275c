"""The comparison on real images: what is trained once, what a search may spend, what it finds."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from optuna.samplers import RandomSampler

from optnas.objectives.data.augment import Augmentation
from optnas.objectives.data.images import Images
from optnas.samplers import MacroMicroSampler
from optnas.spaces import CellArchitecture, ChainArchitecture

CHAIN = ChainArchitecture(2, 4)


@pytest.fixture
def real_table(monkeypatch):
    """The benchmark, with twenty images of noise."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    import real_table

    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (20, 1, 8, 8), generator=rng, dtype=torch.uint8)
    labels = torch.arange(20) % 2
    noise = Images(*(pixels, labels) * 3, class_names=("a", "b"), augmentation=Augmentation())
    monkeypatch.setattr(real_table, "images", lambda name, data: noise)
    monkeypatch.setattr(real_table, "TEST", 10)
    monkeypatch.setattr(real_table, "FINAL_EPOCHS", 1)
    return real_table


def remembered(real_table, folder: Path, name: str = "fashion_mnist-chain"):
    return real_table.Memory(real_table.TABLES[name], folder, folder / "trainings.jsonl")


def test_what_was_trained_is_known_after_a_kill(real_table, tmp_path, monkeypatch):
    first = remembered(real_table, tmp_path)
    trained = [first.candidate(CHAIN, 2), first.candidate(CHAIN, 1, 1), first.final(CHAIN)]
    assert [len(training.curve) for training in trained] == [2, 1, 0]
    file = tmp_path / "trainings.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:50])
    again = remembered(real_table, tmp_path)
    assert file.read_bytes() == whole
    monkeypatch.setattr(real_table, "Trainer", None)  # Nothing is trained twice.
    assert [again.candidate(CHAIN, 2), again.candidate(CHAIN, 1, 1), again.final(CHAIN)] == trained


def test_networks_that_only_name_their_edges_otherwise_are_one(real_table, tmp_path):
    a, b = ("max_pool_3x3", 0), ("sep_conv_3x3", 1)
    memory = remembered(real_table, tmp_path, "cifar10-cell")
    one = memory.candidate(CellArchitecture(((a, b),), ((a, a),)), 1)
    assert memory.candidate(CellArchitecture(((b, a),), ((a, a),)), 1) is one
    assert memory.candidate(CellArchitecture(((b, b),), ((a, a),)), 1) is not one


@dataclasses.dataclass
class Wide:
    """Networks are as good as they are wide, and better after every epoch."""

    real_table: object
    asked: list = dataclasses.field(default_factory=list)

    def candidate(self, network, epochs=9, seed=0):
        self.asked.append((network, epochs, seed))
        curve = [network.width / 100 + epoch / 1000 for epoch in range(epochs)]
        return self.real_table.Training(curve, 0.5)


def test_a_search_hands_over_the_best_that_its_budget_has_trained_fully(real_table):
    memory = Wide(real_table)
    found = real_table.searched(memory, real_table.CHAINS, RandomSampler(0), "", 0)
    fully = [network.width for network, *_ in memory.asked]
    assert [network.width for network in found] == [max(fully[:11]), max(fully[:33])]
    assert len(memory.asked) == 34  # The last one does not fit into 300 epochs.


def test_rungs_stop_most_trainings_early_and_a_stopped_one_is_never_found(real_table):
    memory = Wide(real_table)
    real_table.searched(memory, real_table.CHAINS, RandomSampler(0), "+rungs", 0)
    assert len(memory.asked) > 60


def test_macro_micro_trains_anew_with_every_seed_and_ends_by_itself(real_table):
    memory = Wide(real_table)
    space = real_table.CHAINS
    macro = MacroMicroSampler(space, in_channels=1, classes=10, epochs=5, micro_epochs=5)
    found = real_table.searched(memory, space, macro, "", 3)
    assert {seed for *_, seed in memory.asked} == {4}
    assert sum(epochs for _, epochs, _ in memory.asked) <= 100
    assert [network.width for network in found] == [10, 10]


def test_every_network_of_the_small_cells_can_be_drawn_and_changed(real_table):
    space, rng = real_table.SmallCells(), np.random.default_rng(0)
    drawn = {real_table.canonical(space.random(rng)) for _ in range(5000)}
    assert len(drawn) == 210
    changed = {real_table.canonical(space.mutate(space.random(rng), rng)) for _ in range(500)}
    assert changed <= drawn


def test_the_mean_over_tables_is_of_those_that_search_them_all(real_table):
    seeds = np.arange(6.0).reshape(3, 2) / 100
    chains = {"random": seeds, "surrogate": seeds + 0.02, "macro_micro": seeds}
    cells = {"random": seeds, "surrogate": seeds + 0.04}
    lines = list(real_table.over_all([{"final": chains}, {"final": cells}]))
    assert lines[0] == "\nMean over 2 tables, final"
    leads = [line for line in lines if line.startswith("surrogate  ") and "[" in line]
    assert len(leads) == 2
    assert all("+3.00 [3.00, 3.00]" in line for line in leads)
    assert not any("macro_micro" in line for line in lines)
