"""`amends completion SHELL`: a script by which a shell completes verbs and options, made from the argument parser.

Nothing is asked of a runtime: names of nodes and rentals are not completed, files are.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping
from typing import Final

from msgspec import Struct


class Place(Struct, frozen=True):
    """What may be typed behind some words: verbs with their help, and the options and arguments of argparse."""

    words: str
    help: str
    verbs: Mapping[str, str]
    actions: list[argparse.Action]

    @property
    def options(self) -> dict[str, tuple[str, bool]]:
        """Option → its help, and whether a value follows."""
        named = ((option, action) for action in self.actions for option in action.option_strings)
        return {option: (action.help or "", action.nargs != 0) for option, action in named}


def places(parser: argparse.ArgumentParser, words: str = "", text: str = "") -> Iterator[Place]:
    """All of a parser: its own, and below it those of its verbs. argparse tells its tree in no public way."""
    actions = parser._actions  # noqa: SLF001
    below = [action for action in actions if isinstance(action, argparse._SubParsersAction)]  # noqa: SLF001
    verbs = {one.dest: one.help or "" for action in below for one in action._choices_actions}  # noqa: SLF001
    yield Place(words, text, verbs, [action for action in actions if action not in below])
    for action in below:
        for word, one in action.choices.items():
            yield from places(one, f"{words} {word}".strip(), verbs[word])


def _known(found: list[Place]) -> list[str]:
    """Each verb behind the words that it follows, as the scripts find their way."""
    return [f"{place.words} {verb}" for place in found for verb in place.verbs]


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"


def _bash(found: list[Place]) -> str:
    known = "|".join(map(_quoted, _known(found)))
    cases = [f"        {_quoted(place.words)}) words={_quoted(' '.join([*place.verbs, *place.options]))} ;;"
             for place in found]  # fmt: skip
    return "\n".join([
        "_amends() {",
        "    local current=${COMP_WORDS[COMP_CWORD]} place='' words='' word",
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        '        case "$place $word" in',
        f"            {known}) place=${{place:+$place }}$word ;;",
        "        esac",
        "    done",
        "    case $place in",
        *cases,
        "    esac",
        '    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")',
        "}",
        "complete -o bashdefault -o default -F _amends amends",
    ])  # fmt: skip


def _zsh(found: list[Place]) -> str:
    known = "|".join(map(_quoted, _known(found)))

    def described(place: Place) -> str:
        said = {**place.verbs, **{option: text for option, (text, _) in place.options.items()}}
        return " ".join(_quoted(f"{word}:{text}") for word, text in said.items())

    return "\n".join([
        "#compdef amends",
        "_amends() {",
        "    local place='' word",
        "    local -a here",
        '    for word in "${(@)words[2,CURRENT-1]}"; do',
        '        case "$place $word" in',
        f"            {known}) place=${{place:+$place }}$word ;;",
        "        esac",
        "    done",
        "    case $place in",
        *(f"        {_quoted(place.words)}) here=({described(place)}) ;;" for place in found),
        "    esac",
        "    _describe -o amends here || _files",
        "}",
        'if [[ "${funcstack[1]}" = _amends ]]; then _amends "$@"; else compdef _amends amends; fi',
    ])  # fmt: skip


def _fish(found: list[Place]) -> str:
    lines = [
        "function __amends_at",
        "    set -l place ''",
        "    for word in (commandline -opc)[2..]",
        '        switch "$place $word"',
        f"            case {' '.join(map(_fish_quoted, _known(found)))}",
        '                set place (string trim -- "$place $word")',
        "        end",
        "    end",
        '    test "$place" = "$argv[1]"',
        "end",
    ]
    for place in found:
        here = f'complete -c amends -n "__amends_at {_fish_quoted(place.words)}"'
        lines += [f"{here} -f -a {word} -d {_fish_quoted(text)}" for word, text in place.verbs.items()]
        for option, (text, takes) in place.options.items():
            name = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            lines.append(f"{here} {name}{' -r' if takes else ''} -d {_fish_quoted(text)}")
    return "\n".join(lines)


def _fish_quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


SHELLS: Final[Mapping[str, Callable[[list[Place]], str]]] = {"bash": _bash, "zsh": _zsh, "fish": _fish}


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """The script for one of `SHELLS`."""
    return SHELLS[shell](list(places(parser)))
