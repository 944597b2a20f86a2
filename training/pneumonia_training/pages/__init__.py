"""What people look at: plots and the evaluation page."""
