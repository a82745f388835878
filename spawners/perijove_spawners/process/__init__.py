"""Jobs as plain processes, under a supervisor that outlives the agent."""
