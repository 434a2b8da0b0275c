"""Networks that `optnas retrain` keeps: alone, as ensembles, and as donors."""
