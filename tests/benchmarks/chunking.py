"""Measurements of chunking: milliseconds of one core a megabyte, hashes and headings included, for texts of many kinds.

    python tests/benchmarks/chunking.py [--characters 1500] [--overlap 0]

Prints what it measured; nothing here passes or fails. The last column is the time of two megabytes in those of one:
2 where the work grows with the text.
"""

from __future__ import annotations

import argparse
import sys
import time

from rowvec.domain.items import Source
from rowvec.domain.text import split_text

MEGABYTE = 1_000_000
ORDINARY = """
# How to run pods

A pod is the smallest thing that can be run. It has one container or several, and they share an address.

- Write down what you want.
- Ask for it:

  ```sh
  # comments are no headings
  kubectl apply -f pod.yaml
  ```

| state | meaning |
|---|---|
| Running | it runs |

## 学习

先学习如何运行容器，然后把它们连接起来。
"""  # noqa: RUF001
TEXTS = {
    "ordinary Markdown": ORDINARY,
    "one endless word": "a",
    "words on one line": "word ",
    "words a line": "word\n",
    "Chinese on one line": "学",
    "accents only": "\u0301",
    "white space": " ",
    "empty lines": "\n",
    **{repr(unit): unit for unit in ("#", "#\n", "# a\nb\n", "`", "```\n", "[", ">", ">\n", "> > a\nb\n", "*", "* ")},
    **{repr(unit): unit for unit in ("-\n", "- a\n", "- a\n  - b\n    - c\n", "1. ", "|", "|\n", "|a|\n|-|\n", "=\n")},
    "code without an end": "```\n" + "a\n\n" * MEGABYTE,
    "a table": "|a|b|\n|-|-|\n" + "|c|d|\n" * (MEGABYTE // 3),
    "headings ever deeper": "".join(f"{'#' * level} Heading\n\nwords\n\n" for level in range(1, 7)),
    "headings of 100 kB": "# " + "word " * 20_000 + "\n\nwords\n\n",
    "headings of 100 kB of #": "# " + "#" * 100_000 + "\n\nwords\n\n",
    "underlined headings": "Heading\n===\nwords\nand more\n---\n",
    "an underlined heading of 100 kB": "a\n" * 50_000 + "===\n",
    "headings in quotes": "> # a\n> b\n\n",
    "headings in lists": "- # a\n\n  ## b\n\n",
    "headings in a fence": "```\n" + "# a\n" * MEGABYTE,
    "emoji": "👩\u200d👩\u200d👧👍🏽🇩🇪",
    "quotes ever deeper": "\n".join("> " * depth + "a" for depth in range(1000)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--characters", type=int, default=1500)
    parser.add_argument("--overlap", type=int, default=0)
    options = parser.parse_args()
    for chunking in ("characters", "markdown"):
        sys.stdout.write(f"\n{chunking:32}  ms a MB  chunks  2 MB / 1 MB\n")
        for name, unit in TEXTS.items():
            report(name, unit, chunking, options)


def report(name: str, unit: str, chunking: str, options: argparse.Namespace) -> None:
    texts = [(unit * (length // len(unit) + 1))[:length] for length in (MEGABYTE, 2 * MEGABYTE)]
    (first, chunks), (second, _) = (measure(text, chunking, options) for text in texts)
    sys.stdout.write(f"{name:32}  {first * 1000:7.0f}  {chunks:6}  {second / first:11.1f}\n")
    sys.stdout.flush()


def measure(text: str, chunking: str, options: argparse.Namespace) -> tuple[float, int]:
    source = Source("page", ["body"], None, chunking, options.characters, options.overlap)
    begin = time.process_time()
    chunks = len(split_text(source, text))
    return time.process_time() - begin, chunks


if __name__ == "__main__":
    main()
