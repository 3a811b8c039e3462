"""Usage records: a user's own from a CSV file or made-up ones, and the figures that a report on them must hold."""
