"""The study file: read, checked, resolved, and turned into what it names."""
