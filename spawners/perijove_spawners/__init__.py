"""From a spec to a running container: the launchers, the node agent, the JupyterHub spawner."""
