"""The table of paths."""

import pytest

from tandem.adapters.http.app import endpoints
from tandem.adapters.http.paths import Paths

TEMPLATES = ("/a", "/a/{x}", "/a/runs", "/a/{x}/runs", "/a/runs/{y}", "/a/{x}/{y}/z")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/a", ("/a", {})),
        ("/a/b", ("/a/{x}", {"x": "b"})),
        ("/a/runs", ("/a/runs", {})),
        ("/a/b/runs", ("/a/{x}/runs", {"x": "b"})),
        # Where both fit, a fixed word comes first.
        ("/a/runs/runs", ("/a/runs/{y}", {"y": "runs"})),
        # A fixed word that leads nowhere is no dead end.
        ("/a/runs/b/z", ("/a/{x}/{y}/z", {"x": "runs", "y": "b"})),
        ("/a/ /runs", ("/a/{x}/runs", {"x": " "})),
    ],
)
def test_a_path_leads_to_its_template(path: str, found: object) -> None:
    paths: Paths[str] = Paths()
    for template in TEMPLATES:
        paths.add(template, template)
    assert paths.find(path) == found


@pytest.mark.parametrize("path", ["", "/", "a", "/a/", "//a", "/a//runs", "/a/b/c", "/b", "*"])
def test_a_path_without_a_template_leads_nowhere(path: str) -> None:
    paths: Paths[str] = Paths()
    for template in TEMPLATES:
        paths.add(template, template)
    assert paths.find(path) is None


def test_every_route_is_found_by_its_own_template() -> None:
    paths: Paths[str] = Paths()
    for endpoint in endpoints():
        paths.add(endpoint.path, endpoint.path)
    for endpoint in endpoints():
        found = paths.find(endpoint.path)
        assert found is not None
        assert found[0] == endpoint.path
