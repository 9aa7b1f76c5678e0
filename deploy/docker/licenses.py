#!/usr/bin/env python3
"""Collects the licences of all that is linked into the program: licenses.py OUT [TARGET]

Of each package the files that it ships about its licence, those of the C code in it included; of Rust's standard
library; and of the C library, where Debian keeps them. OUT/index.tsv has a line for each. A package that ships no such
file fails this, unless it is MIT, whose text is known."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ABOUT = re.compile(r"(un)?licen[sc]e|copying|notice|copyright", re.IGNORECASE)
CODE = {".rs", ".c", ".h", ".py", ".go", ".pl", ".sh", ".toml", ".cmake"}
MIT = """{name}, by {authors}

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def said(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def packages(target: str | None) -> Iterator[dict]:
    """All packages that the program is built from, by name: without those of tests, and what only those turn on."""
    tree = ["cargo", "tree", "--locked", "--edges=normal,build", "--prefix=none", "--format={p}"]
    metadata = ["cargo", "metadata", "--locked", "--format-version=1"]
    if target:
        tree.append(f"--target={target}")
        metadata.append(f"--filter-platform={target}")
    linked = {tuple(line.split()[:2]) for line in said(*tree).splitlines() if line}
    known = json.loads(said(*metadata))["packages"]
    found = [package for package in known if (package["name"], f"v{package['version']}") in linked]
    if len(found) != len(linked):
        sys.exit("licenses.py: cargo tree and cargo metadata differ")
    yield from sorted(found, key=lambda package: (package["name"], package["version"]))


def texts(folder: Path) -> list[Path]:
    """The files about licences in a package, at its top and below."""
    files = (path for path in folder.rglob("*") if ABOUT.match(path.name) and path.suffix not in CODE)
    return sorted(path for path in files if path.is_file() and "target" not in path.relative_to(folder).parts[:-1])


def collect(package: dict, out: Path) -> None:
    folder = Path(package["manifest_path"]).parent
    # Of the program itself, not what lies below: its dependencies may be built there.
    found = [folder / "LICENSE"] if package["source"] is None else texts(folder)
    out.mkdir(parents=True)
    for text in found:
        to = out / text.relative_to(folder)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(text, to)
    if not found:
        if package["license"] != "MIT":
            sys.exit(f"licenses.py: {package['name']} is {package['license']} and ships no text of it")
        authors = ", ".join(package["authors"]) or f"the authors of {package['repository']}"
        (out / "LICENSE").write_text(MIT.format(name=package["name"], authors=authors))


def collect_libraries(out: Path) -> list[str]:
    """Those of Rust's standard library, and of the C library with what gcc adds."""
    sysroot = Path(said("rustc", "--print", "sysroot").strip())
    shutil.copytree(sysroot / "share" / "doc" / "rust" / "licenses", out / "rust" / "licenses")
    shutil.copyfile(sysroot / "share" / "doc" / "rust" / "COPYRIGHT-library.html", out / "rust" / "COPYRIGHT-library.html")
    (out / "libc").mkdir()
    shutil.copyfile("/usr/share/doc/libc6/copyright", out / "libc" / "copyright")
    shutil.copyfile("/usr/share/common-licenses/LGPL-2.1", out / "libc" / "LGPL-2.1")
    shutil.copyfile("/usr/share/doc/gcc-12-base/copyright", out / "libc" / "copyright-libgcc")
    return ["rust\t\tMIT OR Apache-2.0, and others", "libc\t\tLGPL-2.1-or-later, and others"]


def main(out: Path, target: str | None = None) -> None:
    lines = ["package\tversion\tlicense"]
    for package in packages(target):
        collect(package, out / f"{package['name']}-{package['version']}")
        lines.append(f"{package['name']}\t{package['version']}\t{package['license']}")
    lines += collect_libraries(out)
    (out / "index.tsv").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])
