"""Who may do what, where jobs may read and write, and what answers and logs must not tell."""
