"""The command line: parse, call one command or query of the engine, show the answer."""
