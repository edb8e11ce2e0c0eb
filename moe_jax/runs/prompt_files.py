"""Files of prompts, and files of generated texts.

A file of prompts has one prompt per line, or, if its name ends in `.jsonl` or `.json`, one JSON
object with the field `prompt` per line. Blank lines are skipped. Generated texts are written as
JSON lines, one `GeneratedText` each.
"""

import dataclasses
import json
from collections.abc import Sequence

from etils import epath

from moe_jax import strict_json
from moe_jax.errors import UserError
from moe_jax.runs.generation import GeneratedText
from moe_jax.training.run_directory.atomic_file import write_atomically

_JSON_LINES = (".jsonl", ".json")
_FIELDS = [field.name for field in dataclasses.fields(GeneratedText)]


def read_prompts(path: str) -> list[str]:
    """Returns the prompts of a file.

    Raises:
        UserError: if the file cannot be read, is not UTF-8 text, or has no prompts; for JSON lines
            with the number of the first line that is not an object with a prompt.
    """
    file = epath.Path(path)
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"--prompts: there is no file {path}") from None
    except UnicodeDecodeError as error:
        raise UserError(
            f"--prompts: {path} is not UTF-8 text (byte {error.start}); convert it"
        ) from None
    except OSError as error:
        raise UserError(f"--prompts: cannot read {path}: {error.strerror or error}") from None
    lines = [line.rstrip("\r") for line in text.split("\n")]
    is_json = file.suffix in _JSON_LINES
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise UserError(
            f"--prompts: {path} has no prompts; it needs one per line, or, named .jsonl, "
            'lines like {"prompt": "The whale"}'
        )
    if not is_json:
        return [line for _, line in numbered]
    return [_of_json(line, f"--prompts: {path}, line {number}") for number, line in numbered]


def _of_json(line: str, where: str) -> str:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not JSON: {error}") from None
    if not isinstance(value, dict) or not isinstance(value.get("prompt"), str):
        raise UserError(f'{where} is not an object with a text "prompt", as {{"prompt": "A"}}')
    return str(value["prompt"])


def check_output(path: str) -> None:
    """Checks that generated texts can be written to a file, before they are generated.

    An earlier file of generated texts may be replaced, any other file may not.

    Raises:
        UserError: if there is another file, or no directory.
    """
    file = epath.Path(path)
    if file.is_dir():
        raise UserError(f"--output: {path} is a directory; name a file in it")
    if not file.exists():
        if "://" not in path and not file.parent.is_dir():
            raise UserError(f"--output: there is no directory {file.parent}")
        return
    try:
        first = file.read_bytes().split(b"\n", 1)[0]
        is_own = list(json.loads(first)) == _FIELDS
    except (ValueError, RecursionError, TypeError):
        is_own = False
    except OSError as error:
        raise UserError(f"--output: cannot read {path}: {error.strerror or error}") from None
    if not is_own:
        raise UserError(
            f"--output: {path} exists and is not a file of generated texts: name another file"
        )


def write_texts(path: str, texts: Sequence[GeneratedText]) -> None:
    """Writes generated texts as JSON lines, atomically.

    Raises:
        UserError: if the file cannot be written; an earlier one is kept.
    """
    lines = (strict_json.dumps(dataclasses.asdict(text)) + "\n" for text in texts)
    try:
        write_atomically(epath.Path(path), "".join(lines))
    except OSError as error:
        raise UserError(f"--output: cannot write {path}: {error.strerror or error}") from None
