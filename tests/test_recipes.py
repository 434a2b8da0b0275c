"""The recipe of ImageNet's papers: schedules, averages, mixing, what decay spares, smoothing."""

import copy
import dataclasses

import pytest
import torch
import torchvision.transforms.v2
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LinearLR,
    LRScheduler,
    PolynomialLR,
    SequentialLR,
)
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from trainings import some

from optnas.config.recipes import initial_recipe, said_of
from optnas.config.settings import (
    DataSettings,
    RetrainSettings,
    SearchSettings,
    TrainSettings,
    check_cycles,
)
from optnas.objectives.data.images import Images, load_images
from optnas.objectives.networks.build import build_model
from optnas.objectives.training.losses import cross_entropy
from optnas.objectives.training.mixing import mixing_of
from optnas.objectives.training.optimizers import make_optimizer
from optnas.objectives.training.schedules import learning_rate
from optnas.objectives.training.search_rates import search_rates, warmup_epochs
from optnas.objectives.training.trainer import Trainer
from optnas.spaces import ChainArchitecture

EPOCHS = 12


@pytest.fixture(scope="module")
def few() -> Images:
    digits = load_images(DataSettings(name="digits", validation=60), seed=0)
    return some(digits, 130)


def torch_rates(make, warmup: int) -> list[float]:
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=0.5)
    schedule: LRScheduler = make(optimizer)
    if warmup:
        first = LinearLR(optimizer, start_factor=1 / (warmup + 1), total_iters=warmup)
        schedule = SequentialLR(optimizer, [first, make(optimizer)], [warmup])
    rates = []
    for _ in range(EPOCHS):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


@pytest.mark.parametrize("warmup", [0, 3])
@pytest.mark.parametrize(
    ("keys", "make"),
    [
        ({"schedule": "linear"}, lambda o, n: PolynomialLR(o, n, 1.0)),
        ({"schedule": "polynomial"}, lambda o, n: PolynomialLR(o, n, 2.0)),
        ({"schedule": "polynomial", "power": 0.9}, lambda o, n: PolynomialLR(o, n, 0.9)),
        ({"final_lr": 0.01}, lambda o, n: CosineAnnealingLR(o, n, eta_min=0.01)),
        ({}, lambda o, n: CosineAnnealingLR(o, n)),
    ],
)
def test_schedules_are_those_of_torch(keys, make, warmup):
    recipe = TrainSettings(lr=0.5, warmup_epochs=warmup, **keys)
    rates = [learning_rate(recipe, epoch, EPOCHS) for epoch in range(EPOCHS)]
    assert rates == pytest.approx(torch_rates(lambda o: make(o, EPOCHS - warmup), warmup))


def test_a_warm_up_needs_epochs_after_it():
    with pytest.raises(ValueError, match="`warmup_epochs` must be fewer than the 3 epochs: 3"):
        check_cycles(TrainSettings(warmup_epochs=3), 3)
    with pytest.raises(ValueError, match="must divide the 7 epochs after 3 of warm-up: 2"):
        check_cycles(TrainSettings(warmup_epochs=3, cycles=2), 10)
    check_cycles(TrainSettings(warmup_epochs=2, cycles=2), 10)


def test_the_papers_rates_of_searches():
    none = SearchSettings()
    assert search_rates(none, None) == (0.025, 0.0, 6e-4)
    assert search_rates(none, 1) == (0.025, 0.001, 3e-4)
    assert search_rates(none, 4) == (0.1, 0.0, 6e-4)
    said = SearchSettings(lr=0.5, architecture_lr=6e-3)
    assert search_rates(said, 1) == (0.5, 0.001, 6e-3)
    assert [warmup_epochs(none, partial) for partial in (None, 1, 4)] == [0, 0, 15]
    assert warmup_epochs(SearchSettings(operator_epochs=3), 4) == 1
    assert [warmup_epochs(SearchSettings(warmup_epochs=n), 4) for n in (0, 7)] == [0, 7]


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_smoothed_loss_is_that_of_torch(soft, smoothing):
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(8, 5, generator=generator), torch.arange(8) % 5
    target = torch.eye(5)[labels].roll(1, 0) * 0.3 + torch.eye(5)[labels] * 0.7 if soft else labels
    reference = nn.CrossEntropyLoss(label_smoothing=smoothing)(logits, target)
    assert cross_entropy(logits, target, smoothing=smoothing) == reference
    weighted = cross_entropy(logits, target, torch.ones(5), smoothing)
    assert weighted.item() == pytest.approx(reference.item())


def test_weight_decay_spares_norms_and_biases():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    recipe = TrainSettings(decay_norms=False, decay_biases=False, nesterov=True)
    decayed, spared = make_optimizer(list(model.parameters()), recipe, model).param_groups
    names = {id(p): name for name, p in model.named_parameters()}
    assert {names[id(p)] for p in decayed["params"]} == {"0.weight", "3.weight"}
    assert {names[id(p)] for p in spared["params"]} == {"0.bias", "1.weight", "1.bias", "3.bias"}
    assert (decayed["weight_decay"], spared["weight_decay"]) == (3e-4, 0.0)
    assert decayed["nesterov"]
    biases = TrainSettings(decay_biases=False)
    spared = make_optimizer(list(model.parameters()), biases, model).param_groups[1]
    assert {names[id(p)] for p in spared["params"]} == {"0.bias", "1.bias", "3.bias"}


