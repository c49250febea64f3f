"""Training baselines from scratch, as benchmarks/train_baseline.py does."""
