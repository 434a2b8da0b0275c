"""The study files in studies/ are valid, and the demonstration really searches."""

from pathlib import Path

import pytest

import optnas
from optnas.config.file import load_study_file
from optnas.config.recipes import initial_recipe

STUDIES = Path(__file__).parents[1] / "studies"
FILES = sorted(path.name for path in STUDIES.glob("*.yaml"))
WIDTH = {"tiny": (16, 64), "mobile": (16, 128)}
MACRO_MICRO = [
    f"{name}_{size}.yaml"
    for name in ("cifar10", "cifar100", "fashion_mnist", "emnist", "kmnist")
    for size in WIDTH
]
ECONAS = ["digits_econas.yaml", "cifar10_econas.yaml", "nasbench201_econas.yaml"]
RANDGROW = {
    "cifar10_randgrow.yaml": (6, "macro"),
    "cifar10_randgrow_n3.yaml": (3, "macro"),
    "cifar10_randgrow_cell.yaml": (6, "cell"),
}
FTSO = ["digits", "fashion", "cifar10", "cifar100", "imagenet", "nasbench201"]
FTSO = [*(f"{name}_ftso.yaml" for name in FTSO), "cifar10_ftso_operators.yaml"]
DARTS = ["cifar10_darts.yaml", "nasbench201_darts.yaml"]
FACES = ["orl_faces.yaml", "casia_faces_small.yaml", "casia_faces_medium.yaml"]
STAGEWISE_ALSO = ["cifar10_stagewise_transfer.yaml", "tiny_imagenet_stagewise.yaml"]
TRANSFERS = [f"cifar10_{name}_imagenet.yaml" for name in ("ftso", "econas", "randgrow")]
BASELINES = ["cifar10_binary.yaml", "cifar10_random.yaml"]
STAGEWISE = {
    "digits_stagewise.yaml": ("basic", 2, 1, 3),
    "cifar10_stagewise.yaml": ("basic", 6, 2, 5),
    "cifar10_stagewise_nasnet.yaml": ("nasnet", 2, 1, 5),
    "imagenet_stagewise.yaml": ("bottleneck", 2, 1, 5),
}


def test_every_study_is_there():
    assert sorted(FILES) == sorted(
        [
            "digits.yaml",
            "digits_randgrow.yaml",
            *BASELINES,
            *TRANSFERS,
            *STAGEWISE_ALSO,
            *MACRO_MICRO,
            *ECONAS,
            *RANDGROW,
            *STAGEWISE,
            *FTSO,
            *DARTS,
            *FACES,
        ]
    )


@pytest.mark.parametrize("name", FILES)
def test_files_are_valid_and_name_their_study_after_themselves(name):
    config = load_study_file(STUDIES / name)
    assert config.study == name.removesuffix(".yaml").replace("_", "-")


@pytest.mark.parametrize("name", MACRO_MICRO)
def test_the_papers_searches_have_its_settings(name):
    """Efficient Global NAS, section 4.1."""
    config = load_study_file(STUDIES / name)
    stem, size = name.removesuffix(".yaml").rsplit("_", 1)
    space = config.make_space()
    assert (space.depth, space.width) == ((10, 100), WIDTH[size])
    options = config.sampler.options
    assert config.sampler.name == "macro_micro"
    assert (options["width_step"], options["epochs"], options["micro_epochs"]) == (2, 10, 2)
    assert (options["gain"], options["drop"], options["strikes"]) == (0.001, 0.0005, 3)
    train = config.train
    assert (train.optimizer, train.lr, train.momentum) == ("sgd", 0.025, 0.9)
    assert (train.weight_decay, train.batch_size, train.schedule) == (3e-4, 64, "cosine")
    assert config.data.name == ("emnist_balanced" if stem == "emnist" else stem)
    assert config.data.download
    assert config.retrain.epochs == (50 if stem == "emnist" else 600)


def test_the_search_of_econas_has_the_papers_setting():
    """EcoNAS, sections 4 and 5.1."""
    config = load_study_file(STUDIES / "cifar10_econas.yaml")
    assert str(config.proxy) == "c4r4s0e60"
    assert (config.network.channels, config.proxy.channels(36), config.proxy.side(32)) == (
        36,
        9,
        8,
    )
    assert (config.pruner.options["epochs"], config.train.epochs) == (20, 60)
    assert config.train.batch_size == 384
    assert config.sampler.options["initial"] == 50
    assert config.sampler.options["parents"] == [6, 5, 5]
    assert (config.retrain.epochs, config.retrain.drop_path) == (600, 0.2)


@pytest.mark.parametrize("name", RANDGROW)
def test_the_searches_of_randgrow_have_the_papers_setting(name):
    """Macro Neural Architecture Search Revisited, sections 2 and 3."""
    config = load_study_file(STUDIES / name)
    initial = config.make_space().initial()
    assert (initial.cells, initial.mode, initial.channels) == (*RANDGROW[name], 32)
    train = config.train
    assert (train.epochs, train.cycles, train.initial_epochs) == (160, 2, 600)
    assert (train.lr, train.batch_size, train.schedule) == (0.025, 32, "cosine")
    assert set(config.data.augment) == {"crop", "flip", "cutout"}
    assert config.data.validation == 5000
    final = config.retrain.recipe(train)
    assert (final.epochs, final.cycles, final.batch_size) == (600, 1, 32)
    initial = initial_recipe(train)
    for key in ("epochs", "cycles", "lr", "weight_decay", "drop_path"):
        assert getattr(initial, key) == getattr(final, key)
    assert (config.retrain.repeats, final.drop_path, final.weight_decay) == (5, 0.4, 5e-4)