@pytest.mark.parametrize(
    ("keys", "kind"), [({"mixup": 0.4}, "MixUp"), ({"cutmix": 1.0}, "CutMix")]
)
def test_mixing_is_that_of_torchvision(keys, kind):
    images = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = torch.arange(6) % 3
    mixing = mixing_of(TrainSettings(**keys), 3)
    before = torch.get_rng_state()
    inputs, targets = mixing(images, labels, torch.Generator().manual_seed(7))
    assert torch.equal(torch.get_rng_state(), before)
    with torch.random.fork_rng():
        torch.manual_seed(7)
        reference = getattr(torchvision.transforms.v2, kind)(
            alpha=next(iter(keys.values())), num_classes=3
        )
        expected = reference(images, labels)
    torch.testing.assert_close((inputs, targets), tuple(expected), rtol=0, atol=0)
    assert torch.allclose(targets.sum(1), torch.ones(6))


def test_both_kinds_of_mixing_take_turns():
    mixing = mixing_of(TrainSettings(mixup=1.0, cutmix=1.0), 2)
    images = torch.stack((torch.zeros(1, 8, 8), torch.ones(1, 8, 8)))
    generator = torch.Generator().manual_seed(0)
    mixed = [mixing(images, torch.tensor([0, 1]), generator)[0] for _ in range(40)]
    pasted = [set(batch.flatten().tolist()) <= {0.0, 1.0} for batch in mixed]
    assert 8 < sum(pasted) < 32


def trainer(few: Images, **keys) -> Trainer:
    model = build_model(
        ChainArchitecture(2, 4), few.input_shape, few.classes, torch.Generator().manual_seed(3)
    )
    recipe = TrainSettings(lr=0.1, batch_size=32, **keys)
    return Trainer(model, few, recipe, epochs=3, seed=5)


def test_the_average_is_that_of_torch_and_is_judged(few):
    averaged = trainer(few, ema=0.9)
    plain = trainer(few)
    reference = AveragedModel(
        plain.model, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True
    )
    step = plain._step

    def followed(inputs, labels):
        outputs = step(inputs, labels)
        reference.update_parameters(plain.model)
        return outputs

    plain._step = followed
    for _ in range(3):
        ours, theirs = averaged.train_epoch(), plain.train_epoch()
        assert ours.train_loss == theirs.train_loss
    expected = reference.module.state_dict()
    for name, tensor in averaged.judged.state_dict().items():
        assert torch.equal(tensor, expected[name]), name
    assert plain.judged is plain.model
    accuracy = averaged.evaluate(few.validation_images, few.validation_labels)
    assert accuracy == averaged.history[-1].validation_accuracy


WHOLE = {
    "warmup_epochs": 1,
    "schedule": "linear",
    "label_smoothing": 0.1,
    "mixup": 0.2,
    "cutmix": 1.0,
    "ema": 0.9,
    "decay_norms": False,
    "decay_biases": False,
}


def test_a_whole_recipe_resumes_bitwise(few):
    undisturbed, first, second = (trainer(few, **WHOLE) for _ in range(3))
    for _ in range(3):
        undisturbed.train_epoch()
    first.train_epoch()
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    while second.epoch < 3:
        second.train_epoch()
    assert second.history == undisturbed.history
    for name, tensor in second.judged.state_dict().items():
        assert torch.equal(tensor, undisturbed.judged.state_dict()[name])


def test_mixed_images_are_learnt_from_and_counted_by_their_own_labels(few):
    result = trainer(few, mixup=1.0).train_epoch()
    assert result.train_loss != trainer(few).train_epoch().train_loss
    assert 0 < result.train_accuracy < 1


def test_what_is_usual_goes_unsaid():
    said = said_of(TrainSettings())
    unsaid = {*WHOLE, "graphs", "kernels", "epochs", "cycles"} - {"schedule"}
    assert not said.keys() & unsaid
    assert said_of(TrainSettings(kernels="torch")) == said
    assert said_of(TrainSettings(ema=0.5, cycles=2)).keys() - said.keys() == {"ema", "cycles"}


def test_an_initial_network_has_a_recipe_of_its_own():
    recipe = TrainSettings(epochs=8, cycles=2, initial_epochs=9, initial_drop_path=0.4)
    initial = initial_recipe(recipe)
    assert (initial.epochs, initial.cycles, initial.drop_path) == (9, 1, 0.4)
    assert initial.weight_decay == recipe.weight_decay
    assert initial_recipe(TrainSettings(initial_weight_decay=0.5, cycles=2)).cycles == 2
    assert said_of(initial).keys() == said_of(TrainSettings()).keys()


def test_a_retraining_may_have_any_recipe():
    names = set(TrainSettings.model_fields)
    searched = {"initial_epochs", "initial_weight_decay", "initial_drop_path"}
    assert names - set(RetrainSettings.model_fields) == searched
    computed = {
        **{"precision": "float32", "threads": 2, "deterministic": True, "graphs": False},
        "class_weights": "balanced",
        "kernels": "torch",
    }
    recipe = RetrainSettings(**WHOLE, **computed).recipe(TrainSettings(lr=0.3))
    assert {name: getattr(recipe, name) for name in WHOLE | computed} == WHOLE | computed
    assert recipe.lr == 0.3


def test_results_are_compared_without_their_seconds(few):
    result = trainer(few).train_epoch()
    assert dataclasses.replace(result, seconds=-1.0) == result
