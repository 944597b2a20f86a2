"""What is written in docker/, read the way Docker reads it. There is no Docker engine in the tests."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction of a Dockerfile, its continued lines joined and ARG defaults put in."""

    word: str
    rest: str

    @property
    def words(self) -> list[str]:
        """Return the arguments, without options such as --from."""
        return [word for word in shlex.split(self.rest) if not word.startswith("--")]

    @property
    def exec_form(self) -> list[str]:
        """Return the argument list of an exec-form instruction.

        Raises:
            ValueError: it is not a JSON array.
        """
        arguments: list[str] = json.loads(self.rest[self.rest.index("[") :])
        return arguments


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One FROM of a Dockerfile with what follows it."""

    name: str
    base: str
    instructions: list[Instruction] = field(default_factory=list)


class Dockerfile:
    """A parsed Dockerfile."""

    def __init__(self, text: str) -> None:
        self.arguments: dict[str, str] = {}
        self.stages: dict[str, Stage] = {}
        for word, rest in _instructions(text):
            self._add(Instruction(word=word, rest=self._expanded(rest)))

    def chain(self, target: str) -> list[Instruction]:
        """Return every instruction that makes `target`, its base stages first."""
        stage = self.stages[target]
        before = self.chain(stage.base) if stage.base in self.stages else []
        return [*before, *stage.instructions]

    def last(self, target: str, word: str) -> Instruction:
        """Return the instruction that decides: the last of that word in the chain of `target`."""
        return [instruction for instruction in self.chain(target) if instruction.word == word][-1]

    def environment(self, target: str) -> dict[str, str]:
        """Return the variables that ENV sets."""
        pairs = [word for instruction in self.chain(target) if instruction.word == "ENV" for word in instruction.words]
        return dict(pair.split("=", 1) for pair in pairs)

    def _add(self, instruction: Instruction) -> None:
        if instruction.word == "ARG":
            name, _, default = instruction.rest.partition("=")
            self.arguments[name] = default.strip('"')
        elif instruction.word == "FROM":
            base, _as, name = instruction.words
            self.stages[name] = Stage(name=name, base=base)
        else:
            self.stages[list(self.stages)[-1]].instructions.append(instruction)

    def _expanded(self, rest: str) -> str:
        return re.sub(r"\$\{(\w+)\}", lambda match: self.arguments.get(match[1], match[0]), rest)


def _instructions(text: str) -> Iterator[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        word, rest = line.split(maxsplit=1)
        yield word, rest


def build_context(repository: Path, to: Path) -> Path:
    """Copy what .dockerignore lets through, as `docker build` would send it."""
    for rule in (repository / ".dockerignore").read_text().splitlines():
        if not rule.startswith("!"):
            continue
        path = repository / rule.removeprefix("!")
        if path.is_dir():
            shutil.copytree(path, to / rule.removeprefix("!"), ignore=shutil.ignore_patterns("__pycache__"))
        elif path.exists():
            (to / rule.removeprefix("!")).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, to / rule.removeprefix("!"))
    return to


def is_pinned(image: str) -> bool:
    """Return whether the image has a tag that names a version."""
    name, _, tag = image.partition(":")
    return bool(name) and any(letter.isdigit() for letter in tag) and not fnmatch(tag, "latest*")
