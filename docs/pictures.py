"""Makes the pictures of docs/, each by the last command of the block above it: python docs/pictures.py [PAGE …]

Needs Chromium. A command runs in the current folder, so that one which shows a run finds it there; without such a run the
picture stays as it is.
"""

import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image, ImageChops

DOCS = Path(__file__).parent
COMMAND = r"python -m benchmarks (?:view|report iso_compute) .+"
PICTURE = re.compile(rf"^```sh\n(?:.*\n)*?({COMMAND})\n```\n+!\[[^\]]*\]\(([\w.]+)\)", re.MULTILINE)
WIDTH, HEIGHT = 1240, 4000  # of the browser's window: no view is wider or higher
MARGIN = 24


def main(pages: list[str]) -> None:
    """Make the pictures of these pages, by default of all."""
    for page in map(Path, pages or sorted(DOCS.rglob("*.md"))):
        for command, name in PICTURE.findall(page.read_text(encoding="utf-8")):
            try:
                take(shlex.split(command, comments=True)[1:], page.parent / name)
                print(page.parent / name)
            except subprocess.CalledProcessError:
                print(f"left out: {page.parent / name}", file=sys.stderr)


def take(words: list[str], path: Path) -> None:
    """Write the view of a command as a picture."""
    with tempfile.TemporaryDirectory() as folder:
        view = Path(folder, "view.html")
        subprocess.run([sys.executable, *words, f"--out={view}"], check=True, stdout=subprocess.DEVNULL)
        photograph(view, path)


def photograph(view: Path, path: Path) -> None:
    """Write a page of charts as a picture, cut off below the last of them."""
    with tempfile.TemporaryDirectory() as folder:
        picture = Path(folder, "view.png")
        browser = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options = [f"--window-size={WIDTH},{HEIGHT}", "--virtual-time-budget=20000", f"--screenshot={picture}"]
        subprocess.run([*browser, *options, f"file://{view}"], check=True, stderr=subprocess.DEVNULL, timeout=300)
        image = Image.open(picture).convert("RGB")
    background = Image.new("RGB", image.size, image.getpixel((0, image.height - 1)))
    box = ImageChops.difference(image, background).getbbox()
    bottom = min(image.height, (box[3] if box else 0) + MARGIN)
    image.crop((0, 0, image.width, bottom)).quantize(256).save(path, optimize=True)


if __name__ == "__main__":
    main(sys.argv[1:])
