"""The HTTP server: a skin over the engine that parses, asks and renders."""
