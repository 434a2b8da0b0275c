"""What a search may still take: trials, epochs, hours, disk. A range for what nobody can know."""
