"""What an evaluation leaves to look at: a page, tables and pictures, written by `report.write_report`."""
