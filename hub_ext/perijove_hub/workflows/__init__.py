"""Workflows: graphs of steps, their runs, and what is kept of them."""
