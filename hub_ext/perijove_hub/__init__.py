"""Who may run what, where and when: the service, its queue and ledger, and the hub's authenticators."""
