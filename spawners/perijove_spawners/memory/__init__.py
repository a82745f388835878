"""Jobs that only pretend: the in-memory launcher."""
