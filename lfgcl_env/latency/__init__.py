"""Latency: networks measured beside each other, and tables that predict a strategy's time."""
