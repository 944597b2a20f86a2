"""The pages for people: plots and the evaluation page."""
