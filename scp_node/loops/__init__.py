"""The steps of an image's way, one module each: register, purge, analyse, report, deliver, commit."""
