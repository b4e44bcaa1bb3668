"""The drill: the demo is stopped in every way that a run can be stopped, and must end as if nothing had happened."""
