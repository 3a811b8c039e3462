"""Checks of services behind a URL, from outside: many clients at once."""
