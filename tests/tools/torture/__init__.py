"""What `make torture` runs: kills, fuzzed cases, faults, and a million steps; see ``__main__.py``."""
