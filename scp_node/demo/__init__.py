"""`make demo`: the whole loop on one machine, with a PACS, in less than two minutes."""
