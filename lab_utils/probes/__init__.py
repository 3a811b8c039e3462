"""Measurements: live objects, tasks and timers exactly; memory with its slope; and the objects a user can reach."""
