"""The output of a run: its store, frames, charts and pages."""
