"""The routes, one module for each resource.

A module exports `ROUTES`, a tuple of `Endpoint`; `app.MODULES` lists the modules, `policy.POLICY`
says for each route who may ask it. A handler takes a `Call` and returns a response; it raises
errors of the domain, or `HttpError` with a code of `errors.KINDS`.
"""
