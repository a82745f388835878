"""API tokens of the users' devices, logins of devices, SSH keys, and what becomes of all of them at a sign-out."""
