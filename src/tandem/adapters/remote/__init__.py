"""A server of ours, asked over HTTP."""
