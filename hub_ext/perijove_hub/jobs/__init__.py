"""The life of a job: what is decided (lifecycle, orders, dependencies, arrays) and who acts (controller)."""
