"""How fast, how heavy, how large: figures beside a floor that is measured in the same run. `python -m tests.bench`."""
