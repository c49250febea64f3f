"""Budgets: what meets one, which counts are allowed, and the projection onto one."""
