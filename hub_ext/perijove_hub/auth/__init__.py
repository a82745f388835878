"""Who someone is: authenticators for JupyterHub."""
