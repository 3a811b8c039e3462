"""Checks of the category memory_management."""
