"""The points of a sweep: `space.expand` and `space.Planner` find and check them, `plan.plan_text` shows them."""
