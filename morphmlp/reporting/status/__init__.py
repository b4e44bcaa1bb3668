"""What runs are doing, from their record: `read_statuses` gathers, `run_status` judges, `view` draws."""
