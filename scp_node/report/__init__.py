"""The report of a study as a DICOM Structured Report: values in, bytes out; no sockets, no SQL."""
