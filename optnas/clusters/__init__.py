"""Searches on engines that others run: Ray, Slurm."""
