"""API tokens, logins of devices, SSH keys, and what becomes of all of them at a sign-out."""
