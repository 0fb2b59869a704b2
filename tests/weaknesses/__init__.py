"""Weaknesses of the original engine that ours must not have, each with a mutant that has it."""