@pytest.mark.parametrize("name", TRANSFERS)
def test_what_was_found_on_cifar_is_trained_on_imagenet(name):
    """FTSO, appendix A.1; EcoNAS, section 5.1; RandGrow, section 3."""
    config = load_study_file(STUDIES / name)
    found = load_study_file(STUDIES / name.replace("_imagenet", ""))
    assert (config.space, config.train, config.data) == (found.space, found.train, found.data)
    assert (config.sampler, config.objective) == (found.sampler, found.objective)
    retrain = config.retrain
    assert retrain.network.channels == 48
    assert retrain.network.cells == (None if "randgrow" in name else 14)
    assert (retrain.data.size, retrain.data.stream, retrain.epochs) == (224, True, 250)
    if "ftso" in name:
        assert (retrain.lr, retrain.schedule, retrain.warmup_epochs) == (0.5, "linear", 5)


@pytest.mark.parametrize("name", FTSO)
def test_the_searches_of_ftso_have_the_papers_setting(name):
    """FTSO, section 4 and appendix A.1; on digits in small."""
    config = load_study_file(STUDIES / name)
    sampler, search = config.sampler.options, config.objective.options["search"]
    gradient = name == "cifar10_ftso_operators.yaml"
    assert sampler["operators"] == ("gradient" if gradient else "replace")
    assert sampler["topology_search"] == "gradient"
    assert search["operation"] == "skip_connect"
    assert (search["epochs"], search["operator_epochs"]) == (50 if gradient else 1, 50)
    shares = (search["weight_share"], search["architecture_share"])
    large = name == "imagenet_ftso.yaml"
    assert shares == ((0.1, 0.025) if large else (0.5, 0.5))
    assert (search["lr"], search["architecture_lr"]) == ((0.5, 6e-3) if large else (0.025, 6e-4))
    if config.space.name == "nasbench201":
        assert (search["cells"], search["channels"], search["partial"]) == (15, 16, 1)
    elif name != "digits_ftso.yaml":
        assert (search["cells"], search["channels"], search["partial"]) == (8, 16, 4)
        assert config.network.concat == "all"
    if name.startswith("cifar"):
        assert (config.network.cells, config.network.channels) == (20, 36)
        final = config.retrain.recipe(config.train)
        assert (final.epochs, final.lr, final.batch_size) == (600, 0.025, 96)
        assert (final.drop_path, final.auxiliary) == (0.3, 0.4)
    if large:
        final = config.retrain.recipe(config.train)
        assert (config.network.cells, config.network.channels) == (14, 48)
        assert (final.epochs, final.lr) == (250, 0.5)


@pytest.mark.parametrize("name", DARTS)
def test_the_baseline_of_ftso_is_plain_darts(name):
    """DARTS, section 3.1; EcoNAS, table 5."""
    config = load_study_file(STUDIES / name)
    search = config.objective.options["search"]
    assert (search["partial"], search["edge_weights"], search["operator_epochs"]) == (1, False, 50)
    assert search["batch_size"] == 64
    if config.space.name == "cell":
        assert str(config.proxy).startswith("c4r2s0")
        assert config.proxy.channels(search["channels"]) == 9


@pytest.mark.parametrize("name", STAGEWISE)
def test_the_stage_wise_searches_have_the_papers_setting(name):
    """Stage-Wise Neural Architecture Search, section IV."""
    config = load_study_file(STUDIES / name)
    space, options = config.make_space(), config.sampler.options
    found = (space.block, options["initial"], options["growth"], options["iterations"])
    assert found == STAGEWISE[name]
    train, objective = config.train, config.objective.options
    if name != "digits_stagewise.yaml":
        assert (train.lr, train.schedule, train.weight_decay) == (0.01, "step", 1e-4)
        assert (train.batch_size, set(config.data.augment)) == (128, {"crop", "flip"})
    if name.startswith("cifar10"):
        assert (train.epochs, objective["further_epochs"], config.retrain.epochs) == (
            200,
            100,
            300,
        )
    if name.startswith("imagenet"):
        assert (train.epochs, space.stages, config.data.stream) == (50, 4, True)
        assert (objective["further_epochs"], train.milestones) == (100, (100, 150))
        assert objective["transfer"] == str(STUDIES / "resnet152.pth")


def test_the_demonstration_grows_and_prunes(tmp_path):
    path = tmp_path / "digits.yaml"
    path.write_text((STUDIES / "digits.yaml").read_text())
    outcome = optnas.run(path)
    assert outcome.ending == "finished"
    trials = outcome.study.trials
    depth, width = (
        [t for t in trials if t.user_attrs["phase"] == phase] for phase in ("depth", "width")
    )
    # The width phase stays at the depth that was accepted last.
    assert {t.params["depth"] for t in width} == {outcome.best.architecture.depth}
    assert outcome.best.architecture.depth > depth[0].params["depth"] == 2
    assert max(t.value for t in depth) >= depth[0].value + 0.001
    assert min(t.params["width"] for t in width) < depth[0].params["width"] == 24
    micro = [t for t in trials if t.user_attrs["phase"] in ("operations", "kernels")]
    assert len(micro) == 2 * outcome.best.architecture.depth
