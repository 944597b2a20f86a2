"""The web page: audit, feedback, and watching the model. It never speaks SQL, and never decodes a film itself."""
