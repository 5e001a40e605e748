"""What a person types: one short file per command, and the only place that prints."""
