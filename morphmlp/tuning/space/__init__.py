"""The points of a sweep: which can run, at what cost, and the plan that says so before anything starts."""
