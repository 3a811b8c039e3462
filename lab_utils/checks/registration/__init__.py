"""Checks of the category registration_management."""
