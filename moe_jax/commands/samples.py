"""Generated texts and the commands that follow a training run."""

import shlex
from collections.abc import Iterator, Sequence

from rich.console import Console

from moe_jax.data.config import DataConfig


def print_samples(console: Console, prompt: str, texts: Sequence[str], are_answers: bool) -> None:
    """Prints generated texts.

    Args:
        console: the console to print to.
        prompt: the prompt of the texts.
        texts: the generated texts.
        are_answers: whether the texts answer the prompt; otherwise they continue it.
    """
    several = len(texts) > 1
    if are_answers and prompt:
        console.print("question:", style="dim", end=" ")
        console.print(prompt, style="bold", markup=False, highlight=False)
        for number, text in enumerate(texts, 1):
            console.print(f"answer {number}:" if several else "answer:", style="dim", end=" ")
            console.print(text, markup=False, highlight=False)
        return
    for number, text in enumerate(texts, 1):
        if several:
            before = "\n" if number > 1 else ""
            console.print(f"{before}--- {number} of {len(texts)} ---", style="dim", highlight=False)
        console.print(prompt, style="bold", end="", markup=False, highlight=False)
        console.print(text, markup=False, highlight=False)


def print_stream(
    console: Console, prompt: str, pieces: tuple[str, Iterator[str]], is_answer: bool
) -> str:
    """Prints a text as it is made, in the form of `print_samples`.

    Args:
        console: the console to print to.
        prompt: the prompt of the text.
        pieces: the first piece of the text, and the others.
        is_answer: whether the text answers the prompt; otherwise it continues it.

    Returns:
        the whole text.
    """

    def show(text: str, style: str = "", end: str = "") -> None:
        console.print(text, style=style, end=end, markup=False, highlight=False, soft_wrap=True)
        console.file.flush()

    if is_answer and prompt:
        show("question: ", "dim")
        show(prompt, "bold", "\n")
        show("answer: ", "dim")
    else:
        show(prompt, "bold")
    text, rest = pieces
    show(text)
    for piece in rest:
        show(piece)
        text += piece
    show("", end="\n")
    return text


def next_commands(program: str, directory: str, data: DataConfig, prompt: str) -> list[str]:
    """Returns command lines to suggest after a finished run.

    Args:
        program: the name of the program, as the user can type it.
        directory: the run directory.
        data: the training data.
        prompt: a prompt that fits the data; empty if none is known.
    """
    shown = shlex.quote(directory)
    asked = f" --prompt={shlex.quote(prompt)}" if prompt else ""
    lines = [f"generate --checkpoint={shown}{asked}", f"eval --checkpoint={shown}"]
    if data.task == "embedded":
        lines.append(
            "train --gin_file=runs/quickstart.gin --gin.TASK='text:my_books/*.txt' "
            "--output_dir=runs/mine"
        )
    else:
        lines.append(f"plot {shown} --output=curves.png")
    return [f"{shlex.quote(program)} {line}" for line in lines]
