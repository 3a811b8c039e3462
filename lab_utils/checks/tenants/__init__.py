"""Checks of the category enterprise_multi_user."""
