"""DICOM TLS: certificates, what is spoken, and sockets that speak it (PS3.15 B.12)."""
