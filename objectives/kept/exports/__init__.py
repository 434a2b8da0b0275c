"""Kept networks in the forms that other programs and devices run."""
