"""Launchers for engines that speak the Docker Engine API (version 1.41): Docker and Podman.

https://docs.docker.com/reference/api/engine/version/v1.41/
"""
