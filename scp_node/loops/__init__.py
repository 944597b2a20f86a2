"""One step of an image's way each: register, purge, analyse, report, deliver, commit."""
