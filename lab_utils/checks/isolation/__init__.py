"""Checks of the category user_isolation."""
