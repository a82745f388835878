"""Secrets of users and projects: encrypted in the database, told only to the nodes that run their jobs."""
