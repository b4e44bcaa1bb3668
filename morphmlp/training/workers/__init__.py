"""Training workers on Ray: started, supervised, restarted, and heard."""
