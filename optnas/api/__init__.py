"""optnas from Python and from notebooks: what the commands do, with Python's own answers."""

import warnings

# Optuna's progress bar says in every notebook that it could be prettier; no bar of it is shown.
warnings.filterwarnings("ignore", message="IProgress not found")
