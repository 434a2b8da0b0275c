"""The objective of searches on super-networks: what a network's training is, and more phases."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.trial import Trial

from optnas.config.contract import strategy_of
from optnas.config.settings import SearchSettings
from optnas.errors import UserError
from optnas.objectives.classification import Classification
from optnas.objectives.data.images import Images
from optnas.objectives.data.splits import draw_shares
from optnas.objectives.networks.build import build_supernet
from optnas.objectives.networks.supernet import MixedNetwork
from optnas.objectives.rehearsal import Rehearsal
from optnas.objectives.tabular import Tabular
from optnas.objectives.training.at_work import at_work
from optnas.objectives.training.bilevel import BilevelTrainer, SearchRecipe
from optnas.objectives.training.neighbours import here
from optnas.objectives.training.records import record_memory
from optnas.objectives.training.search_rates import search_rates, warmup_epochs
from optnas.objectives.training.trial_training import TrialTraining
from optnas.seeds import derive_seed, study_seed
from optnas.spaces import (
    Architecture,
    NasBench201Space,
    Space,
    Topology,
    TopologySpace,
    proposal,
)
from optnas.spaces.topology import NONE
from optnas.trials.attributes import (
    ARCHITECTURE_PHASE,
    EDGE_WEIGHTS,
    OPERATION_WEIGHTS,
    OPERATORS_PHASE,
    PHASE,
    TOPOLOGY_PHASE,
    TRAINING_SEED,
)
from optnas.trials.claims import queued_params

DEFAULTS = SearchSettings.model_validate({})
CHANNELS = 16
"""Channels of a super-network's first cells, unless told otherwise."""
PLAIN = {
    **{"optimizer": "sgd", "cycles": 1, "milestones": None, "warmup_epochs": 0, "ema": 0.0},
    **{"drop_path": 0.0, "auxiliary": 0.0, "label_smoothing": 0.0, "mixup": 0.0, "cutmix": 0.0},
}
"""What of the networks' recipe is not for super-networks."""
EIGENVALUES = "eigenvalues"
"""User attribute: the largest eigenvalue of the loss's Hessian, one per epoch of a search."""


