"""Tuning the settings of Stable-Baselines3's algorithms."""
