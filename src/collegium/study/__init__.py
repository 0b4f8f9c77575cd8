"""Studies: grids of runs, and what comes out of them side by side."""