class SupernetClassification(Classification):
    """Objective of searches on super-networks: it trains these, and the networks that they find.

    The sampler's parameter ``phase`` says what a trial does. ``"architecture"`` trains a network,
    as :class:`optnas.objectives.classification.Classification` does, and so does every trial of
    a sampler without phases. ``"topology"`` trains a super-network with one operation on all
    edges, and ``"operators"`` one with all operations, on the edges that the parameters
    ``{kind}_pair_{state}`` name, or on all. Both report the super-network's validation accuracy
    after every epoch, record the user attributes ``edge_weights``, ``operation_weights`` and,
    if asked for, ``eigenvalues``, and end pruned, because a super-network's accuracy is not to
    be compared with a network's. A ``"topology"`` with named edges is that of a network, which is
    trained with one operation on all these edges, and ends pruned too.

    A search that was cut off goes on from its checkpoint and ends the same; no pruner cuts it
    short. It is a pure function of the study's seed, the phase and the edges.

    The weights of a super-network and its architecture learn from two shares of the training
    split; the validation split judges it.

    Args:
        space: The space of cells.
        images: The images, split.
        search: How super-networks are built and trained.
        table: Path of a table in which architectures are looked up instead of being trained; see
            `Tabular`.
        column: The table's column of accuracies.
        options: What `Classification` takes.

    Raises:
        UserError: If ``search`` does not fit the space or the images, or the table cannot be read.
    """

    def __init__(
        self,
        space: Space[Any],
        images: Images,
        *,
        search: SearchSettings = DEFAULTS,
        table: Path | None = None,
        column: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(space, images, **options)
        self._search = search
        if (table is None) != (column is None):
            raise UserError("objective: give `table` and `column` together, or neither.")
        self._table = None
        if table is not None and column is not None:
            self._table = Tabular(space, table, column, limits=self._limits)
        try:
            self._topologies = TopologySpace(space)  # type: ignore[arg-type]
            known = self._topologies.operations
            chosen = search.operations
            if (
                not set(chosen) <= set(known)
                or chosen == (NONE,)
                or len(set(chosen)) < len(chosen)
            ):
                operations = tuple(name for name in known if name != NONE)
                raise ValueError(
                    f"`operation` must be one of {operations}, or several different ones, with "
                    f"{NONE!r} or without: {search.operation!r}."
                )
            # As every search will do it: what does not fit shows now.
            for phase in (TOPOLOGY_PHASE, OPERATORS_PHASE):
                self._supernet(phase, None, 0)
            shares = (search.weight_share, search.architecture_share)
            draw_shares(images.train_labels.cpu(), shares, 0)
        except (TypeError, ValueError) as error:
            raise UserError(f"objective.search: {error}") from None

    def _judge(self, trial: Trial) -> float:
        phases = strategy_of(trial.study.sampler).phases
        phase = ARCHITECTURE_PHASE if phases is None else trial.suggest_categorical(PHASE, phases)
        if phase == ARCHITECTURE_PHASE:
            return super()._judge(trial) if self._table is None else self._table(trial)
        frozen = trial.storage.get_trial(trial._trial_id)
        named = proposal(trial).keys() | queued_params(frozen).keys()
        edges = None
        if not named.isdisjoint(self._topologies.choices):
            edges = self._topologies.suggest(trial)
        self._record_circumstances(trial)
        with at_work(trial, self.train, self.device):
            if phase == TOPOLOGY_PHASE and edges is not None:
                self._try_topology(trial, edges)
            else:
                self._train_supernet(trial, phase, edges)
        raise optuna.TrialPruned(f"It serves the search for {phase} alone.")

    def _try_topology(self, trial: Trial, edges: Topology) -> None:
        """Train a network with the simple operation on its edges, or look it up."""
        operations = self._search.operations
        if len(operations) > 1:
            raise UserError(
                "objective.search.operation: a discrete search for edges trains networks with one "
                f"operation, not {len(operations)}"
            )
        simple = self._topologies.architecture(edges, operations[0])
        if self._table is None:
            self._evaluate(trial, simple)
            return
        value = self._table.look_up(trial, simple)
        if not trial.storage.get_trial(trial._trial_id).intermediate_values:
            # A pruned trial has the value that it reported.
            trial.report(value, trial.user_attrs.get("epochs_trained", 1))

    def rehearse(
        self,
        architecture: Architecture | None,  # None for a super-network
        *,
        phase: str = "",
        seconds: float | None = 0.25,
        images: int | None = None,
        full: bool = False,
    ) -> Rehearsal:
        if architecture is not None:
            return super().rehearse(
                architecture, phase=phase, seconds=seconds, images=images, full=full
            )
        counted = self._counted(
            self._supernet(phase, None, 0), self._shown, self._search_epochs(phase)
        )
        seen = round(self._search.weight_share * counted.images)
        if phase == TOPOLOGY_PHASE and self._search.iterations is not None:
            seen = self._search.iterations * self._search.batch_size
        counted = dataclasses.replace(counted, images=seen)
        if seconds is None:
            return counted
        # Steps of a warm-up are shorter than most.
        searching = functools.partial(self._searching, phase, None, 0, warms_up=False)
        return self._timed(searching, counted, images, seconds)

    def _train_supernet(self, trial: Trial, phase: str, edges: Topology | None) -> None:
        """Train a super-network, and record what it has learnt."""
        shown = None if edges is None else edges.to_json()
        seed = derive_seed(study_seed(trial.study, self._seed), "search", phase, shown)
        trial.set_user_attr(TRAINING_SEED, seed)

        def begun() -> tuple[BilevelTrainer, TrialTraining]:
            trainer = self._searching(phase, edges, seed)
            training = self._training(trial, trainer, prunable=False)
            training.resume(trial.storage.get_all_trials(trial.study._study_id, deepcopy=False))
            return trainer, training

        trainer, training = here().fitting(begun)
        try:
            training.run(self._search_epochs(phase))
        finally:
            record_memory(trial, self.device)
        trial.set_user_attr(EDGE_WEIGHTS, trainer.model.edge_weights())
        if phase == OPERATORS_PHASE:
            trial.set_user_attr(OPERATION_WEIGHTS, trainer.model.operation_weights())
        if self._search.eigenvalue:
            trial.set_user_attr(EIGENVALUES, trainer.eigenvalues)

    def _search_epochs(self, phase: str) -> int:
        search = self._search
        return search.epochs or 1 if phase == TOPOLOGY_PHASE else search.operator_epochs

    def _searching(
        self, phase: str, edges: Topology | None, seed: int, *, warms_up: bool = True
    ) -> BilevelTrainer:
        """The training of a super-network, not begun."""
        search = self._search
        partial = search.partial or (1 if isinstance(self.space, NasBench201Space) else 4)
        is_whole = phase == OPERATORS_PHASE and edges is None
        whole_partial = partial if is_whole else None
        rates = search_rates(search, whole_partial)
        warmup = warmup_epochs(search, whole_partial) if phase == OPERATORS_PHASE else 0
        recipe = SearchRecipe(
            iterations=search.iterations if phase == TOPOLOGY_PHASE else None,
            weight_share=search.weight_share,
            architecture_share=search.architecture_share,
            lr=rates.architecture,
            weight_decay=search.architecture_weight_decay,
            second_order=search.second_order,
            eigenvalue=search.eigenvalue,
            warmup_epochs=warmup if warms_up else 0,
        )
        weights = self.train.model_copy(
            update={
                **search.model_dump(include={"weight_decay", "batch_size", "schedule"}),
                **{"lr": rates.weights, "final_lr": rates.end, **PLAIN},
            }
        )
        epochs = self._search_epochs(phase)
        supernet = self._supernet(phase, edges, seed).to(self.device)
        return BilevelTrainer(supernet, self._shown, weights, recipe, epochs=epochs, seed=seed)

    def _supernet(self, phase: str, edges: Topology | None, seed: int) -> MixedNetwork:
        """A super-network with fresh weights."""
        options = self._search.model_dump(
            include={"cells", "channels", "partial"}, exclude_none=True
        )
        if "stem" in self._network:
            options["stem"] = self._network["stem"]
        if self._proxy is not None:
            options["channels"] = self._proxy.channels(options.get("channels", CHANNELS))
        if phase == TOPOLOGY_PHASE:
            options["operations"] = self._search.operations
        else:
            options |= {
                "operations": self._topologies.operations,
                "edge_weights": self._search.edge_weights,
                "topology": None if edges is None else dict(edges.cells),
            }
        generator = torch.Generator().manual_seed(seed)
        shape, classes = self._shown.input_shape, self._shown.classes
        return build_supernet(self.space, shape, classes, generator, **options)
