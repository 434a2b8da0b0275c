"""Studies run, by one process or several, and what they found trained fully."""
