"""``perijove up``: Perijove on one machine, as a supervisor of processes that holds no state of its own."""
