"""Checks of the category golden_path."""
