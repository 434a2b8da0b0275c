"""What others add to optnas: entry points of installed packages, and modules beside a study."""
