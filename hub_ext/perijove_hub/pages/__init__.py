"""The pages for people: for now one, the queue."""
