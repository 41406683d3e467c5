"""From runs to numbers: seeds, intervals, fronts, verdicts."""
