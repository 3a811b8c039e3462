"""What is measured: live objects, tasks and timers exactly; memory with its slope; and what a user can reach."""
