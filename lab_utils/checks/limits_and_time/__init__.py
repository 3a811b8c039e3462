"""Checks of the category limits_and_time."""
