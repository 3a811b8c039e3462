"""What a run leaves: its store, frames, charts and pages."""
