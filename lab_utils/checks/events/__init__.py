"""Checks of the category websocket_bridge."""
