"""Studies with the configuration they were made with: opened, counted, described."""
