"""Engines in processes of their own: replicas that may die, hang and be replaced while the worker serves."""
