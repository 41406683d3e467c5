"""What a network costs, counted exactly, and the papers' own counts."""
