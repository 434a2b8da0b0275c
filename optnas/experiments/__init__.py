"""Experiments made of many studies: `optnas rank` and `optnas compare`."""
