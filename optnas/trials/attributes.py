"""The names of everything that optnas writes on a trial.

Claims, leases and rungs are system attributes, not for readers; everything that a person may want
to see is a user attribute.
"""

from typing import Literal

CLAIM = "optnas:claim"
LEASE = "optnas:lease"
CHECKPOINT = "optnas:checkpoint"
"""The mark of a trial's training state: its name, checksum, bytes and epoch."""
RUNG = "optnas:rung"
"""Number of multiples of its epochs that a hierarchical pruner saw the trial reach."""

PARENT = "parent"
"""Parameter, or user attribute: number of the trial that a network starts from."""
ARCHITECTURE = "architecture"
"""User attribute: the architecture as JSON, where the parameters alone do not say it."""
TRAINING_SEED = "training_seed"
"""User attribute: what a trial's training is a function of, besides the images and the recipe."""
INHERITED = "inherited_tensors"
"""User attribute: how many of the network's tensors came from its parent."""
CONTINUES = "continues"
EPOCHS_TRAINED = "epochs_trained"
"""How many epochs a trial itself trained."""
ACCUMULATION = "accumulation"
"""Number of parts in which every batch was trained on, for want of memory."""
SCHEDULE = "schedule_epochs"
"""Epochs of the learning rate's schedule, where a trial trains only the beginning of it."""
FAILURE = "failure"
FAILURE_REASON = "failure_reason"
PHASE = "phase"
"""What a trial does: a user attribute; where trials are of several kinds, a parameter too."""
TOPOLOGY_PHASE = "topology"
OPERATORS_PHASE = "operators"
ARCHITECTURE_PHASE = "architecture"
PHASES = (TOPOLOGY_PHASE, OPERATORS_PHASE, ARCHITECTURE_PHASE)
"""The values of the parameter: a search for edges, one for operations, a network's training."""
EDGE_WEIGHTS = "edge_weights"
"""How strong a super-network's edges are: by kind of cell, node and predecessor."""
OPERATION_WEIGHTS = "operation_weights"
"""How strong the operations of every edge are, in the space's order; softmaxed."""
HUMAN_DESIGNED = "human_designed"
"""What a network is called that people designed and no strategy proposed."""
STAGE_IMPORTANCE = "stage_importance"
"""How important each stage is: a list of numbers, which the stage-wise search reads."""
MULTIPLY_ADDS = "multiply_adds"
"""What a network costs: multiply-adds for one image."""
TRAIN_ACCURACY = "train_accuracy"
TRAIN_SECONDS = "train_seconds"
TRAIN_JOULES = "train_joules"
"""Energy of a training that came to its end, where the device counted that of every epoch."""
DEVICE_MEMORY = "device_memory"
"""What a GPU's memory held when a training ended: see `optnas.objectives.training.memory`."""

MAX_EPOCHS = 1_000_000
"""The parameter ``epochs`` is suggested from 1 to this."""

LOST: Literal["lost"] = "lost"
CANDIDATE: Literal["candidate"] = "candidate"
INTERRUPTED = "interrupted"
"""The reason of a loss that was wanted (Ctrl-C, a budget's end): it is no failed attempt."""
