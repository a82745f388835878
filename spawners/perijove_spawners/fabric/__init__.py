"""How the service reaches its nodes: the port, and its form over Dask."""
