"""The service's own board, plan and policy under a clock that only counts: simulated and recorded queues."""
