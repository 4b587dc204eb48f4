"""What the master server reaches: `python benchmarks/master/run.py`."""
