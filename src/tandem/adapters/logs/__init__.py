"""The log of a server: one line for each thing, with ids, without secrets."""
