"""Policy: who may have how much, in which order, and by which rules. Pure: no I/O, time is passed in."""
