"""What a sweep found: ranking with intervals, effects of fields, and the page, picture and text that show them."""
