"""Objectives that train networks."""
