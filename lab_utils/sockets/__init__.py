"""Clients of a registry over real WebSockets, and the server they talk to."""
