"""What optnas writes on a trial: attributes, claims, leases, failures, lineage."""

from optnas.trials.attributes import PHASES

__all__ = ["PHASES"]
