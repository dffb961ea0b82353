"""The grammar of ``convgen db`` and ``convgen lock``."""

from __future__ import annotations

import argparse
from collections.abc import Callable

_SPEC = "a descriptor (such as mb1_ic64oc64ih56oh56kh3ph1), or a file of the JSON that `convgen show --spec` prints"
_RESULTS = "a tuning database or an export"


def add_db(parser: argparse.ArgumentParser) -> None:
    """Adds the actions of ``convgen db``."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    def action(name: str, summary: str) -> argparse.ArgumentParser:
        return actions.add_parser(name, help=summary, description=f"{summary}.", allow_abbrev=False)

    listing = action("list", "list what tuning has found")
    listing.add_argument("--path", metavar="FILE", help="a database other than the one in the cache directory")
    export = action("export", "write what tuning has found as text that other machines can import")
    export.add_argument("-o", "--output", metavar="FILE", help="the file, or with --here its folder (default: stdout)")
    export.add_argument(
        "--format", choices=("jsonl", "t4"), default="jsonl", help="a record a line (default), or T4, which is not read"
    )
    export.add_argument("--here", action="store_true", help="results of this kind of machine only")
    export.add_argument("--hosts", action="store_true", help="tell the names of the computers that measured")
    importing = action("import", "add the records of exports")
    importing.add_argument("files", nargs="+", metavar="FILE", help="an export")
    merge = action("merge", "add the records of other databases or exports; evidence decides, and not the last writer")
    merge.add_argument("files", nargs="+", metavar="FILE", help=_RESULTS)
    diff = action("diff", "list the problems for which two sets of results choose differently (exit status 1)")
    diff.add_argument("first", metavar="FILE", help=_RESULTS)
    diff.add_argument("second", nargs="?", metavar="FILE", help="the other (default: this user's database)")
    _add_prune(action("prune", "remove the results that any of the options names; pins stay"))
    pin = action("pin", "verify a choice and hold to it, whatever is measured")
    pin.add_argument("spec", metavar="SPEC", help=_SPEC)
    pin.add_argument("--strategy", required=True, metavar="S", help="a strategy's name")
    pin.add_argument("--config", metavar="C", help="its configuration, as tables print it (default: its default)")
    unpin = action("unpin", "give a pinned choice up")
    unpin.add_argument("spec", metavar="SPEC", help=_SPEC)
    for each in (pin, unpin):
        each.add_argument("--threads", type=int, metavar="N", help="for this number of threads (default: for any)")


def _add_prune(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--other-versions", action="store_true", help="of other versions of convgen")
    parser.add_argument("--older-than", type=int, metavar="DAYS", help="older than so many days")
    parser.add_argument("--fingerprint", metavar="F", help="of this kind of machine")
    parser.add_argument("--other-machines", action="store_true", help="of other kinds of machine than this")
    parser.add_argument("--unknown", action="store_true", help="whose strategy or problem this convgen does not know")
    parser.add_argument("--dry-run", action="store_true", help="only count them")


def add_lock(parser: argparse.ArgumentParser, add_source: Callable[[argparse.ArgumentParser], None]) -> None:
    """Adds the options of ``convgen lock``; ``add_source`` adds those that name the problems."""
    add_source(parser)
    parser.add_argument("--threads", type=int, metavar="N", help="threads of a call (default as for tune)")
    parser.add_argument("--workspace-limit", type=int, metavar="B", help="bytes of scratch memory (default any)")
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="the lockfile (default: the one in force, else convgen.lock)"
    )
    parser.add_argument(
        "--check", action="store_true", help="change nothing; exit status 1 where a choice is missing or not valid"
    )
