"""Self-checks with known answers, and the proof that an interrupted run comes to the same as an uninterrupted one."""
