"""The stages that run on the host: one file each, generators of requests (`host.requests`)."""
