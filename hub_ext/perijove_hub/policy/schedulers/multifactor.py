"""``multifactor``: thin for now, replaced below."""
