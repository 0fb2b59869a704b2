"""No path leads out of a workspace."""

import hashlib
import os

import pytest

from tandem.adapters.local.workspace import file_artifact, inside, open_inside
from tandem.domain.errors import NotFound, Refused


@pytest.mark.parametrize("path", ["/etc/passwd", "..", "a/../../b", "a/..", "x\0y"])
def test_paths_that_lead_out_by_their_text_are_refused(tmp_path, path):
    with pytest.raises(Refused) as caught:
        inside(tmp_path, path)
    assert caught.value.code == "path_outside"


def test_links_that_lead_out_are_refused_and_others_followed(tmp_path):
    workspace = tmp_path / "w"
    (workspace / "sub").mkdir(parents=True)
    (workspace / "out").symlink_to(tmp_path)
    (workspace / "in").symlink_to("sub")
    with pytest.raises(Refused):
        inside(workspace, "out/file")
    assert inside(workspace, "in/file") == workspace / "sub" / "file"
    assert inside(workspace, "new/file") == workspace / "new" / "file"


def test_sibling_with_the_same_prefix_is_outside(tmp_path):
    (tmp_path / "w").mkdir()
    (tmp_path / "w2").mkdir()
    (tmp_path / "w" / "link").symlink_to(tmp_path / "w2")
    with pytest.raises(Refused):
        inside(tmp_path / "w", "link/file")


def test_artifact_names_digest_size_and_type(tmp_path):
    content = os.urandom(3_000_000)
    (tmp_path / "image.png").write_bytes(content)
    found = file_artifact(tmp_path, "image.png")
    assert found.digest == "sha256:" + hashlib.sha256(content).hexdigest()
    assert (found.size_bytes, found.media_type, found.path) == (3_000_000, "image/png", "image.png")
    assert file_artifact(tmp_path, "image.png", "x/y").media_type == "x/y"


def test_what_is_not_a_regular_file_is_not_found(tmp_path):
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "pipe", "missing", "missing/deeper"):
        with pytest.raises(NotFound):
            open_inside(tmp_path, name)
