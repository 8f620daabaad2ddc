"""Send the bombs of the tests to a service: how soon is each refused, and is anything left of it?

    python benchmarks/serve_bombs.py

Starts `vsr serve`, and sends each file of tests/serve/bombs.py as an image, as an image in JSON, as a video, and as an
upload that becomes a job; three times each. Beside them: a path with `..`, and a symbolic link out of an allowed
folder. Writes benchmarks/serve_bombs.json with the longest time of each. Exit code 1 where one is not answered 4xx,
takes a second or leaves a file.
"""

from __future__ import annotations

import base64
import json
import runpy
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
from machine import describe_run
from serve import service

HERE = Path(__file__).parent
BOMBS = runpy.run_path(str(HERE.parent / "tests" / "serve" / "bombs.py"))["BOMBS"]
TUS = {"Tus-Resumable": "1.0.0", "Content-Type": "application/offset+octet-stream"}
TIMES = 3
MOST_SECONDS = 1.0
Send = Callable[[httpx.Client], httpx.Response]


def sends(name: str, data: bytes) -> Iterator[tuple[str, Send]]:
    """Yield the ways by which a file comes in, each by its name."""
    text = base64.b64encode(data).decode()
    body = {"signature_name": "image_bytes", "instances": [{"b64": text}]}
    yield f"{name}, as an image", lambda client: client.post("/model/predict", files={"image": ("x.png", data)})
    yield f"{name}, in JSON", lambda client: client.post("/v1/models/nano:predict", json=body)
    yield f"{name}, as a video", lambda client: client.post("/v1/jobs", files={"video": ("x.png", data)})
    yield f"{name}, as an upload", lambda client: _as_upload(client, data)


def _as_upload(client: httpx.Client, data: bytes) -> httpx.Response:
    headers = TUS | {"Upload-Length": str(len(data))}
    url = client.post("/v1/uploads", content=data, headers=headers).headers["Location"]
    answer = client.post("/v1/jobs", json={"upload": url.rsplit("/", 1)[1]})
    client.delete(url, headers=TUS)
    return answer


def paths(root: Path, secret: Path) -> Iterator[tuple[str, Send]]:
    """Yield requests for a file that lies beside the allowed folder."""
    (root / "link.mp4").symlink_to(secret)
    (root / "folder").symlink_to(secret.parent, target_is_directory=True)
    for name in (f"../{secret.name}", "link.mp4", f"folder/{secret.name}"):
        yield f"the path {name}", lambda client, name=name: client.post("/v1/jobs", json={"path": name})


def measure(client: httpx.Client, send: Send) -> dict[str, Any]:
    """Send a request several times; return its status, and the longest time in seconds."""
    seconds, statuses = [], set()
    for _ in range(TIMES):
        began = time.perf_counter()
        statuses.add(send(client).status_code)
        seconds.append(time.perf_counter() - began)
    return {"status": sorted(statuses), "seconds": round(max(seconds), 3)}


def main() -> None:
    """Send all, print what took longest, and write serve_bombs.json."""
    with tempfile.TemporaryDirectory() as folder:
        root, secret = Path(folder, "root"), Path(folder, "secret.mp4")
        root.mkdir()
        secret.write_bytes(b"secret")
        with service("nano", root=root) as running, httpx.Client(base_url=running.url, timeout=60) as client:
            client.get("/openapi.json")  # the first answer takes longer
            cases = [case for name, make in BOMBS.items() for case in sends(name, make(str(secret)))]
            found = {name: measure(client, send) for name, send in [*cases, *paths(root, secret)]}
            left = [str(path.relative_to(running.state)) for path in running.state.rglob("*") if path.is_file()]
    strays = [path for path in left if not path.startswith(("lock", "jobs.sqlite3"))]
    result = {**describe_run(), "bombs": found, "files_left": strays}
    (HERE / "serve_bombs.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    slowest = max(found, key=lambda name: float(found[name]["seconds"]))
    print(f"{len(found)} bombs; the slowest: {slowest}, {found[slowest]['seconds']} s; files left: {strays}")
    refused = all(400 <= status < 500 for row in found.values() for status in row["status"])
    if not refused or strays or found[slowest]["seconds"] >= MOST_SECONDS:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
